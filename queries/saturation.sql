-- Title:      Saturation
-- Question:   how many of the top heads are enough?
-- Grain:      one row per number of heads
-- Key:        size
-- Parameters: experiment (default '')
-- Reads:      patch_saturation, latest_experiment
-- Reference:  Shapley 1953; redundancy that saturates: the essay on redundancy and superposition
-- Caveat:     share recovered in the corrupted run by sets of the top heads, mean over random
--             orders; component and shapley list the heads by rank and do not belong to the size
--             beside them. experiment empty takes the one written last.
SET VARIABLE experiment = coalesce(getvariable('experiment')::VARCHAR, '');
SELECT size, share, lowest, highest, component, shapley, orders
FROM patch_saturation
WHERE experiment = chosen_experiment(getvariable('experiment'))
ORDER BY size;
