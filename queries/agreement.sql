-- Title:      Agreement of independent evidence about a neuron
-- Question:   do the tokens that a neuron's weights boost come next where it is most active, more
--             than by chance?
-- Grain:      one row per neuron
-- Key:        component
-- Parameters: component (default ''), quantile (default 0.95), top (default 50)
-- Reads:      logit_effects, tokens, classes, quantiles, components, component_facts,
--             position_facts, importance, jackknife_groups
-- Reference:  Cohen 1960, A coefficient of agreement for nominal scales; delete-a-group jackknife
--             over documents
-- Caveat:     two raters at each kept position: activation says yes where the activation reaches
--             the quantile, weights say yes where the next token's class is the one most common
--             among the ten tokens that the write direction boosts (boosted_class). kappa is 0
--             where they agree as often as by chance (expected), 1 where they never differ; it
--             cannot be 1 where they say yes at different rates. active_class: the class of next
--             token whose share rises most where the neuron is active; same: it is the boosted
--             class. A neuron that boosts tokens by being inactive has a negative kappa. Later
--             layers are not in the weights. A neuron whose quantile ties (table quantiles) has no
--             row; active_rate is what is really reached. component overrides top, the most
--             important neurons.
SET VARIABLE component = coalesce(getvariable('component')::VARCHAR, '');
SET VARIABLE quantile = coalesce(getvariable('quantile')::DOUBLE, 0.95);
SET VARIABLE top = coalesce(getvariable('top')::BIGINT, 50);
SET VARIABLE chosen =
    chosen_components('neuron', getvariable('component'), getvariable('top'), 'direct');
WITH boosted AS (
    -- the class that is most common among the tokens that the weights boost
    SELECT component, first(class ORDER BY n DESC, class) AS boosted_class, max(n) AS boosted_n
        , sum(n) AS boosted_of
    FROM (
        SELECT components.component, classes.class, count(*) AS n
        FROM logit_effects
        JOIN components USING (component_id)
        JOIN tokens ON tokens.token_id = logit_effects.token_id
        JOIN classes ON classes.class_id = tokens.class_id
        WHERE logit_effects.side = 'boosted'
            AND list_contains(getvariable('chosen'), components.component)
        GROUP BY components.component, classes.class
    ) GROUP BY component
)
, levels AS (
    SELECT components.component, quantiles.level FROM quantiles JOIN components USING (component_id)
    WHERE abs(quantiles.quantile - getvariable('quantile')) < 1e-9 AND quantiles.level IS NOT NULL
)
, rows AS MATERIALIZED (
    SELECT component_facts.component, component_facts.group_id, component_facts.weight
        , position_facts.next_class, reaches(component_facts.activation, levels.level) AS active
    FROM component_facts
    JOIN levels ON levels.component = component_facts.component
    JOIN position_facts USING (position_id)
    WHERE list_contains(getvariable('chosen'), component_facts.component)
)
, rises AS (
    -- the class of next token whose share rises most from all rows to the active ones
    SELECT component, first(next_class ORDER BY round(rise, 9) DESC, next_class) AS active_class
    FROM (
        SELECT component, next_class
            , sum_where(weight, active) / nullif(sum(sum(weight) FILTER (active)) OVER in_neuron, 0)
                - sum(weight) / sum(sum(weight)) OVER in_neuron AS rise
        FROM rows GROUP BY component, next_class WINDOW in_neuron AS (PARTITION BY component)
    ) GROUP BY component
)
, by_group AS (
    SELECT rows.component, rows.group_id, count(*) AS group_n, sum(rows.weight) AS group_weights
        , sum(CASE WHEN active THEN rows.weight ELSE 0 END) AS group_active
        , sum(CASE WHEN next_class = boosted_class THEN rows.weight ELSE 0 END) AS group_boosted
        , sum(CASE WHEN active = (next_class = boosted_class) THEN rows.weight
            ELSE 0 END) AS group_same
    FROM rows JOIN boosted USING (component) GROUP BY rows.component, rows.group_id
)
, cells AS (
    -- every neuron in every group, whether it has a row there or not
    SELECT neurons.component, jackknife_groups.domain_id, jackknife_groups.groups
        , jackknife_groups.part, coalesce(by_group.group_n, 0) AS group_n
        , coalesce(by_group.group_weights, 0) AS group_weights
        , coalesce(by_group.group_active, 0) AS group_active
        , coalesce(by_group.group_boosted, 0) AS group_boosted
        , coalesce(by_group.group_same, 0) AS group_same
    FROM (SELECT DISTINCT component FROM by_group) AS neurons CROSS JOIN jackknife_groups
    LEFT JOIN by_group
        ON by_group.component = neurons.component AND by_group.group_id = jackknife_groups.group_id
)
, left_out AS (
    -- all rows, and all but one group's, each as one line of sums
    SELECT component, 0 AS is_rest, NULL AS domain_id, NULL AS groups, sum(group_n) AS n
        , sum(group_weights) AS weights, sum(group_active) AS active_weights
        , sum(group_boosted) AS boosted_weights, sum(group_same) AS same
    FROM by_group GROUP BY component
    UNION ALL
    SELECT component, 1, domain_id, groups, group_n
        , nullif(without(sum(group_weights) OVER in_neuron, sum(group_weights) OVER in_domain
            , group_weights, part), 0)
        , without(sum(group_active) OVER in_neuron, sum(group_active) OVER in_domain, group_active
            , part)
        , without(sum(group_boosted) OVER in_neuron, sum(group_boosted) OVER in_domain
            , group_boosted, part)
        , without(sum(group_same) OVER in_neuron, sum(group_same) OVER in_domain, group_same, part)
    FROM cells
    WINDOW in_neuron AS (PARTITION BY component), in_domain AS (PARTITION BY component, domain_id)
)
, kappas AS (
    -- observed and expected agreement of two yes-or-no raters (Cohen 1960)
    SELECT component, is_rest, domain_id, groups, n, weights, active_weights, boosted_weights
        , same / weights AS observed
        , active_weights / weights * boosted_weights / weights
            + (1 - active_weights / weights) * (1 - boosted_weights / weights) AS expected
        , (observed - expected) / nullif(1 - expected, 0) AS kappa
    FROM left_out WHERE weights > 0 OR is_rest = 1
)
, by_domain AS (
    SELECT estimate.component, rest.groups
        , domain_variance(rest.kappa - estimate.kappa, rest.groups) AS variance
    FROM kappas AS estimate
    JOIN kappas AS rest ON rest.component = estimate.component AND rest.is_rest = 1
    WHERE estimate.is_rest = 0 GROUP BY estimate.component, rest.domain_id, rest.groups
)
, errors AS (
    SELECT component, jackknife_se(variance) AS se, t975(jackknife_df(variance, groups)) AS t
    FROM by_domain
    GROUP BY component
)
SELECT kappas.component, kappas.n::BIGINT AS n, boosted.boosted_class
    , boosted.boosted_n / boosted.boosted_of AS boosted_share, rises.active_class
    , rises.active_class = boosted.boosted_class AS same
    , kappas.active_weights / kappas.weights AS active_rate
    , kappas.boosted_weights / kappas.weights AS boosted_rate, kappas.observed, kappas.expected
    , kappas.kappa
    , errors.se AS kappa_se, kappas.kappa - errors.t * errors.se AS kappa_lo
    , kappas.kappa + errors.t * errors.se AS kappa_hi
FROM kappas
JOIN boosted USING (component)
JOIN rises USING (component)
JOIN errors USING (component)
WHERE kappas.is_rest = 0
ORDER BY round(kappas.kappa, 9) DESC NULLS LAST, kappas.component;
