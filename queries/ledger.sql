-- Title:      The evidence ledger
-- Question:   what does each finding say of its claim, and was the claim registered before the
--             test?
-- Grain:      one row per finding
-- Key:        finding
-- Parameters: check_id (default ''), tested (default 0)
-- Reads:      ledger, latest_check
-- Reference:  profiler.generality.evidence.ledger has the test of each technique; Holm 1979
-- Caveat:     weight is 1 / (1 + the sum of Jaccard overlaps with the claim's other lines in
--             distribution, technique, data and gradients). check_id empty takes the one written
--             last. tested = 1 leaves out lines that describe. null_near: a number that is best at
--             1 must be nearer to 1 than this. p_least is the least p that null_n random circuits
--             or components can give: where it is not below 0.05, p cannot decide.
SET VARIABLE check_id = coalesce(getvariable('check_id')::VARCHAR, '');
SET VARIABLE tested = coalesce(getvariable('tested')::BIGINT, 0);
SELECT finding, subject, role, technique, distribution, statistic, value, lo AS value_lo
    , hi AS value_hi, n, unit, null_mean, null_hi, null_near, null_n, p, p_least
    , speaks, reason, way, p_for, p_against, weight, status, carries, shares, refused, granularity
    , component_kind, ablation, positions, direction, pair_set
FROM ledger
WHERE check_id = chosen_check(getvariable('check_id'))
    AND (getvariable('tested') = 0 OR speaks IN ('for', 'against', 'undecided'))
ORDER BY role <> '', subject, role, technique, ordinal, distribution, statistic, finding;
