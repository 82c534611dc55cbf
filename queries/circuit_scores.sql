-- Title:      Scores of the circuit
-- Question:   is the circuit faithful, complete, minimal and stable, and better than random ones?
-- Grain:      one row per circuit, set of pairs and score
-- Key:        circuit, pair_set, metric
-- Parameters: experiment (default '')
-- Reads:      circuit_scores, patch_experiments, latest_experiment
-- Reference:  Wang et al. 2022, section 4; Miller et al. 2024; Shi et al. 2024
-- Caveat:     metric names the score, measured_by what the model's answer is measured by. Shares
--             are of what all nodes do beyond none, and missing where the model shows no
--             effect (explainable 0). A faithfulness above 1 is over-recovery, no success. random K
--             cannot tell a good circuit from a naive one; see greedy. experiment empty takes the
--             one written last.
SET VARIABLE experiment = coalesce(getvariable('experiment')::VARCHAR, '');
SELECT circuit_scores.circuit, circuit_scores.pair_set, circuit_scores.metric, circuit_scores.score
    , circuit_scores.low, circuit_scores.high, circuit_scores.n, circuit_scores.granularity
    , circuit_scores.component_kind, circuit_scores.value, circuit_scores.positions
    , circuit_scores.direction, patch_experiments.metric AS measured_by
FROM circuit_scores JOIN patch_experiments USING (experiment)
WHERE experiment = chosen_experiment(getvariable('experiment'))
ORDER BY circuit_scores.circuit, circuit_scores.pair_set, circuit_scores.metric;
