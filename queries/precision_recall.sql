-- Title:      Precision and recall of a behaviour
-- Question:   where the component is active, does the behaviour hold, and where it holds, is the
--             component active?
-- Grain:      one row per quantile of the component's activation
-- Key:        quantile
-- Parameters: component (required), behaviour (required)
-- Reads:      behaviour_rows, quantiles, components, jackknife_groups
-- Reference:  precision P(behaviour | activation reaches the quantile), recall P(activation reaches
--             it | behaviour); delete-a-group jackknife over documents, interval on the logit scale
-- Caveat:     two numbers, never one: a behaviour can hold at every high activation and be a small
--             part of where it holds. base_rate is the precision of a component that does not look.
--             quantile 0 is every position. reached is the share of positions whose activation
--             reaches the level, counted; quantiles that ties leave no level near to (a neuron that
--             is 0 almost everywhere) have no row.
SET VARIABLE component = required(getvariable('component'), 'component', 'L0H0');
SET VARIABLE behaviour = required(getvariable('behaviour'), 'behaviour', 'induction');
WITH levels AS (
    -- quantile 0 stands for all positions
    SELECT 0.0::DOUBLE AS quantile, '-infinity'::DOUBLE AS level, 1.0::DOUBLE AS reached
    UNION ALL
    SELECT quantiles.quantile, quantiles.level, quantiles.reached
    FROM quantiles
    JOIN components USING (component_id)
    WHERE components.component = getvariable('component') AND quantiles.quantile >= 0.5
        AND quantiles.level IS NOT NULL
)
, rows AS (
    SELECT quantile, doc_id, group_id, weight, holds
        , quantile = 0 OR reaches(activation, level) AS active
    FROM levels CROSS JOIN behaviour_rows
    WHERE component = getvariable('component') AND behaviour = getvariable('behaviour')
        AND holds IS NOT NULL
)
, by_document AS (
    SELECT quantile, doc_id, group_id, count(*) FILTER (active) AS n
        , sum(CASE WHEN active THEN weight ELSE 0 END) AS weights_active
        , sum(CASE WHEN active AND holds THEN weight ELSE 0 END) AS weights_both
        , sum(CASE WHEN holds THEN weight ELSE 0 END) AS weights_held
    FROM rows GROUP BY quantile, doc_id, group_id
)
, precisions AS (
    SELECT quantile AS key, group_id, weights_both AS above, weights_active AS below
    FROM by_document
)
, recalls AS (
    SELECT quantile AS key, group_id, weights_both AS above, weights_held AS below FROM by_document
)
, whole AS (
    SELECT quantile, sum(n) AS n, effective_number(weights_active) AS active_documents
        , effective_number(weights_held) AS held_documents
    FROM by_document GROUP BY quantile
)
SELECT levels.quantile, levels.level AS activation, levels.reached, whole.n::BIGINT AS n
    , precision_ratios.ratio AS "precision"
    , share_lo(precision_ratios.ratio, precision_ratios.se, precision_ratios.t
        , whole.active_documents) AS precision_lo
    , share_hi(precision_ratios.ratio, precision_ratios.se, precision_ratios.t
        , whole.active_documents) AS precision_hi
    , recall_ratios.ratio AS recall
    , share_lo(recall_ratios.ratio, recall_ratios.se, recall_ratios.t
        , whole.held_documents) AS recall_lo
    , share_hi(recall_ratios.ratio, recall_ratios.se, recall_ratios.t
        , whole.held_documents) AS recall_hi
    , max(precision_ratios.above) OVER () / max(precision_ratios.below) OVER () AS base_rate
FROM levels
JOIN whole USING (quantile)
JOIN jackknife_ratios('precisions') AS precision_ratios ON precision_ratios.key = levels.quantile
JOIN jackknife_ratios('recalls') AS recall_ratios ON recall_ratios.key = levels.quantile
ORDER BY levels.quantile;
