-- Title:      Faithfulness by size
-- Question:   how faithful are the k best nodes?
-- Grain:      one row per circuit and size
-- Key:        circuit, size
-- Parameters: experiment (default '')
-- Reads:      circuit_curve, latest_experiment
-- Reference:  Mueller et al. 2025, MIB, with exact areas (profiler.circuits.scoring.curve)
-- Caveat:     nodes in the order of their larger share in either direction; a better set of the
--             same size may exist. experiment empty takes the one written last.
SET VARIABLE experiment = coalesce(getvariable('experiment')::VARCHAR, '');
SELECT circuit, size, node_share, faithfulness, component
FROM circuit_curve
WHERE experiment = chosen_experiment(getvariable('experiment'))
ORDER BY circuit, size;
