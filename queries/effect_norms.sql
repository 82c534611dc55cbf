-- Title:      Through the final norm
-- Question:   which components change how sure the model is, through the final norm's denominator?
-- Grain:      one row per component
-- Key:        component
-- Parameters: component (default ''), top (default 20)
-- Reads:      effect_norms, components
-- Reference:  Stolfo et al. 2024, Confidence regulation neurons in language models
-- Caveat:     exact for one component removed at the end, everything else as it was: direct
--             attribution, which holds the denominator, sees none of it. scale is the mean change
--             of the denominator as a part of it; entropy (nats) and margin (logits: the next
--             token's logit less the largest other one) change by the denominator alone, and are
--             measured for the components of the largest scale_size. component overrides top; top 0
--             shows all.
SET VARIABLE component = coalesce(getvariable('component')::VARCHAR, '');
SET VARIABLE top = coalesce(getvariable('top')::BIGINT, 20);
SELECT components.component, components.kind, components.layer, effect_norms.scale
    , effect_norms.scale_lo, effect_norms.scale_hi, effect_norms.scale_size
    , effect_norms.scale_size_lo, effect_norms.scale_size_hi, effect_norms.entropy
    , effect_norms.entropy_lo, effect_norms.entropy_hi, effect_norms.margin
    , effect_norms.margin_lo, effect_norms.margin_hi, effect_norms.n_shift
FROM effect_norms
JOIN components USING (component_id)
WHERE getvariable('component') IN ('', components.component)
ORDER BY effect_norms.scale_size DESC, component_id
LIMIT CASE WHEN getvariable('top') > 0 AND getvariable('component') = ''
    THEN getvariable('top') END;
