-- Title:      Experiments
-- Question:   what was patched in this run, on which pairs, and could the model do it?
-- Grain:      one row per experiment
-- Key:        experiment
-- Parameters: experiment (default '')
-- Reads:      patch_experiments, patch_checks, latest_experiment
-- Reference:  Heimersheim and Nanda 2024, How to use and interpret activation patching
-- Caveat:     right is the share of discovery pairs whose answer stands above its distractors: below 0.75 a circuit
--             explains little. Shows every experiment of the file unless one is named. experiment empty takes the one
--             written last.
SET VARIABLE experiment = coalesce(getvariable('experiment')::VARCHAR, '');
SELECT e.experiment, e.task, e.scheme, e.model, e.n_pairs, e.n_dropped, e.metric_clean, e.metric_corrupted, e.neutral, e.is_symmetric
    , c.size AS "right", e.means_by_template, e.seconds, e.created, e.experiment = l.experiment AS latest
FROM patch_experiments e
LEFT JOIN patch_checks c ON c.experiment = e.experiment AND c.pair_set = 'discovery' AND c.check_name = 'answer above distractors, clean'
CROSS JOIN latest_experiment l
WHERE getvariable('experiment') IN ('', e.experiment)
ORDER BY e.created DESC, e.experiment;
