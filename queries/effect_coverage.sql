-- Title:      Coverage under both importances
-- Question:   on which share of a head's importance does each behaviour hold, counting only what
--             the head writes directly, and counting everything that it does?
-- Grain:      one row per head and behaviour
-- Key:        component, behaviour
-- Parameters: component (default ''), family (default 'attention'), reference (default 'mean')
-- Reads:      effect_rows, component_effects, behaviour_marks, behaviours, uniform_marks,
--             jackknife_groups
-- Reference:  importance-weighted coverage: sum of |effect| where the behaviour holds / sum of
--             |effect|; delete-a-group jackknife over documents: Wolter, Introduction to Variance
--             Estimation, chapter 4, interval on the logit scale
-- Caveat:     both from the same positions: those of the run's uniform sample that the pass of
--             total effects read. scrambled is the share of these positions where the behaviour
--             holds, the coverage of a claim that knows nothing of the head. Positions are those
--             where the head wrote; what it did may be at later ones. family empty takes all.
SET VARIABLE component = coalesce(getvariable('component')::VARCHAR, '');
SET VARIABLE family = coalesce(getvariable('family')::VARCHAR, 'attention');
SET VARIABLE reference = coalesce(getvariable('reference')::VARCHAR, 'mean');
WITH asked AS (
    SELECT behaviour_id, behaviour, family FROM behaviours
    WHERE kind IN ('head', 'both') AND getvariable('family') IN ('', family)
)
, kept AS MATERIALIZED (
    -- size of both effects of a head at each position, by the method that agrees best
    SELECT component_effects.component, component_effects.layer, component_effects.method
        , effect_rows.position_id, uniform_marks.group_id, uniform_marks.doc_id
        , abs(effect_rows.total)::DOUBLE AS total_size
        , abs(effect_rows.direct)::DOUBLE AS direct_size
    FROM effect_rows
    JOIN component_effects
        ON component_effects.component_id = effect_rows.component_id
            AND component_effects.method = effect_rows.method
            AND component_effects.reference = effect_rows.reference
    JOIN uniform_marks ON uniform_marks.position_id = effect_rows.position_id
    WHERE effect_rows.reference = getvariable('reference')
        AND getvariable('component') IN ('', component_effects.component)
)
, marks AS MATERIALIZED (
    -- where a behaviour holds (true) or cannot be told (NULL)
    SELECT component, position_id, behaviour_id, true AS is_marked, holds
    FROM behaviour_marks
    WHERE kind = 'head' AND getvariable('component') IN ('', component)
)
, told AS MATERIALIZED (
    SELECT kept.*, asked.behaviour, asked.family, coalesce(marks.holds, false) AS holds
    FROM kept CROSS JOIN asked
    LEFT JOIN marks
        ON marks.component = kept.component AND marks.position_id = kept.position_id
            AND marks.behaviour_id = asked.behaviour_id
    WHERE marks.is_marked IS NULL OR marks.holds IS NOT NULL
)
, sums AS (
    SELECT {'component': component, 'behaviour': behaviour, 'of': 'total'} AS key, group_id
        , sum_where(total_size, holds) AS above, sum(total_size) AS below
    FROM told GROUP BY component, behaviour, group_id
    UNION ALL
    SELECT {'component': component, 'behaviour': behaviour, 'of': 'direct'}, group_id
        , sum_where(direct_size, holds), sum(direct_size)
    FROM told GROUP BY component, behaviour, group_id
)
, ratios AS MATERIALIZED (
    SELECT key.component, key.behaviour, key.of, ratio, se, t FROM jackknife_ratios('sums')
)
, whole AS (
    SELECT component, any_value(layer) AS layer, behaviour, any_value(family) AS family
        , any_value(method) AS method, count(*) AS n, count(*) FILTER (holds) AS n_held
        , count(DISTINCT doc_id) AS documents
    FROM told GROUP BY component, behaviour
)
SELECT whole.component, whole.layer, whole.behaviour, whole.family
    , direct.ratio AS direct_coverage
    , share_lo(direct.ratio, direct.se, direct.t, whole.documents) AS direct_lo
    , share_hi(direct.ratio, direct.se, direct.t, whole.documents) AS direct_hi
    , total.ratio AS total_coverage
    , share_lo(total.ratio, total.se, total.t, whole.documents) AS total_lo
    , share_hi(total.ratio, total.se, total.t, whole.documents) AS total_hi
    , whole.n_held / whole.n AS scrambled, whole.n_held, whole.n, whole.method
FROM whole
JOIN ratios AS total
    ON total.component = whole.component AND total.behaviour = whole.behaviour
        AND total.of = 'total'
JOIN ratios AS direct
    ON direct.component = whole.component AND direct.behaviour = whole.behaviour
        AND direct.of = 'direct'
ORDER BY whole.component, total_coverage DESC NULLS LAST, whole.behaviour;
