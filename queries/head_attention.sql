-- Title:      Attention of a head
-- Question:   where does the head attend, on text that was not picked for it, and where it matters?
-- Grain:      one row per measure
-- Key:        measure
-- Parameters: component (required), importance (default 'direct')
-- Reads:      head_attention, position_rows, documents, importance, jackknife_groups
-- Reference:  delete-a-group jackknife over documents: Wolter, Introduction to Variance Estimation,
--             chapter 4
-- Caveat:     means over the uniform sample of positions. Measures overlap (the token before may be
--             the first one too), so they do not sum to 1. importance_weighted_mean weighs each
--             position by the head's |DLA| there, or by its |total effect| where importance is
--             total (at the positions where it was measured): a head that works through later
--             layers has its weight in the wrong place otherwise. No rows for a neuron. sink is a
--             row of heads that have a learned sink, which is no token, and of no others.
SET VARIABLE component = required(getvariable('component'), 'component', 'L0H0');
SET VARIABLE importance = coalesce(getvariable('importance')::VARCHAR, 'direct');
SET VARIABLE importance = importance_asked(getvariable('importance'));
WITH wide AS (
    SELECT head_attention.*, documents.group_id FROM head_attention
    JOIN position_rows USING (position_id) JOIN documents USING (doc_id)
    WHERE head_attention.component = getvariable('component')
        AND importance_at(getvariable('importance'), 1, head_attention.dla
            , head_attention.total) IS NOT NULL
)
-- A row per position and measure, so that all measures are averaged by the same two sums.
, long AS (
    SELECT measures.ordinal, measures.measure, measures.unit, group_id
        , importance_at(getvariable('importance'), 1, dla, total) AS weight
        , CASE measures.measure
            WHEN 'previous_token' THEN previous_token
            WHEN 'first_token' THEN first_token
            WHEN 'self' THEN self
            WHEN 'induction' THEN induction
            WHEN 'duplicate' THEN duplicate
            WHEN 'two_back' THEN two_back
            WHEN 'prefix_induction' THEN prefix_induction
            WHEN 'newline' THEN newline
            WHEN 'delimiter' THEN delimiter
            WHEN 'top_weight' THEN top_weight
            WHEN 'entropy' THEN entropy
            WHEN 'sink' THEN sink
            ELSE dla_to_attended END::DOUBLE AS value
    FROM wide CROSS JOIN (VALUES
        (1, 'previous_token', 'attention')
        , (2, 'first_token', 'attention')
        , (3, 'self', 'attention')
        , (4, 'induction', 'attention')
        , (5, 'duplicate', 'attention')
        , (6, 'two_back', 'attention')
        , (7, 'prefix_induction', 'attention')
        , (8, 'newline', 'attention')
        , (9, 'delimiter', 'attention')
        , (10, 'top_weight', 'attention')
        , (11, 'entropy', 'nats')
        , (12, 'dla_to_attended', 'logits')
        , (13, 'sink', 'attention')
    ) AS measures(ordinal, measure, unit)
    -- a head without a learned sink has 0 there everywhere
    WHERE measures.measure <> 'sink' OR (SELECT max(sink) FROM wide) > 0
)
, plain AS (
    SELECT measure AS key, group_id, sum(value) AS above, count(*) AS below
    FROM long
    GROUP BY measure, group_id
)
, weighted AS (
    SELECT measure AS key, group_id, sum(weight * value) AS above, sum(weight) AS below
    FROM long
    GROUP BY measure, group_id
)
SELECT measures.measure, measures.unit, plain_means.ratio AS mean, plain_means.se
    , plain_means.ratio - plain_means.t * plain_means.se AS mean_lo
    , plain_means.ratio + plain_means.t * plain_means.se AS mean_hi
    , weighted_means.ratio AS importance_weighted_mean, weighted_means.se AS importance_weighted_se
    , weighted_means.ratio - weighted_means.t * weighted_means.se AS importance_weighted_mean_lo
    , weighted_means.ratio + weighted_means.t * weighted_means.se AS importance_weighted_mean_hi
    , measures.n::BIGINT AS n
FROM (
    SELECT ordinal, measure, unit, count(*) AS n FROM long GROUP BY ordinal, measure, unit
) AS measures
JOIN jackknife_ratios('plain') AS plain_means ON plain_means.key = measures.measure
JOIN jackknife_ratios('weighted') AS weighted_means ON weighted_means.key = measures.measure
ORDER BY ordinal;
