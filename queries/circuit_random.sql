-- Title:      Random circuits of the same size
-- Question:   how faithful would a random circuit be?
-- Grain:      one row per circuit, set of pairs and draw
-- Key:        circuit, pair_set, draw
-- Parameters: experiment (default '')
-- Reads:      circuit_random, patch_experiments, latest_experiment
-- Reference:  sufficiency against random circuits: Shi et al. 2024
-- Caveat:     as many heads, and as many MLPs where these are nodes, drawn uniformly. experiment
--             empty takes the one written last.
SET VARIABLE experiment = coalesce(getvariable('experiment')::VARCHAR, '');
SELECT circuit_random.circuit, circuit_random.pair_set, circuit_random.draw
    , circuit_random.faithfulness, patch_experiments.metric AS measured_by
FROM circuit_random JOIN patch_experiments USING (experiment)
WHERE experiment = chosen_experiment(getvariable('experiment'))
ORDER BY circuit_random.circuit, circuit_random.pair_set, circuit_random.draw;
