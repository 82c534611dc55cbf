-- Title:      Precision and recall of a behaviour
-- Question:   where the component is active, does the behaviour hold, and where it holds, is the component active?
-- Grain:      one row per quantile of the component's activation
-- Key:        quantile
-- Parameters: component (required), behaviour (required)
-- Reads:      behaviour_rows, quantiles, components, replicate_groups
-- Reference:  precision P(behaviour | activation reaches the quantile), recall P(activation reaches it | behaviour);
--             delete-a-group jackknife over documents, interval on the logit scale
-- Caveat:     two numbers, never one: a behaviour can hold at every high activation and be a small part of where it
--             holds. base_rate is the precision of a component that does not look. quantile 0 is every position.
SET VARIABLE component = coalesce(getvariable('component')::VARCHAR, error('set the component first: SET VARIABLE component = ''L0H0'';'));
SET VARIABLE behaviour = coalesce(getvariable('behaviour')::VARCHAR, error('set the behaviour first: SET VARIABLE behaviour = ''induction'';'));
WITH levels AS (
    SELECT 0.0::DOUBLE AS quantile, '-infinity'::DOUBLE AS value
    UNION ALL
    SELECT q.quantile, q.value FROM quantiles q JOIN components c USING (component_id)
    WHERE c.component = getvariable('component') AND q.quantile >= 0.5
)
, rows AS (
    SELECT doc_id, group_id, weight, activation, holds FROM behaviour_rows
    WHERE component = getvariable('component') AND behaviour = getvariable('behaviour') AND holds IS NOT NULL
)
, by_document AS (
    SELECT quantile, value, doc_id, group_id, count(*) FILTER (activation >= value) AS n
        , sum(CASE WHEN activation >= value THEN weight ELSE 0 END) AS a
        , sum(CASE WHEN activation >= value AND holds THEN weight ELSE 0 END) AS b, sum(CASE WHEN holds THEN weight ELSE 0 END) AS h
    FROM levels CROSS JOIN rows GROUP BY quantile, value, doc_id, group_id
)
, by_group AS (
    SELECT quantile, value, group_id, sum(n) AS n_g, sum(a) AS a_g, sum(b) AS b_g, sum(h) AS h_g, sum(a ** 2) AS a2_g, sum(h ** 2) AS h2_g
    FROM by_document GROUP BY quantile, value, group_id
)
, whole AS (
    SELECT *, sum(n_g) OVER one AS n, sum(a_g) OVER one AS a, sum(b_g) OVER one AS b, sum(h_g) OVER one AS h
        , sum(a2_g) OVER one AS a2, sum(h2_g) OVER one AS h2
    FROM by_group WINDOW one AS (PARTITION BY quantile)
)
, errors AS (
    SELECT quantile, value, n, a, b, h, a ** 2 / nullif(a2, 0) AS a_documents, h ** 2 / nullif(h2, 0) AS h_documents, g.groups
        , CASE WHEN g.groups > 1 AND min(a - a_g) > 0
            THEN sqrt((g.groups - 1) / g.groups * sum(((b - b_g) / nullif(a - a_g, 0) - b / nullif(a, 0)) ** 2)) END AS precision_se
        , CASE WHEN g.groups > 1 AND min(h - h_g) > 0
            THEN sqrt((g.groups - 1) / g.groups * sum(((b - b_g) / nullif(h - h_g, 0) - b / nullif(h, 0)) ** 2)) END AS recall_se
    FROM whole CROSS JOIN (SELECT count(*) AS groups FROM replicate_groups) g
    GROUP BY quantile, value, n, a, b, h, a2, h2, g.groups
)
SELECT quantile, value AS activation, n::BIGINT AS n, b / nullif(a, 0) AS "precision"
    , CASE WHEN precision_se IS NOT NULL THEN share_lo(b / a, precision_se, t975(groups - 1), a_documents) END AS precision_lo
    , CASE WHEN precision_se IS NOT NULL THEN share_hi(b / a, precision_se, t975(groups - 1), a_documents) END AS precision_hi
    , b / nullif(h, 0) AS recall
    , CASE WHEN recall_se IS NOT NULL THEN share_lo(b / h, recall_se, t975(groups - 1), h_documents) END AS recall_lo
    , CASE WHEN recall_se IS NOT NULL THEN share_hi(b / h, recall_se, t975(groups - 1), h_documents) END AS recall_hi
    , max(b) OVER () / max(a) OVER () AS base_rate
FROM errors ORDER BY quantile;
