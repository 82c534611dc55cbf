-- Title:      What estimates of total effects miss
-- Question:   how many of the real effects stand among the largest estimates?
-- Grain:      one row per method, value put in, kind and share of estimates looked at
-- Key:        method, value, kind, looked_at
-- Parameters: kind (default '')
-- Reads:      effect_recall
-- Reference:  Kramar et al. 2024, AtP*, section 4 (false negatives); Clopper and Pearson 1934
-- Caveat:     from a stratified sample of ablations: hits and false_negatives are estimates,
--             recall_lo and false_negatives_hi 95 % bounds. An effect counts from threshold on.
--             More ablations (`profiler effects --checked`) give nearer bounds.
SET VARIABLE kind = coalesce(getvariable('kind')::VARCHAR, '');
SELECT method, value, kind, looked_at, recall, recall_lo, hits, false_negatives, false_negatives_hi
    , threshold, n
FROM effect_recall
WHERE getvariable('kind') IN ('', kind)
ORDER BY kind, value, method, looked_at;
