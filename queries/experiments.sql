-- Title:      Experiments
-- Question:   what was patched in this run, on which pairs, and could the model do it?
-- Grain:      one row per experiment
-- Key:        experiment
-- Parameters: experiment (default '')
-- Reads:      patch_experiments, patch_checks, latest_experiment
-- Reference:  Heimersheim and Nanda 2024, How to use and interpret activation patching
-- Caveat:     right is the share of discovery pairs whose answer stands above its distractors:
--             below 0.75 a circuit explains little. metric judges circuits, selected_by is the
--             metric of patches, by which members are selected. Shows every experiment of the file
--             unless one is named. experiment empty takes the one written last.
SET VARIABLE experiment = coalesce(getvariable('experiment')::VARCHAR, '');
SELECT patch_experiments.experiment, patch_experiments.task, patch_experiments.scheme
    , patch_experiments.model, patch_experiments.n_pairs, patch_experiments.n_dropped
    , patch_experiments.metric, patch_experiments.metric_words, patch_experiments.metric_unit
    , patch_experiments.selected_by
    , patch_experiments.metric_clean, patch_experiments.metric_corrupted, patch_experiments.neutral
    , patch_experiments.is_symmetric
    , patch_checks.size AS "right", patch_experiments.means_by_template, patch_experiments.seconds
    , patch_experiments.created
    , patch_experiments.experiment = latest_experiment.experiment AS latest
FROM patch_experiments
LEFT JOIN patch_checks
    ON patch_checks.experiment = patch_experiments.experiment
        AND patch_checks.pair_set = 'discovery'
            AND patch_checks.check_name = 'answer above distractors, clean'
CROSS JOIN latest_experiment
WHERE getvariable('experiment') IN ('', patch_experiments.experiment)
ORDER BY patch_experiments.created DESC, patch_experiments.experiment;
