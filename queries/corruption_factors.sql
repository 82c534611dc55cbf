-- Title:      What components respond to
-- Question:   which corruption does each component respond to, and do the corruptions add up?
-- Grain:      one row per component and axis (a corruption, two of them, or the rest)
-- Key:        component, axis
-- Parameters: experiment (default ''), component (default '')
-- Reads:      patch_factors, circuit_members, latest_experiment
-- Reference:  factorial designs: Fisher 1935, chapter 6; crossed signals of a circuit: Wang et al.
--             2022, appendix A
-- Caveat:     effects are losses of logit difference when the component's value from a corrupted
--             prompt is put into the clean run, in logits; all tokens of the prompt. axis a x b: by
--             how much the effect of a differs with b. part is the share of the component's sum of
--             squares, so a component with hardly any response has parts too: read them with effect
--             and p_adjusted. additive is the part of all main effects, the R squared of an
--             additive fit. responds_to is the axis with the largest part among those with
--             p_adjusted below 0.05 (family-wise over components; p_least is the least that the
--             prompts can give). Only built-in tasks are crossed. experiment empty takes the one
--             written last.
SET VARIABLE experiment = coalesce(getvariable('experiment')::VARCHAR, '');
SET VARIABLE component = coalesce(getvariable('component')::VARCHAR, '');
WITH factors AS (
    SELECT * FROM patch_factors
    WHERE experiment = chosen_experiment(getvariable('experiment'))
)
, whole AS (
    -- changes: 1 a main effect, 2 an interaction of two, 3 the rest
    SELECT component, sum(part) FILTER (WHERE changes = 1) AS additive, max(abs(effect)) AS largest
        , arg_max(axis, part) FILTER (WHERE p_adjusted < 0.05 AND changes < 3) AS responds_to
    FROM factors GROUP BY component
)
, members AS (
    SELECT DISTINCT component FROM circuit_members
    WHERE experiment = chosen_experiment(getvariable('experiment'))
)
SELECT factors.component, factors.component_kind, factors.layer
    , factors.component IN (FROM members) AS member, factors.axis, factors.changes, factors.effect
    , factors.effect_lo
    , factors.effect_hi, factors.part, factors.p, factors.p_adjusted
    , factors.p_least, whole.responds_to, whole.additive, whole.largest
    , factors.n, factors.n_dropped
FROM factors JOIN whole USING (component)
WHERE getvariable('component') IN ('', factors.component)
ORDER BY whole.largest DESC, factors.component, factors.changes, factors.axis;
