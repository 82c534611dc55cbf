-- Title:      What attribution patching misses
-- Question:   how many of the largest effects stand among the largest estimates?
-- Grain:      one row per method, direction, site, positions, effects asked for and estimates
--             looked at
-- Key:        method, direction, component_kind, positions, asked, looked_at
-- Parameters: experiment (default '')
-- Reads:      patch_recall, latest_experiment
-- Reference:  Kramar et al. 2024, AtP*, section 4 (false negatives); Nanda 2023, Attribution
--             patching
-- Caveat:     asked is the top k exact effects, or all of at least 2 %. Sites other than neurons
--             are wholly patched: recall and misses are counted. Of neurons (method any) the
--             largest estimates and a random sample of the others are patched: recall is estimated,
--             recall_lo and false_negatives_hi are 95 % bounds from the sample. experiment empty
--             takes the one written last.
SET VARIABLE experiment = coalesce(getvariable('experiment')::VARCHAR, '');
SELECT method, direction, component_kind, positions
    , CASE WHEN top IS NULL THEN 'all of 2 %' ELSE 'top ' || top END AS asked, looked_at
    , wanted, hits, recall, recall_lo, false_negatives_hi, n, unpatched
FROM patch_recall
WHERE experiment = chosen_experiment(getvariable('experiment'))
ORDER BY component_kind, positions, direction, method, top NULLS LAST, looked_at;
