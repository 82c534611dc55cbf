-- Title:      Component overview
-- Question:   which heads and neurons matter on this corpus, and for which token class?
-- Grain:      one row per head or neuron
-- Key:        component
-- Parameters: kind (default ''), top (default 100)
-- Reads:      cell_sums, group_counts, jackknife_groups, components, classes, power_sums
-- Reference:  importance is mean |DLA|; delete-a-group jackknife over documents: Wolter, Introduction to Variance
--             Estimation, chapter 4
-- Caveat:     |DLA| sees only what a component writes directly to the next token's logit: one that works through later
--             layers looks unimportant. share_abs_dla is of the sum over all heads and neurons, whatever kind shows;
--             such sums do not cancel, so shares say nothing about the net effect. top_class_share says something of the
--             component only beside top_class_base, that class's share of all positions. kind is head or neuron, both if
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
    SELECT sum(n_g) AS n, (SELECT sum(all_g) FROM everything) AS all_m FROM sizes
)
, rests AS (
    -- positions and all |DLA| when a group is left out
    SELECT g.*, without(sum(n_g) OVER (), sum(n_g) OVER here, n_g, part) AS n_rest
        , without(sum(all_g) OVER (), sum(all_g) OVER here, all_g, part) AS all_rest
    FROM jackknife_groups g JOIN sizes USING (group_id) JOIN everything USING (group_id) WINDOW here AS (PARTITION BY domain_id)
)
, left_out AS (
    SELECT s.component_id, r.domain_id, r.groups, nullif(r.n_rest, 0) AS n_rest, nullif(r.all_rest, 0) AS all_rest, w.a, w.d, w.m
        , without(w.a, sum(s.a_g) OVER here, s.a_g, r.part) AS a_rest, without(w.d, sum(s.d_g) OVER here, s.d_g, r.part) AS d_rest
        , without(w.m, sum(s.m_g) OVER here, s.m_g, r.part) AS m_rest
    FROM sums s JOIN whole w USING (component_id) JOIN rests r USING (group_id) WINDOW here AS (PARTITION BY s.component_id, r.domain_id)
)
, by_domain AS (
    SELECT component_id, groups, domain_variance(a_rest / n_rest - a / t.n, groups) AS a_v, domain_variance(d_rest / n_rest - d / t.n, groups) AS d_v
        , domain_variance(m_rest / n_rest - m / t.n, groups) AS m_v
        , domain_variance(m_rest / all_rest - m / nullif(t.all_m, 0), groups) AS share_v
    FROM left_out CROSS JOIN totals t GROUP BY component_id, domain_id, groups
)
, errors AS (
    SELECT component_id, jackknife_se(a_v) AS activation_se, t975(jackknife_df(a_v, groups)) * activation_se AS activation_half
        , jackknife_se(d_v) AS dla_se, t975(jackknife_df(d_v, groups)) * dla_se AS dla_half
        , jackknife_se(m_v) AS abs_dla_se, t975(jackknife_df(m_v, groups)) * abs_dla_se AS abs_dla_half
        , jackknife_se(share_v) AS share_abs_dla_se, t975(jackknife_df(share_v, groups)) * share_abs_dla_se AS share_abs_dla_half
    FROM by_domain GROUP BY component_id
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
    , w.a / t.n AS activation, e.activation_se, activation - e.activation_half AS activation_lo, activation + e.activation_half AS activation_hi
    , s.activation_sd
    , w.d / t.n AS dla, e.dla_se, dla - e.dla_half AS dla_lo, dla + e.dla_half AS dla_hi
    , w.m / t.n AS abs_dla, e.abs_dla_se, abs_dla - e.abs_dla_half AS abs_dla_lo, abs_dla + e.abs_dla_half AS abs_dla_hi
    , w.m / nullif(t.all_m, 0) AS share_abs_dla, e.share_abs_dla_se
    , CASE WHEN e.share_abs_dla_half IS NOT NULL THEN greatest(0, share_abs_dla - e.share_abs_dla_half) END AS share_abs_dla_lo
    , CASE WHEN e.share_abs_dla_half IS NOT NULL THEN least(1, share_abs_dla + e.share_abs_dla_half) END AS share_abs_dla_hi
    , k.class AS top_class, k.m_class / nullif(w.m, 0) AS top_class_share, z.n_class / t.n AS top_class_base
    , s.activation_min, s.activation_max
FROM whole w
JOIN components c USING (component_id)
JOIN top_class k USING (component_id)
JOIN (SELECT value AS class, sum(n) AS n_class FROM group_counts WHERE axis = 'class' GROUP BY value) z ON z.class = k.class
JOIN spread s USING (component_id)
LEFT JOIN errors e USING (component_id)
CROSS JOIN totals t
WHERE getvariable('kind') IN ('', c.kind)
ORDER BY abs_dla DESC, c.component_id
LIMIT CASE WHEN getvariable('top') > 0 THEN getvariable('top') END;
