-- Title:      Paths
-- Question:   what does one component tell another along a path, and do other senders tell it too?
-- Grain:      one row per experiment, metric, path, positions and sender
-- Key:        experiment, measured_by, path, positions, sender
-- Parameters: experiment (default '')
-- Reads:      patch_paths, latest_experiment
-- Reference:  path patching: Wang et al. 2022, section 3; Goldowsky-Dill et al. 2023
-- Caveat:     share of the metric that is lost when the path carries what its sender writes on the
--             corrupted prompt. is_control rows are the same path from other senders of its kind; p
--             counts those that lose as much. MLPs between are no part of a path. experiment empty
--             shows all, latest says which are of the experiment written last.
SET VARIABLE experiment = coalesce(getvariable('experiment')::VARCHAR, '');
SELECT patch_paths.experiment, patch_paths.path, patch_paths.positions, patch_paths.sender
    , patch_paths.is_control, patch_paths.share, patch_paths.share_lo, patch_paths.share_hi
    , patch_paths.p, patch_paths.p_least, patch_paths.n, patch_paths.measured_by
    , patch_paths.experiment = latest_experiment.experiment AS latest
FROM patch_paths
LEFT JOIN latest_experiment ON true
WHERE getvariable('experiment') IN ('', patch_paths.experiment)
ORDER BY patch_paths.experiment, patch_paths.measured_by, patch_paths.path, patch_paths.positions
    , patch_paths.is_control, abs(patch_paths.share) DESC, patch_paths.sender;
