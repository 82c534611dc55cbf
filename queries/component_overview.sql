-- Title:      Component overview
-- Question:   which heads and neurons matter on this corpus, and for which token class?
-- Grain:      one row per head or neuron
-- Key:        component
-- Parameters: kind (default ''), top (default 100)
-- Reads:      cell_sums, group_counts, replicate_groups, components, classes, power_sums
-- Reference:  importance is mean |DLA|; delete-a-group jackknife over documents: Wolter, Introduction to Variance
--             Estimation, chapter 4
-- Caveat:     |DLA| sees only what a component writes directly to the next token's logit: one that works through later
--             layers looks unimportant. share_abs_dla is of the sum over all heads and neurons, whatever kind shows;
--             such sums do not cancel, so shares say nothing about the net effect. kind is head or neuron, both if
--             empty; top 0 shows all.
SET VARIABLE kind = coalesce(getvariable('kind')::VARCHAR, '');
SET VARIABLE top = coalesce(getvariable('top')::BIGINT, 100);
WITH sizes AS (
    -- ordinary positions of each replicate group
    SELECT group_id, sum(n) AS n_g FROM group_counts WHERE axis = 'class' GROUP BY group_id
)
, sums AS (
    -- sums of each component in each group; dense: every component has every group
    SELECT s.component_id, s.group_id, sum(s.sum_activation) AS a_g, sum(s.sum_dla) AS d_g, sum(s.sum_abs_dla) AS m_g
    FROM cell_sums s
    JOIN components c USING (component_id)
    JOIN classes k ON k.class_id = s.value_id AND NOT k.special
    WHERE s.axis = 'class' AND c.kind IN ('head', 'neuron')
    GROUP BY s.component_id, s.group_id
)
, everything AS (
    SELECT group_id, sum(m_g) AS all_g FROM sums GROUP BY group_id
)
, whole AS (
    SELECT component_id, sum(a_g) AS a, sum(d_g) AS d, sum(m_g) AS m FROM sums GROUP BY component_id
)
, totals AS (
    SELECT sum(n_g) AS n, (SELECT sum(all_g) FROM everything) AS all_m, (SELECT count(*) FROM replicate_groups) AS g FROM sizes
)
, errors AS (
    SELECT s.component_id
        , sqrt((g - 1) / g * sum(((w.a - s.a_g) / (t.n - z.n_g) - w.a / t.n) ** 2)) AS activation_se
        , sqrt((g - 1) / g * sum(((w.d - s.d_g) / (t.n - z.n_g) - w.d / t.n) ** 2)) AS dla_se
        , sqrt((g - 1) / g * sum(((w.m - s.m_g) / (t.n - z.n_g) - w.m / t.n) ** 2)) AS abs_dla_se
        , sqrt((g - 1) / g * sum(((w.m - s.m_g) / (t.all_m - e.all_g) - w.m / t.all_m) ** 2)) AS share_abs_dla_se
    FROM sums s
    JOIN whole w USING (component_id)
    JOIN sizes z ON z.group_id = s.group_id
    JOIN everything e ON e.group_id = s.group_id
    CROSS JOIN totals t
    WHERE t.g > 1 AND t.n > z.n_g AND t.all_m > e.all_g
    GROUP BY s.component_id, t.g, t.n, t.all_m
)
, by_class AS (
    SELECT s.component_id, k.class, sum(s.sum_abs_dla) AS m_class
    FROM cell_sums s
    JOIN classes k ON k.class_id = s.value_id AND NOT k.special
    WHERE s.axis = 'class'
    GROUP BY s.component_id, k.class
)
, top_class AS (
    -- first by name where two classes tie
    SELECT component_id, first(class ORDER BY m_class DESC, class) AS class, max(m_class) AS m_class
    FROM by_class GROUP BY component_id
)
, spread AS (
    -- of all classes and domains together: inside them and between their means
    SELECT component_id, sqrt(sum(a_m2 + n * (a_mean - mean) ** 2) / sum(n)) AS activation_sd
        , min(a_min) AS activation_min, max(a_max) AS activation_max
    FROM (
        SELECT p.*, sum(p.n * p.a_mean) OVER one / sum(p.n) OVER one AS mean
        FROM power_sums p JOIN classes k ON k.class_id = p.class_id AND NOT k.special
        WINDOW one AS (PARTITION BY p.component_id)
    )
    GROUP BY component_id
)
SELECT c.component, c.kind, c.layer, t.n::BIGINT AS n
    , w.a / t.n AS activation, e.activation_se, s.activation_sd
    , w.d / t.n AS dla, e.dla_se
    , w.m / t.n AS abs_dla, e.abs_dla_se
    , w.m / nullif(t.all_m, 0) AS share_abs_dla, e.share_abs_dla_se
    , k.class AS top_class, k.m_class / nullif(w.m, 0) AS top_class_share
    , s.activation_min, s.activation_max
FROM whole w
JOIN components c USING (component_id)
JOIN top_class k USING (component_id)
JOIN spread s USING (component_id)
LEFT JOIN errors e USING (component_id)
CROSS JOIN totals t
WHERE getvariable('kind') IN ('', c.kind)
ORDER BY abs_dla DESC, c.component_id
LIMIT CASE WHEN getvariable('top') > 0 THEN getvariable('top') END;
