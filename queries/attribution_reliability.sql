-- Title:      Where attribution patching can be believed
-- Question:   how well do estimates from gradients agree with exact patches?
-- Grain:      one row per method, direction, site, and layer or size of patch or neither
-- Key:        method, direction, component_kind, cell
-- Parameters: experiment (default '')
-- Reads:      patch_reliability, latest_experiment
-- Reference:  Nanda 2023, Attribution patching; Kramar et al. 2024, AtP*
-- Caveat:     false_negatives: share of effects of at least 2 % that were estimated below that. A
--             cell of few targets says little. bound is of neurons that were never patched exactly.
--             experiment empty takes the one written last.
SET VARIABLE experiment = coalesce(getvariable('experiment')::VARCHAR, '');
SELECT method, direction, component_kind
    , CASE WHEN layer IS NOT NULL THEN 'layer ' || layer WHEN size_bin IS NOT NULL
        THEN 'size ' || size_bin ELSE 'all' END AS cell
    , n, pearson, spearman, sign, slope, error, false_negatives, reliable, nonlinearity, bound
FROM patch_reliability
WHERE experiment = chosen_experiment(getvariable('experiment'))
ORDER BY method, direction, component_kind, cell;
