-- Title:      Two runs: which components do something else
-- Question:   which components matter more for a behaviour in one run than in the other, beyond
--             chance and beyond what the text explains?
-- Grain:      one row per component and behaviour
-- Key:        component, behaviour
-- Parameters: kind (default 'head'), family (default 'auto'), top (default 100), importance
--             (default 'direct')
-- Reads:      behaviour_rows, behaviours, importance, jackknife_groups, other.behaviour_rows,
--             other.jackknife_groups
-- Reference:  difference of the log importance ratio (macro log_ratio: mean |DLA| where the
--             behaviour holds over mean |DLA| elsewhere, domains kept separate) over its own
--             delete-a-group jackknife error, t with Welch's degrees of freedom; Benjamini and
--             Hochberg 1995
-- Caveat:     the second run is attached as other: ATTACH 'b.duckdb' AS other (READ_ONLY) in a
--             shell, `profiler compare a b` here. Runs of other tokenizers or shapes have no
--             component in common: `profiler compare` refuses them, this file cannot. Coverage
--             differs wherever the text does, so it is not what is tested: the ratio takes out how
--             often the behaviour holds. A head that attends somewhere more often, and matters no
--             more there than elsewhere, is no difference by p and q: where it attends, of head and
--             text together, is tested beside it. rate_a and rate_b are the shares of positions at
--             which the behaviour holds, attends_q is Benjamini and Hochberg's q of their
--             difference, for attention and effects of heads alone (what else holds at a position
--             is the text's doing). scrambled: the claim permuted among the positions of each
--             domain. difference is of coverage above scrambled, second run less first; times is
--             ratio_b / ratio_a with its 95 % interval. p and q are NULL, last, where fewer than 10
--             effective documents of a run have such a position, or one without. Documents that are
--             in both runs make the errors depend on each other. largest_a and largest_b name the
--             behaviour farthest above scrambled in each run; differs: they are not the same, and q
--             is below 0.05 for one of the two. Behaviours overlap: of a component that cares for
--             one, the ratios of others that overlap with it change with the text. top is the most
--             important components of the first run, 0 all; family as in behaviours. importance
--             total counts by |total effect|, where both runs measured it.
SET VARIABLE kind = coalesce(getvariable('kind')::VARCHAR, 'head');
SET VARIABLE family = coalesce(getvariable('family')::VARCHAR, 'auto');
SET VARIABLE top = coalesce(getvariable('top')::BIGINT, 100);
SET VARIABLE importance = coalesce(getvariable('importance')::VARCHAR, 'direct');
SET VARIABLE importance = importance_asked(getvariable('importance'));
SET VARIABLE chosen = chosen_components(
    getvariable('kind'), '', getvariable('top'), getvariable('importance'));
WITH rows AS (
    SELECT 'a' AS run, component, behaviour, kind, family, group_id, doc_id
        , weight_of(getvariable('importance'), weight) AS weight
        , importance_at(getvariable('importance'), weight, dla, total) AS importance, holds
    FROM behaviour_rows
    UNION ALL
    SELECT 'b', component, behaviour, kind, family, group_id, doc_id
        , weight_of(getvariable('importance'), weight)
        , importance_at(getvariable('importance'), weight, dla, total), holds
    FROM other.behaviour_rows
)
, by_document AS (
    SELECT run, component, behaviour, group_id, doc_id, sum(weight) AS weights
        , sum_where(weight, holds) AS weights_held, sum(importance) AS importance
        , sum_where(importance, holds) AS importance_held
    FROM rows WHERE list_contains(getvariable('chosen'), component) AND holds IS NOT NULL
        AND importance IS NOT NULL
        AND family_asked(getvariable('family'), kind, family)
    GROUP BY run, component, behaviour, group_id, doc_id
)
, by_group AS (
    SELECT run, component, behaviour, group_id, sum(weights) AS group_weights
        , sum(weights_held) AS group_weights_held, sum(importance) AS group_importance
        , sum(importance_held) AS group_importance_held
        , sum(importance ** 2) AS group_importance_squared
        , sum(weights_held ** 2) AS group_weights_held_squared
        , sum((weights - weights_held) ** 2) AS group_weights_other_squared
        , sum(weights ** 2) AS group_weights_squared
    FROM by_document GROUP BY run, component, behaviour, group_id
)
, cells AS (
    -- every claim in every group of its run, whether it has a row there or not
    SELECT claim.run, claim.component, claim.behaviour, run_groups.domain_id, run_groups.groups
        , run_groups.part, coalesce(group_weights, 0) AS group_weights
        , coalesce(group_weights_held, 0) AS group_weights_held
        , coalesce(group_importance, 0) AS group_importance
        , coalesce(group_importance_held, 0) AS group_importance_held
        , coalesce(group_importance_squared, 0) AS group_importance_squared
        , coalesce(group_weights_held_squared, 0) AS group_weights_held_squared
        , coalesce(group_weights_other_squared, 0) AS group_weights_other_squared
        , coalesce(group_weights_squared, 0) AS group_weights_squared
    FROM (SELECT DISTINCT run, component, behaviour FROM by_group) AS claim
    JOIN (
        SELECT 'a' AS run, *
        FROM jackknife_groups
        UNION ALL SELECT 'b', *
        FROM other.jackknife_groups
    ) AS run_groups USING (run)
    LEFT JOIN by_group
        ON by_group.run = claim.run AND by_group.component = claim.component
            AND by_group.behaviour = claim.behaviour AND by_group.group_id = run_groups.group_id
)
, domains AS (
    -- held_part and rest_part of each domain, and of the domain without the group, weighted up
    SELECT *, sum(group_weights) OVER in_domain AS domain_weights
        , sum(group_weights_held) OVER in_domain AS domain_weights_held
        , sum(group_importance) OVER in_domain AS domain_importance
        , sum(group_importance_held) OVER in_domain AS domain_importance_held
        , coalesce(held_part(domain_importance_held, domain_weights_held, domain_weights)
            , 0) AS domain_held_part
        , coalesce(rest_part(domain_importance, domain_importance_held, domain_weights_held
            , domain_weights), 0) AS domain_rest_part
        , coalesce(held_part(domain_importance_held - group_importance_held
            , domain_weights_held - group_weights_held
            , domain_weights - group_weights), 0) / (1 - part) AS held_part_left
        , coalesce(rest_part(domain_importance - group_importance
            , domain_importance_held - group_importance_held
            , domain_weights_held - group_weights_held
            , domain_weights - group_weights), 0) / (1 - part) AS rest_part_left
    FROM cells WINDOW in_domain AS (PARTITION BY run, component, behaviour, domain_id)
)
, whole AS (
    -- a domain's sums stand in each of its groups: divided by their number before they are added
    SELECT run, component, behaviour, domain_id, groups, domain_held_part, domain_rest_part
        , held_part_left, rest_part_left, sum(group_weights) OVER in_claim AS weights
        , sum(group_weights_held) OVER in_claim AS weights_held
        , sum(group_importance) OVER in_claim AS importance
        , sum(group_importance_held) OVER in_claim AS importance_held
        , without(importance, domain_importance, group_importance, part) AS importance_rest
        , without(importance_held, domain_importance_held, group_importance_held
            , part) AS importance_held_rest
        , without(weights, domain_weights, group_weights, part) AS weights_rest
        , without(weights_held, domain_weights_held, group_weights_held
            , part) AS weights_held_rest
        , weights ** 2 / nullif(sum(group_weights_squared) OVER in_claim, 0) AS weight_documents
        , sum(domain_held_part / groups) OVER in_claim AS held_parts
        , sum(domain_rest_part / groups) OVER in_claim AS rest_parts
        , importance ** 2 / nullif(sum(group_importance_squared) OVER in_claim, 0) AS documents
        , sum(domain_importance * coalesce(domain_weights_held / nullif(domain_weights, 0), 0)
            / groups) OVER in_claim AS scrambled
        , sum(domain_importance
            * coalesce(domain_weights_held / nullif(domain_weights, 0)
                * (1 - domain_weights_held / nullif(domain_weights, 0)), 0) / groups)
                    OVER in_claim AS unlike
        , least(weights_held ** 2 / nullif(sum(group_weights_held_squared) OVER in_claim, 0)
            , (weights - weights_held) ** 2
                / nullif(sum(group_weights_other_squared) OVER in_claim, 0)) AS fewest
    FROM domains WINDOW in_claim AS (PARTITION BY run, component, behaviour)
)
, left_out AS (
    SELECT run, component, behaviour, domain_id, groups, importance_held / importance AS coverage
        , scrambled / importance AS scrambled, held_parts / nullif(rest_parts, 0) AS ratio
        , documents
        , weights_held > 0 AND weights_held < weights AND fewest >= 10 AS testable
        , 0.5 * unlike / importance / documents AS prior
        , weights_held / weights AS rate, weight_documents
        , weights_held_rest / nullif(weights_rest, 0) - rate AS rate_change
        , CASE WHEN importance_rest > 1e-12 * importance
            THEN importance_held_rest / importance_rest - coverage END AS coverage_change
        , log_ratio(held_parts / importance, rest_parts / importance, prior) AS log_ratio
        , CASE WHEN importance_rest > 1e-12 * importance
            THEN log_ratio(greatest(0, held_parts - domain_held_part + held_part_left)
                / importance_rest
                    , greatest(0, rest_parts - domain_rest_part + rest_part_left) / importance_rest
                    , prior) - log_ratio END AS change
    FROM whole WHERE importance > 0
)
, by_domain AS (
    SELECT run, component, behaviour, groups, coverage, scrambled, ratio, documents, testable
        , log_ratio
        , domain_variance(coverage_change, groups) AS coverage_variance
        , domain_variance(change, groups) AS change_variance
        , rate, weight_documents, domain_variance(rate_change, groups) AS rate_variance
    FROM left_out
    GROUP BY run, component, behaviour, domain_id, groups, coverage, scrambled, ratio, documents
        , testable, log_ratio, rate, weight_documents
)
, claims AS (
    -- a ratio that is 0 or infinite in all groups has no spread of its own: a factor of e
    SELECT run, component, behaviour, coverage, scrambled, ratio, log_ratio, testable
        , jackknife_se(coverage_variance) AS se
        , t975(jackknife_df(coverage_variance, groups)) AS t
        , jackknife_df(change_variance, groups) AS df
        , CASE WHEN coverage <= 1e-12 OR coverage >= 1 - 1e-12 THEN 1 ELSE 0 END AS least_variance
        , jackknife_se(change_variance) ** 2 AS own_variance
        , CASE WHEN own_variance IS NOT NULL
            THEN greatest(least_variance, own_variance) END AS variance
        , share_lo(coverage, se, t, documents) AS coverage_lo
        , share_hi(coverage, se, t, documents) AS coverage_hi
        -- a rate of 0 or 1 in all groups: 1 / (effective documents + 2), as of a uniform prior
        , rate, jackknife_df(rate_variance, groups) AS rate_df
        , CASE WHEN rate <= 0 OR rate >= 1 THEN (1 / (weight_documents + 2)) ** 2
            ELSE 0 END AS least_rate_variance
        , jackknife_se(rate_variance) ** 2 AS own_rate_variance
        , CASE WHEN own_rate_variance IS NOT NULL
            THEN greatest(least_rate_variance, own_rate_variance) END AS variance_of_rate
    FROM by_domain
    GROUP BY run, component, behaviour, coverage, scrambled, ratio, documents, testable, log_ratio
        , rate, weight_documents
)
, largest AS (
    SELECT run, component
        , first(behaviour ORDER BY round(coverage - scrambled, 9) DESC, behaviour) AS largest
    FROM claims
    GROUP BY run, component
)
, tested AS (
    SELECT first_run.component, first_run.behaviour, first_run.coverage AS coverage_a
        , first_run.coverage_lo AS coverage_a_lo, first_run.coverage_hi AS coverage_a_hi
        , first_run.scrambled AS scrambled_a, second_run.coverage AS coverage_b
        , second_run.coverage_lo AS coverage_b_lo, second_run.coverage_hi AS coverage_b_hi
        , second_run.scrambled AS scrambled_b
        , second_run.coverage - second_run.scrambled - first_run.coverage
            + first_run.scrambled AS difference
        , first_run.ratio AS ratio_a, second_run.ratio AS ratio_b
        , second_run.log_ratio - first_run.log_ratio AS log_times
        , sqrt(first_run.variance + second_run.variance) AS spread
        , welch_df(first_run.variance, first_run.df, second_run.variance, second_run.df) AS welch
        , CASE WHEN first_run.testable AND second_run.testable AND spread > 0
            THEN least(1, t_p(abs(log_times) / spread, welch)) END AS p
        , first_run.rate AS rate_a, second_run.rate AS rate_b
        , sqrt(first_run.variance_of_rate + second_run.variance_of_rate) AS rate_spread
        , CASE WHEN rate_spread > 0 AND first_run.behaviour IN (
            SELECT behaviour FROM behaviours WHERE family IN ('attention', 'effect')
        ) THEN least(1, t_p(abs(rate_b - rate_a) / rate_spread, welch_df(first_run.variance_of_rate
            , first_run.rate_df, second_run.variance_of_rate, second_run.rate_df))) END AS attends_p
    FROM claims AS first_run
    JOIN claims AS second_run
        ON second_run.component = first_run.component AND second_run.behaviour = first_run.behaviour
            AND second_run.run = 'b'
    WHERE first_run.run = 'a'
)
, ranked AS (
    -- Benjamini and Hochberg: p times the number of tests over the rank
    SELECT *
        , p * count(p) OVER ()
            / row_number() OVER (ORDER BY p NULLS LAST, component, behaviour) AS raw
        , attends_p * count(attends_p) OVER ()
            / row_number() OVER (ORDER BY attends_p NULLS LAST, component, behaviour) AS attends_raw
    FROM tested
)
, decided AS (
    -- a q is the least of the raw values of its rank and all later ones
    SELECT *
        , CASE WHEN p IS NOT NULL THEN least(1, min(raw) OVER from_last) END AS q
        , CASE WHEN attends_p IS NOT NULL
            THEN least(1, min(attends_raw) OVER attends_from_last) END AS attends_q
    FROM ranked
    WINDOW from_last AS (
        ORDER BY p DESC NULLS FIRST, component DESC, behaviour DESC ROWS UNBOUNDED PRECEDING
    ), attends_from_last AS (
        ORDER BY attends_p DESC NULLS FIRST, component DESC, behaviour DESC ROWS UNBOUNDED PRECEDING
    )
)
SELECT decided.component, decided.behaviour, decided.coverage_a, decided.coverage_a_lo
    , decided.coverage_a_hi, decided.scrambled_a
    , decided.coverage_b, decided.coverage_b_lo, decided.coverage_b_hi, decided.scrambled_b
    , decided.difference, decided.ratio_a, decided.ratio_b
    , exp(decided.log_times) AS times
    , exp(decided.log_times - t975(decided.welch) * decided.spread) AS times_lo
    , exp(decided.log_times + t975(decided.welch) * decided.spread) AS times_hi
    , decided.p, decided.q, largest_first.largest AS largest_a, largest_second.largest AS largest_b
    , largest_first.largest <> largest_second.largest
        AND coalesce(bool_or(decided.q < 0.05
            AND decided.behaviour IN (largest_first.largest, largest_second.largest))
                OVER (PARTITION BY decided.component), false) AS differs
    , decided.rate_a, decided.rate_b, decided.attends_p, decided.attends_q
FROM decided
JOIN largest AS largest_first
    ON largest_first.component = decided.component AND largest_first.run = 'a'
JOIN largest AS largest_second
    ON largest_second.component = decided.component AND largest_second.run = 'b'
ORDER BY decided.p NULLS LAST, decided.component, decided.behaviour;
