-- Title:      Use exact patching here
-- Question:   for which components is an estimate not to be believed?
-- Grain:      one row per method, direction, component and positions
-- Key:        method, direction, component, positions
-- Parameters: experiment (default '')
-- Reads:      patch_attribution, latest_experiment
-- Reference:  Kramar et al. 2024, AtP*: saturated attention and cancellation
-- Caveat:     only components that were patched exactly can be told; see bound in
--             attribution_reliability for the others. experiment empty takes the one written last.
SET VARIABLE experiment = coalesce(getvariable('experiment')::VARCHAR, '');
SELECT method, direction, component, component_kind, layer, positions, estimated, exact
    , estimated - exact AS off, patch_size, saturated
FROM patch_attribution
WHERE experiment = chosen_experiment(getvariable('experiment')) AND use_exact
ORDER BY abs(estimated - exact) DESC, method, direction, component, positions;
