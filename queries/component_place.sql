-- Title:      Place of a component
-- Question:   how much of all importance is this head's or neuron's, and how many matter more?
-- Grain:      one row; none for a closing term
-- Key:        component
-- Parameters: component (required)
-- Reads:      importance, group_sums, group_counts, group_importance
-- Reference:  importance is mean |DLA|; delete-a-group jackknife over documents: Wolter, Introduction to Variance
--             Estimation, chapter 4
-- Caveat:     the same numbers as component_overview has of all, for one, without adding up all. place counts from 1; those
--             that tie are ordered by layer. |DLA| sees only what is written directly to the next token's logit.
SET VARIABLE component = coalesce(getvariable('component')::VARCHAR, error('set the component first: SET VARIABLE component = ''L0H0'';'));
WITH ranked AS (
    SELECT component, kind, layer, sum_abs_dla AS m, row_number() OVER (ORDER BY sum_abs_dla DESC, component_id) AS place
        , count(*) OVER () AS n_components
    FROM importance
)
, own AS (
    SELECT group_id, sum(sum_abs_dla) AS m_g FROM group_sums
    WHERE component = getvariable('component') AND axis = 'class' GROUP BY group_id
)
, shares AS (
    SELECT getvariable('component') AS key, group_id, m_g AS above, e.sum_abs_dla AS below FROM own JOIN group_importance e USING (group_id)
)
SELECT r.component, r.kind, r.layer, t.n::BIGINT AS n, r.m / t.n AS abs_dla, r.m / nullif(a.all_m, 0) AS share_abs_dla, e.se AS share_abs_dla_se
    , CASE WHEN e.se IS NOT NULL THEN greatest(0, share_abs_dla - e.t * e.se) END AS share_abs_dla_lo
    , CASE WHEN e.se IS NOT NULL THEN least(1, share_abs_dla + e.t * e.se) END AS share_abs_dla_hi
    , r.place, r.n_components
FROM ranked r
CROSS JOIN (SELECT sum(n) AS n FROM group_counts WHERE axis = 'class') t
CROSS JOIN (SELECT sum(sum_abs_dla) AS all_m FROM group_importance) a
LEFT JOIN jackknife_ratios('shares') e ON e.key = r.component
WHERE r.component = getvariable('component')
ORDER BY r.place;
