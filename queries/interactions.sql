-- Title:      Two components together
-- Question:   do two components stand in for each other, or need each other?
-- Grain:      one row per two components and direction
-- Key:        first, second, direction
-- Parameters: experiment (default '')
-- Reads:      patch_interactions, latest_experiment
-- Reference:  interaction and super-additivity: circuits with redundancy are not sums, see
--             profiler.patching.redundancy.gates
-- Caveat:     top heads only. relation is of the later one to the earlier; inconclusive is no claim
--             of independence. experiment empty takes the one written last.
SET VARIABLE experiment = coalesce(getvariable('experiment')::VARCHAR, '');
SELECT first, second, direction, share_first, share_second, share_together, interaction
    , super_additivity, p, delta_dla, relation
FROM patch_interactions
WHERE experiment = chosen_experiment(getvariable('experiment'))
ORDER BY abs(interaction) DESC, first, second, direction;
