-- Title:      Components that do different things in different domains
-- Question:   which components matter more for a behaviour in one domain than elsewhere, beyond
--             chance and beyond what the text explains?
-- Grain:      one row per component with a testable claim
-- Key:        component
-- Parameters: kind (default 'head'), family (default 'auto'), top (default 100), importance
--             (default 'direct')
-- Reads:      behaviour_rows, behaviours, importance, jackknife_groups
-- Reference:  difference of the log importance ratio (macro log_ratio: mean |DLA| where the
--             behaviour holds over mean |DLA| elsewhere) over its own delete-a-group jackknife
--             error, t with Welch's degrees of freedom; Bonferroni over pairs of domains and
--             behaviours, Benjamini and Hochberg 1995 over components
-- Caveat:     coverage differs between domains wherever the text does, so it is not what is tested:
--             the ratio takes out how often the behaviour holds. A head that attends somewhere more
--             often, and matters no more there than elsewhere, is no difference here: where it
--             attends, of head and text together, is tested beside it: attends is the attention
--             behaviour whose share of positions differs most, from rate_a to rate_b, attends_q its
--             q over heads. difference is of coverage above scrambled; times is ratio_a / ratio_b
--             with its 95 % interval. behaviours are those that take part in a mixture, of one
--             family; auto: attention of heads, token and context of neurons, with the user's own;
--             '' takes all. behaviour is the one that differs most (smallest p); behaviours names
--             the one farthest above scrambled in each domain, differs: these names are not all the
--             same, and q is below 0.05. q controls the share of false discoveries among the
--             components shown; it says that a difference is there, not that it is large.
--             Behaviours overlap: of a component that cares for one, the ratios of others that
--             overlap with it change with the text, so read behaviour as a hint. A claim is tested
--             in two domains of two groups of documents each, where 10 effective documents have
--             such a position and 10 one without; tests says how many were, the others are left
--             out. importance total counts by |total effect|, where it was measured.
SET VARIABLE kind = coalesce(getvariable('kind')::VARCHAR, 'head');
SET VARIABLE family = coalesce(getvariable('family')::VARCHAR, 'auto');
SET VARIABLE top = coalesce(getvariable('top')::BIGINT, 100);
SET VARIABLE importance = coalesce(getvariable('importance')::VARCHAR, 'direct');
SET VARIABLE importance = importance_asked(getvariable('importance'));
SET VARIABLE chosen = chosen_components(
    getvariable('kind'), '', getvariable('top'), getvariable('importance'));
