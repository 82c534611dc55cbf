-- Title:      Scores of the circuit
-- Question:   is the circuit faithful, complete, minimal and stable, and better than random ones?
-- Grain:      one row per circuit, set of pairs and score
-- Key:        circuit, pair_set, metric
-- Parameters: experiment (default '')
-- Reads:      circuit_scores, latest_experiment
-- Reference:  Wang et al. 2022, section 4; Miller et al. 2024; Shi et al. 2024
-- Caveat:     shares are of what all nodes do beyond none, and missing where the model shows no
--             effect (explainable 0). A faithfulness above 1 is over-recovery, no success. random K
--             cannot tell a good circuit from a naive one; see greedy. experiment empty takes the
--             one written last.
SET VARIABLE experiment = coalesce(getvariable('experiment')::VARCHAR, '');
SELECT circuit, pair_set, metric, score, low, high, n, granularity, component_kind, value, positions
    , direction
FROM circuit_scores
WHERE experiment = chosen_experiment(getvariable('experiment'))
ORDER BY circuit, pair_set, metric;
