-- Title:      Exact split by a class of tokens
-- Question:   what does the component do on tokens of each class, counted at every position?
-- Grain:      one row per property (the library's and the user's classes)
-- Key:        property
-- Parameters: component (required), property (default '')
-- Reads:      token_splits, properties, behaviour_rows
-- Reference:  sums per token id over all ordinary positions; a class is a set of tokens. Intervals: delete-a-group jackknife
--             over documents on the kept rows, on the logit scale
-- Caveat:     shares and means are exact, for classes defined after the run too. Sums per token are not kept per group of documents:
--             share_se is that of the same share over the kept rows, so it holds what other documents would have changed and the
--             sampling of the rows, too: the interval around the exact share is rather too wide. next_share_abs_dla: share at positions
--             before such a token, from the kept rows alone, an estimate with its interval (by_next_class has the exact sums of the
--             fixed classes). Rows only for heads and --components unless the run was recorded with --token-sums all. Properties overlap.
SET VARIABLE component = coalesce(getvariable('component')::VARCHAR, error('set the component first: SET VARIABLE component = ''L0H0'';'));
SET VARIABLE property = coalesce(getvariable('property')::VARCHAR, '');
WITH sides AS (
    SELECT property
        , coalesce(sum(n) FILTER (inside), 0) AS n, coalesce(sum(n) FILTER (NOT inside), 0) AS n_rest
        , coalesce(sum(sum_activation) FILTER (inside), 0) AS a, coalesce(sum(sum_activation) FILTER (NOT inside), 0) AS a_rest
        , coalesce(sum(sum_dla) FILTER (inside), 0) AS d, coalesce(sum(sum_dla) FILTER (NOT inside), 0) AS d_rest
        , coalesce(sum(sum_abs_dla) FILTER (inside), 0) AS m, coalesce(sum(sum_abs_dla) FILTER (NOT inside), 0) AS m_rest
    FROM token_splits WHERE component = getvariable('component') AND getvariable('property') IN ('', property)
    GROUP BY property
)
, by_document AS (
    SELECT family, behaviour, group_id, doc_id, sum(weight * abs(dla)::DOUBLE) AS m
        , coalesce(sum(weight * abs(dla)::DOUBLE) FILTER (holds), 0) AS h
    FROM behaviour_rows
    WHERE component = getvariable('component') AND family IN ('token', 'next') AND holds IS NOT NULL
        AND (getvariable('property') = '' OR behaviour IN ('on_' || getvariable('property'), 'before_' || getvariable('property')))
    GROUP BY family, behaviour, group_id, doc_id
)
, by_group AS (
    SELECT family, behaviour, group_id, sum(m) AS m_g, sum(h) AS h_g, sum(m ** 2) AS m2_g FROM by_document GROUP BY family, behaviour, group_id
)
, ratios AS (
    SELECT behaviour AS key, group_id, h_g AS above, m_g AS below FROM by_group
)
, errors AS (
    SELECT regexp_replace(behaviour, '^(on|before)_', '') AS property, family, e.ratio AS share, w.documents, e.se, e.t
    FROM (SELECT behaviour, family, sum(m_g) ** 2 / sum(m2_g) AS documents, sum(m_g) AS m FROM by_group GROUP BY behaviour, family) w
    JOIN jackknife_ratios('ratios') e ON e.key = w.behaviour
    WHERE w.m > 0
)
, exact AS (
    SELECT *, m / nullif(m + m_rest, 0) AS share FROM sides
)
SELECT x.property, p."user" AS of_user, n::BIGINT AS n, n / (n + n_rest) AS share_n, x.share AS share_abs_dla, t.se AS share_abs_dla_se
    , CASE WHEN t.se IS NOT NULL THEN share_lo(least(x.share, 1), t.se, t.t, t.documents) END AS share_abs_dla_lo
    , CASE WHEN t.se IS NOT NULL THEN share_hi(least(x.share, 1), t.se, t.t, t.documents) END AS share_abs_dla_hi
    , x.share / nullif(n / (n + n_rest), 0) AS lift
    , a / nullif(n, 0) AS activation, a_rest / nullif(n_rest, 0) AS activation_rest
    , d / nullif(n, 0) AS dla, d_rest / nullif(n_rest, 0) AS dla_rest, m / nullif(n, 0) AS abs_dla, m_rest / nullif(n_rest, 0) AS abs_dla_rest
    , b.share AS next_share_abs_dla
    , CASE WHEN b.se IS NOT NULL THEN share_lo(b.share, b.se, b.t, b.documents) END AS next_share_abs_dla_lo
    , CASE WHEN b.se IS NOT NULL THEN share_hi(b.share, b.se, b.t, b.documents) END AS next_share_abs_dla_hi
FROM exact x
JOIN properties p USING (property)
LEFT JOIN errors t ON t.property = x.property AND t.family = 'token'
LEFT JOIN errors b ON b.property = x.property AND b.family = 'next'
ORDER BY round(share_abs_dla, 9) DESC, x.property;
