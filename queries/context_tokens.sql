-- Title:      Contexts token by token
-- Question:   which tokens stand around a kept position, and what of the component is stored at each of them?
-- Grain:      one row per position
-- Key:        position_id
-- Parameters: component (required), positions (default '')
-- Reads:      components, position_rows, windows, vocabulary, sample_rows, extreme_rows, dense_rows, recorded_rows, head_attention_rows
-- Reference:  windows.token_ids: 24 tokens before, 8 after, inside the window
-- Caveat:     a value is stored where the position is sampled, extreme, dense, or recorded (--components): most tokens of a
--             context have none and are NULL, which is not 0. positions is a list such as 12,57; empty takes the
--             component's samples and extremes. shown counts from 0. probability is that of the token that really came
--             next, at dense positions. Attention is that of the shown position, where it is dense.
SET VARIABLE component = coalesce(getvariable('component')::VARCHAR, error('set the component first: SET VARIABLE component = ''L0H0'';'));
SET VARIABLE positions = coalesce(getvariable('positions')::VARCHAR, '');
WITH one AS MATERIALIZED (
    SELECT component_id FROM components WHERE component = getvariable('component')
)
, stored AS MATERIALIZED (
    SELECT position_id, any_value(activation) AS activation, any_value(dla) AS dla, bool_or(own) AS own
    FROM (
        SELECT position_id, activation, dla, true AS own FROM sample_rows WHERE component_id = (SELECT component_id FROM one)
        UNION ALL SELECT position_id, activation, dla, true FROM extreme_rows WHERE component_id = (SELECT component_id FROM one)
        UNION ALL SELECT position_id, activation, dla, false FROM dense_rows WHERE component_id = (SELECT component_id FROM one)
        UNION ALL SELECT position_id, activation, dla, false FROM recorded_rows WHERE component_id = (SELECT component_id FROM one)
    ) GROUP BY position_id
)
-- both materialised: DuckDB 2.0.0 can stop with an internal error where it joins such lists otherwise
, wanted AS MATERIALIZED (
    SELECT position_id FROM stored WHERE own AND getvariable('positions') = ''
    UNION SELECT unnest(string_split(nullif(getvariable('positions'), ''), ',')::BIGINT[])
)
, places AS MATERIALIZED (
    SELECT p.position_id, p."offset", w.token_ids, unnest(range(greatest(0, p."offset" - 24), least(len(w.token_ids), p."offset" + 9))) AS place
    FROM wanted JOIN position_rows p USING (position_id) JOIN windows w USING (window_id)
)
, cells AS (
    -- a neighbour's position differs from this one's by their distance: both are in one window
    SELECT q.position_id, q.place, q."offset", v.tokens[q.token_ids[q.place + 1] + 1] AS token, s.activation, s.dla, exp(-n.loss) AS probability
    FROM places q
    LEFT JOIN stored s ON s.position_id = q.position_id + q.place - q."offset"
    LEFT JOIN position_rows n ON n.position_id = q.position_id + q.place - q."offset"
    LEFT JOIN vocabulary v ON true
)
, lists AS (
    SELECT position_id, list(token ORDER BY place) AS tokens, any_value("offset") - min(place) AS shown
        , list(activation ORDER BY place) AS activations, list(dla ORDER BY place) AS dlas, list(probability ORDER BY place) AS probabilities
    FROM cells GROUP BY position_id
)
SELECT l.position_id, l.tokens, l.shown::INTEGER AS shown, l.activations, l.dlas, l.probabilities, a.top_offset, a.top_weight
    , a.previous, a."first", a."self", a.induction
FROM lists l
LEFT JOIN head_attention_rows a ON a.position_id = l.position_id AND a.component_id = (SELECT component_id FROM one)
ORDER BY l.position_id;
