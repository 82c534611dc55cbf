-- Title:      Downstream of an ablation
-- Question:   when one component is taken away, which later ones write something else?
-- Grain:      one row per ablated component, value and component after it
-- Key:        ablated, value, component
-- Parameters: experiment (default ''), ablated (default '')
-- Reads:      patch_downstream, patch_checks, latest_experiment
-- Reference:  self-repair: Rushing and Nanda 2024; the norm's part is exact, see
--             profiler.patching.redundancy.self_repair
-- Caveat:     logits of the logit difference, at the clean run's norm. part direct + head + mlp +
--             norm = total. repaired is minus the part made up for over the direct loss; NULL where
--             that is below a twentieth of the whole effect: nothing to take a share of. ablated
--             empty shows all. experiment empty takes the one written last.
SET VARIABLE experiment = coalesce(getvariable('experiment')::VARCHAR, '');
SET VARIABLE ablated = coalesce(getvariable('ablated')::VARCHAR, '');
WITH sums AS (
    SELECT ablated, value, sum(delta_dla) FILTER (WHERE part = 'direct') AS direct
        , sum(delta_dla) FILTER (WHERE part = 'total') AS total
    FROM patch_downstream
    WHERE experiment = chosen_experiment(getvariable('experiment'))
    GROUP BY ablated, value
)
SELECT patch_downstream.ablated, patch_downstream.value, patch_downstream.component
    , patch_downstream.part, patch_downstream.delta_dla, patch_downstream.delta_dla_lo
    , patch_downstream.delta_dla_hi, patch_downstream.p, patch_downstream.n
    , CASE WHEN patch_downstream.part NOT IN ('direct', 'total')
        AND abs(sums.direct)
            >= 0.05 * abs(patch_checks.size)
        THEN -patch_downstream.delta_dla / sums.direct END AS repaired
    , sums.total
FROM patch_downstream JOIN sums USING (ablated, value)
-- the whole effect in logits, whatever the experiment's metric is
JOIN patch_checks
    ON patch_checks.experiment = patch_downstream.experiment
        AND patch_checks.pair_set = 'discovery'
        AND patch_checks.check_name = 'logit difference, clean to corrupted'
WHERE patch_downstream.experiment = chosen_experiment(getvariable('experiment'))
    AND getvariable('ablated') IN ('', patch_downstream.ablated)
ORDER BY patch_downstream.ablated, patch_downstream.value, abs(patch_downstream.delta_dla) DESC
    , patch_downstream.component;
