-- Title:      Exact split by a class of tokens
-- Question:   what does the component do on tokens of each class, counted at every position?
-- Grain:      one row per property (the library's and the user's classes)
-- Key:        property
-- Parameters: component (required), property (default '')
-- Reads:      token_splits, properties, behaviour_rows, jackknife_groups
-- Reference:  sums per token id over all ordinary positions; a class is a set of tokens. Intervals:
--             delete-a-group jackknife over documents on the kept rows, on the logit scale
-- Caveat:     shares and means are exact, for classes defined after the run too. Sums per token are
--             not kept per group of documents: share_se is that of the same share over the kept
--             rows, so it holds what other documents would have changed and the sampling of the
--             rows, too: the interval around the exact share is rather too wide.
--             next_share_abs_dla: share at positions before such a token, from the kept rows alone,
--             an estimate with its interval (by_next_class has the exact sums of the fixed
--             classes). Rows only for heads and --components unless the run was recorded with
--             --token-sums all. Properties overlap.
SET VARIABLE component = required(getvariable('component'), 'component', 'L0H0');
SET VARIABLE property = coalesce(getvariable('property')::VARCHAR, '');
WITH sides AS (
    -- exact sums over all positions, on tokens of the class and on all others
    SELECT property
        , sum_where(n, inside) AS n, sum_where(n, NOT inside) AS n_outside
        , sum_where(sum_activation, inside) AS activation_inside
        , sum_where(sum_activation, NOT inside) AS activation_outside
        , sum_where(sum_dla, inside) AS dla_inside, sum_where(sum_dla, NOT inside) AS dla_outside
        , sum_where(sum_abs_dla, inside) AS importance_inside
        , sum_where(sum_abs_dla, NOT inside) AS importance_outside
    FROM token_splits
    WHERE component = getvariable('component') AND getvariable('property') IN ('', property)
    GROUP BY property
)
, by_document AS (
    -- kept rows, for the standard errors and for the next token
    SELECT family, behaviour, group_id, doc_id, sum(weighted_importance(weight, dla)) AS importance
        , sum_where(weighted_importance(weight, dla), holds) AS importance_held
    FROM behaviour_rows
    WHERE component = getvariable('component') AND family IN ('token', 'next') AND holds IS NOT NULL
        AND (getvariable('property') = ''
            OR behaviour IN ('on_' || getvariable('property')
                , 'before_' || getvariable('property')))
    GROUP BY family, behaviour, group_id, doc_id
)
, by_group AS (
    SELECT family, behaviour, group_id, sum(importance) AS group_importance
        , sum(importance_held) AS group_importance_held
        , sum(importance ** 2) AS group_importance_squared
    FROM by_document
    GROUP BY family, behaviour, group_id
)
, ratios AS (
    SELECT behaviour AS key, group_id, group_importance_held AS above, group_importance AS below
    FROM by_group
)
, errors AS (
    SELECT regexp_replace(behaviour, '^(on|before)_', '') AS property, family
        , jackknifed.ratio AS share, totals.documents, jackknifed.se, jackknifed.t
    FROM (
        SELECT behaviour, family
            , sum(group_importance) ** 2 / sum(group_importance_squared) AS documents
            , sum(group_importance) AS importance
        FROM by_group
        GROUP BY behaviour, family
    ) AS totals
    JOIN jackknife_ratios('ratios') AS jackknifed ON jackknifed.key = totals.behaviour
    WHERE totals.importance > 0
)
, exact AS (
    SELECT *, importance_inside / nullif(importance_inside + importance_outside, 0) AS share
    FROM sides
)
SELECT exact.property, properties."user" AS of_user, n::BIGINT AS n, n / (n + n_outside) AS share_n
    , exact.share AS share_abs_dla, token_errors.se AS share_abs_dla_se
    , share_lo(least(exact.share, 1), token_errors.se, token_errors.t
        , token_errors.documents) AS share_abs_dla_lo
    , share_hi(least(exact.share, 1), token_errors.se, token_errors.t
        , token_errors.documents) AS share_abs_dla_hi
    , exact.share / nullif(n / (n + n_outside), 0) AS lift
    , activation_inside / nullif(n, 0) AS activation
    , activation_outside / nullif(n_outside, 0) AS activation_rest
    , dla_inside / nullif(n, 0) AS dla, dla_outside / nullif(n_outside, 0) AS dla_rest
    , importance_inside / nullif(n, 0) AS abs_dla
    , importance_outside / nullif(n_outside, 0) AS abs_dla_rest
    , next_errors.share AS next_share_abs_dla
    , share_lo(next_errors.share, next_errors.se, next_errors.t
        , next_errors.documents) AS next_share_abs_dla_lo
    , share_hi(next_errors.share, next_errors.se, next_errors.t
        , next_errors.documents) AS next_share_abs_dla_hi
FROM exact
JOIN properties USING (property)
LEFT JOIN errors AS token_errors
    ON token_errors.property = exact.property AND token_errors.family = 'token'
LEFT JOIN errors AS next_errors
    ON next_errors.property = exact.property AND next_errors.family = 'next'
ORDER BY round(share_abs_dla, 9) DESC, exact.property;
