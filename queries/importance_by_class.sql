-- Title:      Importance by token class, direct and total
-- Question:   at which token classes does the component matter, by what it writes directly and by
--             all that it does?
-- Grain:      one row per class of the token
-- Key:        class
-- Parameters: component (required)
-- Reads:      component_facts, position_facts, importance, jackknife_groups
-- Reference:  delete-a-group jackknife over documents: Wolter, Introduction to Variance Estimation,
--             chapter 4, interval on the logit scale
-- Caveat:     from the positions of the uniform sample where total effects were measured, for both
--             shares, so that they can be held against each other; by_class has the direct share of
--             all positions. base_rate is the class's share of these positions. The class is that
--             of the token where the component wrote; what it did may be at later positions. No
--             rows without total effects.
SET VARIABLE component = required(getvariable('component'), 'component', 'L0H0');
WITH facts AS MATERIALIZED (
    SELECT position_facts.class, component_facts.group_id, component_facts.doc_id
        , importance_at('direct', 1, component_facts.dla, component_facts.total) AS direct
        , importance_at('total', 1, component_facts.dla, component_facts.total) AS total
    FROM component_facts JOIN position_facts USING (position_id)
    WHERE component_facts.component = getvariable('component') AND component_facts.total IS NOT NULL
)
, groups AS (
    SELECT group_id, sum(direct) AS direct, sum(total) AS total FROM facts GROUP BY group_id
)
, held AS (
    SELECT class, group_id, sum(direct) AS direct, sum(total) AS total
    FROM facts GROUP BY class, group_id
)
, sums AS (
    SELECT {'class': classes.class, 'importance': 'direct'} AS key, groups.group_id
        , coalesce(held.direct, 0) AS above, groups.direct AS below
    FROM groups
    CROSS JOIN (SELECT DISTINCT class FROM facts) AS classes
    LEFT JOIN held ON held.class = classes.class AND held.group_id = groups.group_id
    UNION ALL
    SELECT {'class': classes.class, 'importance': 'total'}, groups.group_id
        , coalesce(held.total, 0), groups.total
    FROM groups
    CROSS JOIN (SELECT DISTINCT class FROM facts) AS classes
    LEFT JOIN held ON held.class = classes.class AND held.group_id = groups.group_id
)
, documents AS (
    SELECT effective_number(direct) AS direct, effective_number(total) AS total
    FROM (SELECT sum(direct) AS direct, sum(total) AS total FROM facts GROUP BY doc_id)
)
, ratios AS MATERIALIZED (
    SELECT key.class AS class, key.importance AS importance, ratio, se, t
    FROM jackknife_ratios('sums')
)
SELECT whole.class, total.ratio AS total_share
    , share_lo(total.ratio, total.se, total.t, documents.total) AS total_share_lo
    , share_hi(total.ratio, total.se, total.t, documents.total) AS total_share_hi
    , direct.ratio AS direct_share
    , share_lo(direct.ratio, direct.se, direct.t, documents.direct) AS direct_share_lo
    , share_hi(direct.ratio, direct.se, direct.t, documents.direct) AS direct_share_hi
    , whole.n / sum(whole.n) OVER () AS base_rate, whole.n, importance.acts, importance.agrees
FROM (SELECT class, count(*) AS n FROM facts GROUP BY class) AS whole
CROSS JOIN documents
JOIN importance ON importance.component = getvariable('component')
JOIN ratios AS total ON total.class = whole.class AND total.importance = 'total'
JOIN ratios AS direct ON direct.class = whole.class AND direct.importance = 'direct'
ORDER BY round(total.ratio, 9) DESC NULLS LAST, whole.class;
