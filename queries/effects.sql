-- Title:      Total effects
-- Question:   which components matter through everything after them, and is that direct, through
--             others, or both?
-- Grain:      one row per head, neuron or other unit
-- Key:        component
-- Parameters: component (default ''), kind (default ''), reference (default 'mean'), top (default
--             40)
-- Reads:      component_effects
-- Reference:  Nanda 2023, Attribution patching; Sundararajan et al. 2017, Axiomatic attribution;
--             delete-a-group jackknife over documents: Wolter, Introduction to Variance Estimation,
--             chapter 4
-- Caveat:     estimates from gradients, of a sample of the run's text; error and reliable say how
--             well those of the component's layer and kind agree with ablations. What a component
--             does at later positions is counted at its own; what it does through another is
--             counted for both, so that total effects do not add up to a logit. rank and
--             direct_rank are among units of its kind. kind empty takes all; reference is zero or
--             mean; top 0 shows all; component overrides kind and top.
SET VARIABLE component = coalesce(getvariable('component')::VARCHAR, '');
SET VARIABLE kind = coalesce(getvariable('kind')::VARCHAR, '');
SET VARIABLE reference = coalesce(getvariable('reference')::VARCHAR, 'mean');
SET VARIABLE top = coalesce(getvariable('top')::BIGINT, 40);
WITH ranked AS (
    SELECT *, rank() OVER (PARTITION BY kind ORDER BY importance DESC) AS rank
        , rank() OVER (PARTITION BY kind ORDER BY direct_importance DESC) AS direct_rank
        , count(*) OVER (PARTITION BY kind) AS of_kind
    FROM component_effects WHERE reference = getvariable('reference')
)
SELECT component, kind, layer, acts, importance, importance_lo, importance_hi
    , direct_importance, direct_importance_lo, direct_importance_hi, through_importance
    , rank, direct_rank, of_kind, total, direct, loss, method, error, reliable
FROM ranked
WHERE CASE getvariable('component') WHEN '' THEN getvariable('kind') IN ('', kind)
    ELSE component = getvariable('component') END
ORDER BY importance DESC, component_id
LIMIT CASE WHEN getvariable('top') > 0 AND getvariable('component') = ''
    THEN getvariable('top') END;
