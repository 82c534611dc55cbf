-- Title:      Attribution by kind of component
-- Question:   how much of the mean centred logit of the next token do heads, neurons and closing terms write?
-- Grain:      one row per component kind
-- Key:        kind
-- Parameters: none
-- Reads:      cell_sums, group_counts, components, classes
-- Reference:  delete-a-group jackknife over documents: Wolter, Introduction to Variance Estimation, chapter 4
-- Caveat:     dla sums over the components of a kind, so they cancel; over all kinds it sums to the mean centred logit.
--             abs_dla sums each component's mean |DLA| and does not cancel.
WITH sizes AS (
    SELECT group_id, sum(n) AS n_g FROM group_counts WHERE axis = 'class' GROUP BY group_id
)
, sums AS (
    SELECT c.kind, s.group_id, sum(s.sum_dla) AS d_g, sum(s.sum_abs_dla) AS m_g
    FROM cell_sums s
    JOIN components c USING (component_id)
    JOIN classes k ON k.class_id = s.value_id AND NOT k.special
    WHERE s.axis = 'class'
    GROUP BY c.kind, s.group_id
)
, signed AS (
    SELECT kind AS key, group_id, d_g AS above, n_g AS below FROM sums JOIN sizes USING (group_id)
)
, absolute AS (
    SELECT kind AS key, group_id, m_g AS above, n_g AS below FROM sums JOIN sizes USING (group_id)
)
SELECT s.key AS kind, (SELECT count(*) FROM components c WHERE c.kind = s.key) AS n_components, s.below::BIGINT AS n
    , s.ratio AS dla, s.se AS dla_se, s.ratio - s.t * s.se AS dla_lo, s.ratio + s.t * s.se AS dla_hi
    , a.ratio AS abs_dla, a.se AS abs_dla_se, a.ratio - a.t * a.se AS abs_dla_lo, a.ratio + a.t * a.se AS abs_dla_hi
FROM jackknife_ratios('signed') s JOIN jackknife_ratios('absolute') a USING (key)
ORDER BY abs_dla DESC, kind;