WITH by_document AS (
    SELECT component, behaviour, domain, group_id, doc_id
        , sum(weight_of(getvariable('importance'), weight)) AS weights
        , sum_where(weight_of(getvariable('importance'), weight), holds) AS weights_held
        , sum(importance_at(getvariable('importance'), weight, dla, total)) AS importance
        , sum_where(importance_at(getvariable('importance'), weight, dla, total)
            , holds) AS importance_held
    FROM behaviour_rows
    WHERE list_contains(getvariable('chosen'), component) AND priority IS NOT NULL
        AND holds IS NOT NULL
        AND importance_at(getvariable('importance'), weight, dla, total) IS NOT NULL
        AND family_asked(getvariable('family'), kind, family)
    GROUP BY component, behaviour, domain, group_id, doc_id
)
, by_group AS (
    -- sums of squares give effective numbers of documents (Kish)
    SELECT component, behaviour, domain, group_id, sum(weights) AS group_weights
        , sum(weights_held) AS group_weights_held, sum(importance) AS group_importance
        , sum(importance_held) AS group_importance_held
        , sum(importance ** 2) AS group_importance_squared
        , sum(weights_held ** 2) AS group_weights_held_squared
        , sum((weights - weights_held) ** 2) AS group_weights_other_squared
        , sum(weights ** 2) AS group_weights_squared
    FROM by_document GROUP BY component, behaviour, domain, group_id
)
, whole AS (
    -- sums over the domain beside each group's; fewest: effective documents where the behaviour
    -- holds, or where it does not
    SELECT component, behaviour, domain, groups, group_weights, group_weights_held, group_importance
        , group_importance_held, sum(group_weights) OVER in_claim AS weights
        , sum(group_weights_held) OVER in_claim AS weights_held
        , sum(group_importance) OVER in_claim AS importance
        , sum(group_importance_held) OVER in_claim AS importance_held
        , weights ** 2 / nullif(sum(group_weights_squared) OVER in_claim, 0) AS documents
        , least(weights_held ** 2 / nullif(sum(group_weights_held_squared) OVER in_claim, 0)
            , (weights - weights_held) ** 2
                / nullif(sum(group_weights_other_squared) OVER in_claim, 0)) AS fewest
        , 0.5 * weights_held / weights * (1 - weights_held / weights)
            * sum(group_importance_squared) OVER in_claim / nullif(importance, 0) ** 2 AS prior
    FROM by_group
    JOIN jackknife_groups USING (group_id)
    WINDOW in_claim AS (PARTITION BY component, behaviour, domain)
)
, left_out AS (
    -- one domain alone: how its rest is weighted cancels in a ratio
    SELECT component, behaviour, domain, groups, importance_held / importance AS coverage
        , weights_held / weights AS scrambled, fewest
        , weights_held > 0 AND weights_held < weights AND fewest >= 10 AS testable
        , held_part(importance_held, weights_held, weights)
            / nullif(rest_part(importance, importance_held, weights_held, weights), 0) AS ratio
        , log_ratio(held_part(importance_held, weights_held, weights) / importance
            , rest_part(importance, importance_held, weights_held, weights) / importance
            , prior) AS log_ratio
        , log_ratio(held_part(importance_held - group_importance_held
            , weights_held - group_weights_held
            , weights - group_weights) / nullif(importance - group_importance, 0)
            , rest_part(importance - group_importance, importance_held - group_importance_held
                , weights_held - group_weights_held
                , weights - group_weights) / nullif(importance - group_importance, 0)
            , prior) - log_ratio AS change
    FROM whole WHERE importance > 0
)
, ratios AS (
    -- a ratio that is 0 or infinite in all groups has no spread of its own: a factor of e
    SELECT component, behaviour, domain, groups - 1 AS df, coverage, scrambled, ratio, log_ratio
        , testable
        , CASE WHEN coverage <= 1e-12 OR coverage >= 1 - 1e-12 THEN 1 ELSE 0 END AS least_variance
        , domain_variance(change, groups) AS own_variance
        , CASE WHEN groups > 1 AND own_variance IS NOT NULL
            THEN greatest(least_variance, own_variance) END AS variance
    FROM left_out
    GROUP BY component, behaviour, domain, groups, coverage, scrambled, ratio, log_ratio, testable
)
, largest AS (
    -- the behaviour farthest above the scrambled claim in each domain
    SELECT component, list(behaviour ORDER BY domain) AS behaviours
        , list(domain ORDER BY domain) AS domains
        , count(DISTINCT behaviour) > 1 AS unlike
    FROM (
        SELECT *
            , row_number()
                OVER (PARTITION BY component, domain
                    ORDER BY round(coverage - scrambled, 9) DESC, behaviour) AS ordinal
        FROM ratios
    ) WHERE ordinal = 1 GROUP BY component
)
, pairs AS (
    SELECT first_domain.component, first_domain.behaviour, first_domain.domain AS domain_a
        , second_domain.domain AS domain_b, first_domain.coverage AS coverage_a
        , first_domain.scrambled AS scrambled_a
        , second_domain.coverage AS coverage_b, second_domain.scrambled AS scrambled_b
        , first_domain.ratio AS ratio_a, second_domain.ratio AS ratio_b
        , first_domain.log_ratio - second_domain.log_ratio AS log_times
        , sqrt(first_domain.variance + second_domain.variance) AS se
        , welch_df(first_domain.variance, first_domain.df, second_domain.variance
            , second_domain.df) AS welch
        , t_p(abs(log_times) / se, welch) AS p
    FROM ratios AS first_domain
    JOIN ratios AS second_domain
        ON second_domain.component = first_domain.component
            AND second_domain.behaviour = first_domain.behaviour
                AND second_domain.domain > first_domain.domain
    WHERE first_domain.testable AND second_domain.testable
        AND first_domain.variance + second_domain.variance > 0
)
, tested AS (
    -- Bonferroni over the claims of a component; its smallest p stands for it
    SELECT *, count(*) OVER (PARTITION BY component) AS tests, least(1, p * tests) AS p_component
        , row_number()
            OVER (PARTITION BY component
                ORDER BY round(p, 15), round(abs(log_times), 9) DESC, behaviour, domain_a
                    , domain_b) AS ordinal
    FROM pairs
)
, ranked AS (
    -- Benjamini and Hochberg: p times the number of components over the rank
    SELECT *
        , p_component * count(*) OVER () / row_number()
            OVER (ORDER BY p_component, component) AS raw
    FROM tested WHERE ordinal = 1
)
, decided AS (
    SELECT *
        , least(1
            , min(raw)
                OVER (ORDER BY p_component DESC, component DESC ROWS UNBOUNDED PRECEDING)) AS q
    FROM ranked
)
, rates AS (
    -- where a head attends is its own doing as much as the text's; at 0 or 1 in all groups: 1 /
    -- (effective documents + 2), as of a uniform prior
    SELECT component, behaviour, domain, groups - 1 AS df, weights_held / weights AS rate
        , domain_variance((weights_held - group_weights_held)
            / nullif(weights - group_weights, 0) - weights_held / weights, groups) AS own_variance
        , CASE WHEN own_variance IS NOT NULL
            THEN greatest(own_variance, CASE WHEN weights_held <= 0 OR weights_held >= weights
                THEN (1 / (any_value(documents) + 2)) ** 2 ELSE 0 END) END AS variance
    FROM whole
    WHERE behaviour IN (SELECT behaviour FROM behaviours WHERE family IN ('attention', 'effect'))
    GROUP BY component, behaviour, domain, groups, weights_held, weights HAVING groups > 1
)
, moves AS (
    SELECT first_domain.component, first_domain.behaviour, first_domain.domain AS domain_a
        , second_domain.domain AS domain_b, first_domain.rate AS rate_a
        , second_domain.rate AS rate_b
        , t_p(abs(first_domain.rate - second_domain.rate)
            / sqrt(first_domain.variance + second_domain.variance)
                , welch_df(first_domain.variance, first_domain.df, second_domain.variance
                    , second_domain.df)) AS p
        , least(1, p * count(*) OVER (PARTITION BY first_domain.component)) AS p_component
        , row_number()
            OVER (PARTITION BY first_domain.component
                ORDER BY round(p, 15), round(abs(first_domain.rate - second_domain.rate), 9) DESC
                    , first_domain.behaviour, first_domain.domain, second_domain.domain)
            AS ordinal
    FROM rates AS first_domain
    JOIN rates AS second_domain
        ON second_domain.component = first_domain.component
            AND second_domain.behaviour = first_domain.behaviour
                AND second_domain.domain > first_domain.domain
    WHERE first_domain.variance + second_domain.variance > 0
)
, moved AS (
    SELECT *
        , least(1
            , min(raw)
                OVER (ORDER BY p_component DESC, component DESC ROWS UNBOUNDED PRECEDING)) AS q
    FROM (
        SELECT *
            , p_component * count(*) OVER () / row_number()
                OVER (ORDER BY p_component, component) AS raw
        FROM moves
        WHERE ordinal = 1
    )
)
SELECT largest.component, coalesce(largest.unlike AND decided.q < 0.05, false) AS differs
    , largest.domains, largest.behaviours, decided.behaviour, decided.domain_a, decided.domain_b
    , decided.coverage_a, decided.scrambled_a, decided.coverage_b, decided.scrambled_b
    , decided.coverage_a - decided.scrambled_a - decided.coverage_b
        + decided.scrambled_b AS difference
    , decided.ratio_a, decided.ratio_b, exp(decided.log_times) AS times
    , exp(decided.log_times - t975(decided.welch) * decided.se) AS times_lo
    , exp(decided.log_times + t975(decided.welch) * decided.se) AS times_hi
    , coalesce(decided.tests, 0) AS tests, decided.p_component AS p, decided.q
    , moved.behaviour AS attends, moved.domain_a AS attends_domain_a, moved.rate_a
    , moved.domain_b AS attends_domain_b, moved.rate_b, moved.q AS attends_q
FROM largest LEFT JOIN decided USING (component) LEFT JOIN moved USING (component)
WHERE decided.component IS NOT NULL OR moved.component IS NOT NULL
ORDER BY decided.p_component NULLS LAST, moved.p_component, largest.component;
