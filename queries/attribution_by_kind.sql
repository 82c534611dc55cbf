-- Title:      Attribution by kind of component
-- Question:   how much of the mean centred logit of the next token do heads, neurons and closing terms write?
-- Grain:      one row per component kind
-- Key:        kind
-- Parameters: none
-- Reads:      cell_sums, group_counts, components, classes, replicate_groups
-- Reference:  delete-a-group jackknife over documents: Wolter, Introduction to Variance Estimation, chapter 4
-- Caveat:     dla sums over the components of a kind, so they cancel; over all kinds it sums to the mean centred logit.
--             abs_dla sums each component's mean |DLA| and does not cancel.
WITH sizes AS (
    SELECT group_id, sum(n) AS n_g, sum(sum(n)) OVER () AS n, (SELECT count(*) FROM replicate_groups) AS g
    FROM group_counts WHERE axis = 'class' GROUP BY group_id
)
, sums AS (
    SELECT c.kind, s.group_id, sum(s.sum_dla) AS d_g, sum(s.sum_abs_dla) AS m_g
    FROM cell_sums s
    JOIN components c USING (component_id)
    JOIN classes k ON k.class_id = s.value_id AND NOT k.special
    WHERE s.axis = 'class'
    GROUP BY c.kind, s.group_id
)
, whole AS (
    SELECT *, sum(d_g) OVER (PARTITION BY kind) AS d, sum(m_g) OVER (PARTITION BY kind) AS m FROM sums JOIN sizes USING (group_id)
)
SELECT kind, (SELECT count(*) FROM components c WHERE c.kind = w.kind) AS n_components, n::BIGINT AS n
    , d / n AS dla
    , CASE WHEN g > 1 THEN sqrt((g - 1) / g * sum(((d - d_g) / nullif(n - n_g, 0) - d / n) ** 2)) END AS dla_se
    , m / n AS abs_dla
    , CASE WHEN g > 1 THEN sqrt((g - 1) / g * sum(((m - m_g) / nullif(n - n_g, 0) - m / n) ** 2)) END AS abs_dla_se
FROM whole w
GROUP BY kind, n, g, d, m
ORDER BY abs_dla DESC, kind;
