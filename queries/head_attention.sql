-- Title:      Attention of a head
-- Question:   where does the head attend, on text that was not picked for it, and where it matters?
-- Grain:      one row per measure
-- Key:        measure
-- Parameters: component (required)
-- Reads:      head_attention, position_rows, documents, replicate_groups
-- Reference:  delete-a-group jackknife over documents: Wolter, Introduction to Variance Estimation, chapter 4
-- Caveat:     means over the uniform sample of positions. Measures overlap (the token before may be the first one too),
--             so they do not sum to 1. importance_weighted_mean weighs each position by the head's |DLA| there; a head
--             that works through later layers has its weight in the wrong place. No rows for a neuron.
SET VARIABLE component = coalesce(getvariable('component')::VARCHAR, error('set the component first: SET VARIABLE component = ''L0H0'';'));
WITH wide AS (
    SELECT h.*, d.group_id FROM head_attention h
    JOIN position_rows p USING (position_id) JOIN documents d USING (doc_id)
    WHERE h.component = getvariable('component')
)
, long AS (
    SELECT m.place, m.measure, m.unit, group_id, abs(dla)::DOUBLE AS weight
        , CASE m.measure WHEN 'previous' THEN previous WHEN 'first' THEN first WHEN 'self' THEN self
            WHEN 'induction' THEN induction WHEN 'duplicate' THEN duplicate WHEN 'two_back' THEN two_back
            WHEN 'prefix_induction' THEN prefix_induction WHEN 'newline' THEN newline WHEN 'delimiter' THEN delimiter
            WHEN 'top_weight' THEN top_weight WHEN 'entropy' THEN entropy ELSE dla_to_attended END::DOUBLE AS x
    FROM wide CROSS JOIN (VALUES
        (1, 'previous', 'attention'), (2, 'first', 'attention'), (3, 'self', 'attention'), (4, 'induction', 'attention')
        , (5, 'duplicate', 'attention')
        , (6, 'two_back', 'attention'), (7, 'prefix_induction', 'attention')
        , (8, 'newline', 'attention')
        , (9, 'delimiter', 'attention'), (10, 'top_weight', 'attention'), (11, 'entropy', 'nats'), (12, 'dla_to_attended', 'logits')
    ) m(place, measure, unit)
)
, by_group AS (
    SELECT place, measure, unit, group_id, count(*) AS n_g, sum(x) AS x_g, sum(weight) AS w_g, sum(weight * x) AS wx_g
    FROM long GROUP BY place, measure, unit, group_id
)
, whole AS (
    SELECT *, sum(n_g) OVER one AS n, sum(x_g) OVER one AS x, sum(w_g) OVER one AS w, sum(wx_g) OVER one AS wx
        , (SELECT count(*) FROM replicate_groups) AS g
    FROM by_group WINDOW one AS (PARTITION BY measure)
)
SELECT measure, unit, x / n AS mean
    , CASE WHEN g > 1 AND min(n - n_g) > 0
        THEN sqrt((g - 1) / g * sum(((x - x_g) / nullif(n - n_g, 0) - x / n) ** 2)) END AS se
    , wx / nullif(w, 0) AS importance_weighted_mean
    , CASE WHEN g > 1 AND min(w - w_g) > 0
        THEN sqrt((g - 1) / g * sum(((wx - wx_g) / nullif(w - w_g, 0) - wx / nullif(w, 0)) ** 2)) END AS importance_weighted_se
    , n::BIGINT AS n
FROM whole
GROUP BY place, measure, unit, n, x, w, wx, g
ORDER BY place;
