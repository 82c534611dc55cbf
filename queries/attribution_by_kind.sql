-- Title:      Attribution by kind of component
-- Question:   how much of the mean centred logit of the next token do heads, neurons, embeddings
--             and biases write?
-- Grain:      one row per component kind
-- Key:        kind
-- Parameters: none
-- Reads:      cell_sums, group_counts, components, classes, jackknife_groups
-- Reference:  delete-a-group jackknife over documents: Wolter, Introduction to Variance Estimation,
--             chapter 4
-- Caveat:     dla sums over the components of a kind, so they cancel; over all kinds it sums to the
--             mean centred logit. abs_dla sums each component's mean |DLA| and does not cancel.
--             Units of dictionaries are no part of the sum and left out (query dictionaries).
WITH sizes AS (
    SELECT group_id, sum(n) AS group_n FROM group_counts WHERE axis = 'class' GROUP BY group_id
)
, sums AS (
    SELECT components.kind, cell_sums.group_id, sum(cell_sums.sum_dla) AS group_dla
        , sum(cell_sums.sum_abs_dla) AS group_abs_dla
    FROM cell_sums
    JOIN components USING (component_id)
    JOIN classes ON classes.class_id = cell_sums.value_id AND NOT classes.special
    WHERE cell_sums.axis = 'class' AND NOT described(components.kind)
    GROUP BY components.kind, cell_sums.group_id
)
-- Both are a mean per position: sums over a group above its number of positions.
, signed AS (
    SELECT kind AS key, group_id, group_dla AS above, group_n AS below
    FROM sums
    JOIN sizes USING (group_id)
)
, absolute AS (
    SELECT kind AS key, group_id, group_abs_dla AS above, group_n AS below
    FROM sums
    JOIN sizes USING (group_id)
)
SELECT signed_ratios.key AS kind, (
    SELECT count(*) FROM components WHERE components.kind = signed_ratios.key
) AS n_components, signed_ratios.below::BIGINT AS n
    , signed_ratios.ratio AS dla, signed_ratios.se AS dla_se
    , signed_ratios.ratio - signed_ratios.t * signed_ratios.se AS dla_lo
    , signed_ratios.ratio + signed_ratios.t * signed_ratios.se AS dla_hi
    , absolute_ratios.ratio AS abs_dla, absolute_ratios.se AS abs_dla_se
    , absolute_ratios.ratio - absolute_ratios.t * absolute_ratios.se AS abs_dla_lo
    , absolute_ratios.ratio + absolute_ratios.t * absolute_ratios.se AS abs_dla_hi
FROM jackknife_ratios('signed') AS signed_ratios
JOIN jackknife_ratios('absolute') AS absolute_ratios USING (key)
ORDER BY abs_dla DESC, kind;
