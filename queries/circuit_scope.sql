-- Title:      Circuits and their scope
-- Question:   what was the circuit found on, what was controlled, and what was controlled by
--             accident?
-- Grain:      one row per circuit
-- Key:        circuit
-- Parameters: experiment (default '')
-- Reads:      circuits, latest_experiment
-- Reference:  Miller et al. 2024, Transformer circuit faithfulness metrics are not robust
-- Caveat:     accidental lists what the pair linter noted; it cannot know what nobody checked.
--             experiment empty takes the one written last.
SET VARIABLE experiment = coalesce(getvariable('experiment')::VARCHAR, '');
SELECT circuit, model, task, prompts, schemes, controlled, accidental, outside, intact, metric
    , found_by, yaml
FROM circuits
WHERE experiment = chosen_experiment(getvariable('experiment'))
ORDER BY circuit;
