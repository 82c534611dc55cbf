-- Title:      The pair linter
-- Question:   what do the pairs control, on purpose and by accident?
-- Grain:      one row per set of pairs and check
-- Key:        pair_set, check_number
-- Parameters: experiment (default '')
-- Reads:      patch_checks, latest_experiment
-- Reference:  Zhang and Nanda 2024, Towards best practices of activation patching
-- Caveat:     a check is a reason to look, no verdict: level warning means that patches of these
--             pairs may answer another question. experiment empty takes the one written last.
SET VARIABLE experiment = coalesce(getvariable('experiment')::VARCHAR, '');
SELECT pair_set, check_number, check_name, finding, size, level
FROM patch_checks
WHERE experiment = chosen_experiment(getvariable('experiment'))
ORDER BY pair_set, check_number;
