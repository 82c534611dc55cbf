-- Title:      Downstream of an ablation
-- Question:   when one component is taken away, which later ones write something else?
-- Grain:      one row per ablated component, value and component after it
-- Key:        ablated, value, component
-- Parameters: experiment (default ''), ablated (default '')
-- Reads:      patch_downstream, patch_experiments, latest_experiment
-- Reference:  self-repair: Rushing and Nanda 2024; the norm's part is exact, see profiler.patching.redundancy.self_repair
-- Caveat:     logits of the logit difference, at the clean run's norm. part direct + head + mlp + norm = total.
--             repaired is minus the part made up for over the direct loss; NULL where that is below a twentieth of the
--             whole effect: nothing to take a share of. ablated empty shows all. experiment empty takes the one written
--             last.
SET VARIABLE experiment = coalesce(getvariable('experiment')::VARCHAR, '');
SET VARIABLE ablated = coalesce(getvariable('ablated')::VARCHAR, '');
WITH sums AS (
    SELECT ablated, value, sum(delta_dla) FILTER (WHERE part = 'direct') AS direct, sum(delta_dla) FILTER (WHERE part = 'total') AS total
    FROM patch_downstream WHERE experiment = coalesce(nullif(getvariable('experiment'), ''), (SELECT experiment FROM latest_experiment)) GROUP BY ablated, value
)
SELECT d.ablated, d.value, d.component, d.part, d.delta_dla, d.delta_dla_lo, d.delta_dla_hi, d.p, d.n
    , CASE WHEN d.part NOT IN ('direct', 'total') AND abs(s.direct) >= 0.05 * abs(e.metric_clean - e.metric_corrupted)
        THEN -d.delta_dla / s.direct END AS repaired
    , s.total
FROM patch_downstream d JOIN sums s USING (ablated, value) JOIN patch_experiments e USING (experiment)
WHERE d.experiment = coalesce(nullif(getvariable('experiment'), ''), (SELECT experiment FROM latest_experiment)) AND getvariable('ablated') IN ('', d.ablated)
ORDER BY d.ablated, d.value, abs(d.delta_dla) DESC, d.component;
