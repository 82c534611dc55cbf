-- Title:      Replacement by understanding
-- Question:   how much of a component's effect does a rule explain that does what is claimed of it?
-- Grain:      one row per component, role, rule, measure and percentiles of importance
-- Key:        component, role, rule, measure, percentile_lo, percentile_hi
-- Parameters: check_id (default '')
-- Reads:      replacements, latest_check
-- Reference:  McDougall et al. 2023, section 3: 1 - D_replaced / D_mean-ablated
-- Caveat:     below 0 the replacement does more harm than the mean; NULL where ablation itself
--             changes too little to divide by. check_id empty takes the one written last.
SET VARIABLE check_id = coalesce(getvariable('check_id')::VARCHAR, '');
SELECT component, role, "rule", measure, percentile_lo, percentile_hi, d_replaced, d_ablated
    , explained, lo AS explained_lo, hi AS explained_hi, null_explained, n
FROM replacements
WHERE check_id = chosen_check(getvariable('check_id'))
ORDER BY component, role, "rule", measure, percentile_hi - percentile_lo DESC, percentile_lo;
