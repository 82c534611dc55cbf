-- Title:      Faithfulness at fixed fractions of edges and nodes
-- Question:   how faithful are the best edges or nodes at MIB's fractions, and what areas do they
--             give?
-- Grain:      one row per level, ranking and fraction
-- Key:        level, ranking, fraction
-- Parameters: experiment (default '')
-- Reads:      circuit_fractions, circuit_scores, patch_experiments, latest_experiment
-- Reference:  CPR and CMD: Mueller et al. 2025, MIB, circuit track (evaluate_area_under_curve)
-- Caveat:     area is CPR for the signed ranking and CMD for the absolute one, as on the
--             leaderboard: two different circuits, linear in the fraction, so half of it lies above
--             0.5. Where f crosses 1 between two fractions the leaderboard's CMD is too large;
--             area_exact is not. Scores are EAP-IG on the discovery pairs, faithfulness of the
--             pairs of pair_set. experiment empty takes the one written last.
SET VARIABLE experiment = coalesce(getvariable('experiment')::VARCHAR, '');
WITH areas AS (
    SELECT metric, score FROM circuit_scores
    WHERE experiment = chosen_experiment(getvariable('experiment'))
        AND metric IN ('edge_cpr', 'edge_cmd', 'edge_cmd_exact', 'node_cpr', 'node_cmd'
            , 'node_cmd_exact')
)
SELECT circuit_fractions.level, circuit_fractions.ranking, circuit_fractions.fraction
    , circuit_fractions.size, circuit_fractions.items, circuit_fractions.faithfulness
    , area.score AS area
    , coalesce(exact.score, area.score) AS area_exact
    , circuit_fractions.pair_set, patch_experiments.metric AS measured_by
FROM circuit_fractions
JOIN patch_experiments USING (experiment)
LEFT JOIN areas AS area
    ON area.metric = circuit_fractions.level
        || CASE circuit_fractions.ranking WHEN 'signed' THEN '_cpr' ELSE '_cmd' END
LEFT JOIN areas AS exact
    ON exact.metric = circuit_fractions.level || '_cmd_exact'
        AND circuit_fractions.ranking = 'absolute'
WHERE circuit_fractions.experiment = chosen_experiment(getvariable('experiment'))
ORDER BY circuit_fractions.level, circuit_fractions.ranking, circuit_fractions.fraction;
