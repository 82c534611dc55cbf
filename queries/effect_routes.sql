-- Title:      Through whom
-- Question:   through which later components does a head act?
-- Grain:      one row per head and way
-- Key:        component, through, input
-- Parameters: component (default ''), least (default 0.01)
-- Reads:      effect_routes
-- Reference:  Syed et al. 2023, Attribution patching outperforms automated circuit discovery;
--             Sundararajan et al. 2017, Axiomatic attribution
-- Caveat:     one level: each way is counted under the first component that reads the head's write,
--             whatever it goes through after that. share is of the sizes of all ways; effect has a
--             sign: ways of opposite sign cancel. through logits is the direct effect; other is
--             what these ways leave. least is the smallest share shown; component empty shows every
--             head that was split.
SET VARIABLE component = coalesce(getvariable('component')::VARCHAR, '');
SET VARIABLE least = coalesce(getvariable('least')::DOUBLE, 0.01);
WITH shares AS (
    SELECT component, through, input, effect, size, n
        , size / nullif(sum(size) OVER (PARTITION BY component), 0) AS share
        , sum(effect) OVER (PARTITION BY component) AS total
    FROM effect_routes
)
SELECT component, through, input, share, effect, size, total, n
FROM shares
WHERE getvariable('component') IN ('', component) AND share >= getvariable('least')
ORDER BY component, share DESC, through, input;
