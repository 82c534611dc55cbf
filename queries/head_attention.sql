-- Title:      Attention of a head
-- Question:   where does the head attend, on text that was not picked for it, and where it matters?
-- Grain:      one row per measure
-- Key:        measure
-- Parameters: component (required)
-- Reads:      head_attention, position_rows, documents
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
, plain AS (
    SELECT measure AS key, group_id, sum(x) AS above, count(*) AS below FROM long GROUP BY measure, group_id
)
, weighted AS (
    SELECT measure AS key, group_id, sum(weight * x) AS above, sum(weight) AS below FROM long GROUP BY measure, group_id
)
SELECT m.measure, m.unit, p.ratio AS mean, p.se, p.ratio - p.t * p.se AS mean_lo, p.ratio + p.t * p.se AS mean_hi
    , w.ratio AS importance_weighted_mean, w.se AS importance_weighted_se
    , w.ratio - w.t * w.se AS importance_weighted_mean_lo, w.ratio + w.t * w.se AS importance_weighted_mean_hi, m.n::BIGINT AS n
FROM (SELECT place, measure, unit, count(*) AS n FROM long GROUP BY place, measure, unit) m
JOIN jackknife_ratios('plain') p ON p.key = m.measure
JOIN jackknife_ratios('weighted') w ON w.key = m.measure
ORDER BY place;
