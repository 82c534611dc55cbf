-- Title:      Precision and recall of a behaviour
-- Question:   where the component is active, does the behaviour hold, and where it holds, is the component active?
-- Grain:      one row per quantile of the component's activation
-- Key:        quantile
-- Parameters: component (required), behaviour (required)
-- Reads:      behaviour_rows, quantiles, components
-- Reference:  precision P(behaviour | activation reaches the quantile), recall P(activation reaches it | behaviour);
--             delete-a-group jackknife over documents, interval on the logit scale
-- Caveat:     two numbers, never one: a behaviour can hold at every high activation and be a small part of where it
--             holds. base_rate is the precision of a component that does not look. quantile 0 is every position. reached is the
--             share of positions whose activation reaches the level, counted; quantiles that ties leave no level near to (a
--             neuron that is 0 almost everywhere) have no row.
SET VARIABLE component = coalesce(getvariable('component')::VARCHAR, error('set the component first: SET VARIABLE component = ''L0H0'';'));
SET VARIABLE behaviour = coalesce(getvariable('behaviour')::VARCHAR, error('set the behaviour first: SET VARIABLE behaviour = ''induction'';'));
WITH levels AS (
    SELECT 0.0::DOUBLE AS quantile, '-infinity'::DOUBLE AS level, 1.0::DOUBLE AS reached
    UNION ALL
    SELECT q.quantile, q.level, q.reached FROM quantiles q JOIN components c USING (component_id)
    WHERE c.component = getvariable('component') AND q.quantile >= 0.5 AND q.level IS NOT NULL
)
, rows AS (
    SELECT quantile, doc_id, group_id, weight, holds, quantile = 0 OR reaches(activation, level) AS active
    FROM levels CROSS JOIN behaviour_rows
    WHERE component = getvariable('component') AND behaviour = getvariable('behaviour') AND holds IS NOT NULL
)
, by_document AS (
    SELECT quantile, doc_id, group_id, count(*) FILTER (active) AS n, sum(CASE WHEN active THEN weight ELSE 0 END) AS a
        , sum(CASE WHEN active AND holds THEN weight ELSE 0 END) AS b, sum(CASE WHEN holds THEN weight ELSE 0 END) AS h
    FROM rows GROUP BY quantile, doc_id, group_id
)
, precisions AS (
    SELECT quantile AS key, group_id, b AS above, a AS below FROM by_document
)
, recalls AS (
    SELECT quantile AS key, group_id, b AS above, h AS below FROM by_document
)
, whole AS (
    SELECT quantile, sum(n) AS n, sum(a) ** 2 / nullif(sum(a ** 2), 0) AS a_documents, sum(h) ** 2 / nullif(sum(h ** 2), 0) AS h_documents
    FROM by_document GROUP BY quantile
)
SELECT l.quantile, l.level AS activation, l.reached, w.n::BIGINT AS n, p.ratio AS "precision"
    , CASE WHEN p.se IS NOT NULL THEN share_lo(p.ratio, p.se, p.t, w.a_documents) END AS precision_lo
    , CASE WHEN p.se IS NOT NULL THEN share_hi(p.ratio, p.se, p.t, w.a_documents) END AS precision_hi
    , r.ratio AS recall
    , CASE WHEN r.se IS NOT NULL THEN share_lo(r.ratio, r.se, r.t, w.h_documents) END AS recall_lo
    , CASE WHEN r.se IS NOT NULL THEN share_hi(r.ratio, r.se, r.t, w.h_documents) END AS recall_hi
    , max(p.above) OVER () / max(p.below) OVER () AS base_rate
FROM levels l
JOIN whole w USING (quantile)
JOIN jackknife_ratios('precisions') p ON p.key = l.quantile
JOIN jackknife_ratios('recalls') r ON r.key = l.quantile
ORDER BY l.quantile;
