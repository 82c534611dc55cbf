-- Title:      Exact split by a class of tokens
-- Question:   what does the component do on tokens of each class, counted at every position?
-- Grain:      one row per property (the library's and the user's classes)
-- Key:        property
-- Parameters: component (required), property (default '')
-- Reads:      token_splits, properties
-- Reference:  sums per token id over all ordinary positions; a class is a set of tokens
-- Caveat:     exact, for classes defined after the run too; no sampling and so no sampled rows, and no interval either: sums per
--             token are not kept per group of documents (query behaviours has on_PROPERTY with its interval). Rows only for
--             heads and --components unless the run was recorded with --token-sums all. Properties overlap.
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
SELECT property, p."user" AS of_user, n::BIGINT AS n, n / (n + n_rest) AS share_n, m / nullif(m + m_rest, 0) AS share_abs_dla
    , (m / nullif(m + m_rest, 0)) / nullif(n / (n + n_rest), 0) AS lift
    , a / nullif(n, 0) AS activation, a_rest / nullif(n_rest, 0) AS activation_rest
    , d / nullif(n, 0) AS dla, d_rest / nullif(n_rest, 0) AS dla_rest, m / nullif(n, 0) AS abs_dla, m_rest / nullif(n_rest, 0) AS abs_dla_rest
FROM sides JOIN properties p USING (property)
ORDER BY round(share_abs_dla, 9) DESC, property;
