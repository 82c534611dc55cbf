-- Title:      Effects by stratum
-- Question:   is the effect the same for every order, length and frequency of the words in the
--             pairs?
-- Grain:      one row per set of pairs, stratum and its value
-- Key:        pair_set, stratum, stratum_value
-- Parameters: experiment (default ''), patched (default '')
-- Reads:      patch_pairs, patch_effects, latest_experiment
-- Reference:  confounds that patching holds fixed by accident: the essay on what patching can and
--             cannot teach
-- Caveat:     share is of the clean minus the corrupted logit difference of the stratum's own
--             pairs, resampled values at all positions; NULL without a patched component, and for
--             sets whose patches are not stored (discovery alone is). Token ids follow frequency in
--             byte-pair vocabularies only. experiment empty takes the one written last.
SET VARIABLE experiment = coalesce(getvariable('experiment')::VARCHAR, '');
SET VARIABLE patched = coalesce(getvariable('patched')::VARCHAR, '');
WITH strata AS (
    -- one row for each stratum that a pair names
    SELECT pair_set, pair, metric_clean, metric_corrupted, unnest(json_keys(strata)) AS stratum
        , strata
    FROM patch_pairs
    WHERE experiment = chosen_experiment(getvariable('experiment'))
)
, effects AS (
    SELECT pair_set, pair, avg(effect) FILTER (WHERE direction = 'denoise') AS recovered
        , -avg(effect) FILTER (WHERE direction = 'noise') AS lost
    FROM patch_effects
    WHERE experiment = chosen_experiment(getvariable('experiment'))
        AND component = getvariable('patched') AND positions = 'all' AND value = 'resample'
    GROUP BY pair_set, pair
)
SELECT strata.pair_set, strata.stratum
    , json_extract_string(strata.strata, '$."' || strata.stratum || '"') AS stratum_value
    , count(*) AS n
    , avg(strata.metric_clean) AS metric_clean, avg(strata.metric_corrupted) AS metric_corrupted
    , avg((strata.metric_clean > 0)::INTEGER) AS "right"
    , avg(effects.recovered)
        / nullif(avg(strata.metric_clean - strata.metric_corrupted), 0) AS recovered_denoise
    , avg(effects.lost)
        / nullif(avg(strata.metric_clean - strata.metric_corrupted), 0) AS lost_noise
FROM strata LEFT JOIN effects USING (pair_set, pair)
GROUP BY ALL
ORDER BY strata.pair_set, strata.stratum, stratum_value;
