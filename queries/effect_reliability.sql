-- Title:      Reliability of total effects
-- Question:   how well do estimated total effects agree with ablations?
-- Grain:      one row per method, value put in, kind, and layer or all layers
-- Key:        method, value, kind, layers
-- Parameters: kind (default '')
-- Reads:      effect_reliability
-- Reference:  Kramar et al. 2024, AtP*; Nanda 2023, Attribution patching
-- Caveat:     each case is one unit ablated at one position, drawn by the size of its estimate
--             (effect_checks). An effect counts from threshold on, a tenth of the largest of its
--             kind. reliable: right signs in 90 %, error at most 1/2, no false negative.
SET VARIABLE kind = coalesce(getvariable('kind')::VARCHAR, '');
SELECT method, value, kind, coalesce(layer::VARCHAR, 'all') AS layers, n, pearson, spearman, sign
    , slope, error, false_negatives, threshold, reliable
FROM effect_reliability
WHERE getvariable('kind') IN ('', kind)
ORDER BY kind, value, method, layer NULLS FIRST;
