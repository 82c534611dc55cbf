-- Title:      Agreement of independent evidence about a neuron
-- Question:   do the tokens that a neuron's weights boost come next where it is most active, more than by chance?
-- Grain:      one row per neuron
-- Key:        component
-- Parameters: component (default ''), quantile (default 0.95), top (default 50)
-- Reads:      logit_effects, tokens, classes, quantiles, components, component_facts, position_facts, importance, jackknife_groups
-- Reference:  Cohen 1960, A coefficient of agreement for nominal scales; delete-a-group jackknife over documents
-- Caveat:     two raters at each kept position: activation says yes where the activation reaches the quantile, weights say yes
--             where the next token's class is the one most common among the ten tokens that the write direction boosts
--             (boosted_class). kappa is 0 where they agree as often as by chance (expected), 1 where they never differ; it cannot
--             be 1 where they say yes at different rates. active_class: the class of next token whose share rises most where the
--             neuron is active; same: it is the boosted class. A neuron that boosts tokens by being inactive has a
--             negative kappa. Later layers are not in the weights. A neuron whose quantile
--             ties (table quantiles) has no row; active_rate is what is really reached. component overrides top, the most important neurons.
SET VARIABLE component = coalesce(getvariable('component')::VARCHAR, '');
SET VARIABLE quantile = coalesce(getvariable('quantile')::DOUBLE, 0.95);
SET VARIABLE top = coalesce(getvariable('top')::BIGINT, 50);
SET VARIABLE chosen = (
    SELECT list(component) FROM (
        SELECT component, row_number() OVER (ORDER BY sum_abs_dla DESC, component_id) AS place FROM importance
        WHERE kind = 'neuron' AND getvariable('component') IN ('', component)
    ) WHERE getvariable('component') <> '' OR getvariable('top') = 0 OR place <= getvariable('top')
);
WITH boosted AS (
    SELECT component, first(class ORDER BY n DESC, class) AS boosted_class, max(n) AS boosted_n, sum(n) AS boosted_of FROM (
        SELECT c.component, k.class, count(*) AS n
        FROM logit_effects e
        JOIN components c USING (component_id)
        JOIN tokens t ON t.token_id = e.token_id
        JOIN classes k ON k.class_id = t.class_id
        WHERE e.side = 'boosted' AND list_contains(getvariable('chosen'), c.component)
        GROUP BY c.component, k.class
    ) GROUP BY component
)
, levels AS (
    SELECT c.component, q.level FROM quantiles q JOIN components c USING (component_id)
    WHERE abs(q.quantile - getvariable('quantile')) < 1e-9 AND q.level IS NOT NULL
)
, rows AS MATERIALIZED (
    SELECT f.component, f.group_id, f.weight, p.next_class, reaches(f.activation, l.level) AS active
    FROM component_facts f
    JOIN levels l ON l.component = f.component
    JOIN position_facts p USING (position_id)
    WHERE list_contains(getvariable('chosen'), f.component)
)
, rises AS (
    SELECT component, first(next_class ORDER BY round(rise, 9) DESC, next_class) AS active_class FROM (
        SELECT component, next_class
            , coalesce(sum(weight) FILTER (active), 0) / nullif(sum(sum(weight) FILTER (active)) OVER one, 0)
                - sum(weight) / sum(sum(weight)) OVER one AS rise
        FROM rows GROUP BY component, next_class WINDOW one AS (PARTITION BY component)
    ) GROUP BY component
)
, by_group AS (
    SELECT r.component, r.group_id, count(*) AS n_g, sum(r.weight) AS w_g
        , sum(CASE WHEN active THEN r.weight ELSE 0 END) AS a_g, sum(CASE WHEN next_class = boosted_class THEN r.weight ELSE 0 END) AS b_g
        , sum(CASE WHEN active = (next_class = boosted_class) THEN r.weight ELSE 0 END) AS same_g
    FROM rows r JOIN boosted b USING (component) GROUP BY r.component, r.group_id
)
, cells AS (
    -- every neuron in every group, whether it has a row there or not
    SELECT k.component, g.domain_id, g.groups, g.part, coalesce(b.n_g, 0) AS n_g, coalesce(b.w_g, 0) AS w_g, coalesce(b.a_g, 0) AS a_g
        , coalesce(b.b_g, 0) AS b_g, coalesce(b.same_g, 0) AS same_g
    FROM (SELECT DISTINCT component FROM by_group) k CROSS JOIN jackknife_groups g
    LEFT JOIN by_group b ON b.component = k.component AND b.group_id = g.group_id
)
, left_out AS (
    -- all rows, and all but one group's, each as one line of sums
    SELECT component, 0 AS g, NULL AS domain_id, NULL AS groups, sum(n_g) AS n, sum(w_g) AS w, sum(a_g) AS a, sum(b_g) AS b, sum(same_g) AS same
    FROM by_group GROUP BY component
    UNION ALL
    SELECT component, 1, domain_id, groups, n_g, nullif(without(sum(w_g) OVER one, sum(w_g) OVER here, w_g, part), 0)
        , without(sum(a_g) OVER one, sum(a_g) OVER here, a_g, part), without(sum(b_g) OVER one, sum(b_g) OVER here, b_g, part)
        , without(sum(same_g) OVER one, sum(same_g) OVER here, same_g, part)
    FROM cells WINDOW one AS (PARTITION BY component), here AS (PARTITION BY component, domain_id)
)
, kappas AS (
    SELECT component, g, domain_id, groups, n, w, a, b, same / w AS observed, a / w * b / w + (1 - a / w) * (1 - b / w) AS expected
        , (observed - expected) / nullif(1 - expected, 0) AS kappa
    FROM left_out WHERE w > 0 OR g = 1
)
, by_domain AS (
    SELECT e.component, o.groups, domain_variance(o.kappa - e.kappa, o.groups) AS v
    FROM kappas e JOIN kappas o ON o.component = e.component AND o.g = 1
    WHERE e.g = 0 GROUP BY e.component, o.domain_id, o.groups
)
, errors AS (
    SELECT component, jackknife_se(v) AS se, t975(jackknife_df(v, groups)) AS t FROM by_domain GROUP BY component
)
SELECT k.component, k.n::BIGINT AS n, b.boosted_class, b.boosted_n / b.boosted_of AS boosted_share, r.active_class
    , r.active_class = b.boosted_class AS same, k.a / k.w AS active_rate, k.b / k.w AS boosted_rate, k.observed, k.expected, k.kappa
    , e.se AS kappa_se, k.kappa - e.t * e.se AS kappa_lo, k.kappa + e.t * e.se AS kappa_hi
FROM kappas k
JOIN boosted b USING (component)
JOIN rises r USING (component)
JOIN errors e USING (component)
WHERE k.g = 0
ORDER BY round(k.kappa, 9) DESC NULLS LAST, k.component;
