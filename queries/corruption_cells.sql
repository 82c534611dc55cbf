-- Title:      Corruptions combined
-- Question:   what does each component's value cost, under every combination of the task's
--             corruptions?
-- Grain:      one row per component and combination
-- Key:        component, cell
-- Parameters: experiment (default ''), component (default '')
-- Reads:      patch_cells, latest_experiment
-- Reference:  factorial designs: Fisher 1935, chapter 6
-- Caveat:     lost is a mean over prompts, in logits; model is the whole model on the corrupted
--             prompt. corruption_factors takes these apart. component empty shows all. experiment
--             empty takes the one written last.
SET VARIABLE experiment = coalesce(getvariable('experiment')::VARCHAR, '');
SET VARIABLE component = coalesce(getvariable('component')::VARCHAR, '');
SELECT component, component_kind, layer, cell, lost, n, n_dropped
FROM patch_cells
WHERE experiment = chosen_experiment(getvariable('experiment'))
    AND getvariable('component') IN ('', component)
ORDER BY layer NULLS FIRST, component, cell;
