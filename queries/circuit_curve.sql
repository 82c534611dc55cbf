-- Title:      Faithfulness by size
-- Question:   how faithful are the k best nodes?
-- Grain:      one row per circuit and size
-- Key:        circuit, size
-- Parameters: experiment (default '')
-- Reads:      circuit_curve, patch_experiments, latest_experiment
-- Reference:  Mueller et al. 2025, MIB, with exact areas (profiler.circuits.scoring.curve)
-- Caveat:     nodes in the order of their larger share in either direction; a better set of the
--             same size may exist. experiment empty takes the one written last.
SET VARIABLE experiment = coalesce(getvariable('experiment')::VARCHAR, '');
SELECT circuit_curve.circuit, circuit_curve.size, circuit_curve.node_share
    , circuit_curve.faithfulness, circuit_curve.component, patch_experiments.metric AS measured_by
FROM circuit_curve JOIN patch_experiments USING (experiment)
WHERE experiment = chosen_experiment(getvariable('experiment'))
ORDER BY circuit_curve.circuit, circuit_curve.size;
