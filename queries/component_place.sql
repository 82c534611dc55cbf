-- Title:      Place of a component
-- Question:   how much of all importance is this head's or neuron's, and how many matter more?
-- Grain:      one row; none for a closing term
-- Key:        component
-- Parameters: component (required)
-- Reads:      importance, group_sums, group_counts, group_importance, replicate_groups
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
, sizes AS (
    SELECT group_id, sum(n) AS n_g, sum(sum(n)) OVER () AS n FROM group_counts WHERE axis = 'class' GROUP BY group_id
)
, everything AS (
    SELECT group_id, sum_abs_dla AS all_g, sum(sum_abs_dla) OVER () AS all_m, (SELECT count(*) FROM replicate_groups) AS g FROM group_importance
)
, errors AS (
    SELECT any_value(r.component) AS component, sqrt(any_value((g - 1) / g) * sum(((r.m - o.m_g) / (e.all_m - e.all_g) - r.m / e.all_m) ** 2)) AS se
    FROM ranked r JOIN own o ON r.component = getvariable('component') JOIN sizes z USING (group_id) JOIN everything e USING (group_id)
    WHERE g > 1 AND z.n > z.n_g AND e.all_m > e.all_g
)
SELECT r.component, r.kind, r.layer, t.n::BIGINT AS n, r.m / t.n AS abs_dla, r.m / nullif(a.all_m, 0) AS share_abs_dla, e.se AS share_abs_dla_se
    , r.place, r.n_components
FROM ranked r
CROSS JOIN (SELECT sum(n_g) AS n FROM sizes) t
CROSS JOIN (SELECT sum(all_g) AS all_m FROM everything) a
LEFT JOIN errors e ON e.component = r.component
WHERE r.component = getvariable('component')
ORDER BY r.place;
