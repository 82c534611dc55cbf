-- Title:      Contexts token by token
-- Question:   which tokens stand around a kept position, and what of the component is stored at
--             each of them?
-- Grain:      one row per position
-- Key:        position_id
-- Parameters: component (required), positions (default '')
-- Reads:      components, position_rows, windows, vocabulary, sample_rows, extreme_rows,
--             dense_rows, recorded_rows, head_attention_rows
-- Reference:  windows.token_ids: 24 tokens before, 8 after, inside the window
-- Caveat:     a value is stored where the position is sampled, extreme, dense, or recorded
--             (--components): most tokens of a context have none and are NULL, which is not 0.
--             positions is a list such as 12,57; empty takes the component's samples and extremes.
--             shown counts from 0. probability is that of the token that really came next, at dense
--             positions. Attention is that of the shown position, where it is dense.
SET VARIABLE component = required(getvariable('component'), 'component', 'L0H0');
SET VARIABLE positions = coalesce(getvariable('positions')::VARCHAR, '');
WITH chosen AS MATERIALIZED (
    SELECT component_id FROM components WHERE component = getvariable('component')
)
, stored AS MATERIALIZED (
    SELECT position_id, any_value(activation) AS activation, any_value(dla) AS dla
        , bool_or(own) AS own
    FROM (
        SELECT position_id, activation, dla, true AS own
        FROM sample_rows
        WHERE component_id = (SELECT component_id FROM chosen)
        UNION ALL SELECT position_id, activation, dla, true
        FROM extreme_rows
        WHERE component_id = (SELECT component_id FROM chosen)
        UNION ALL SELECT position_id, activation, dla, false
        FROM dense_rows
        WHERE component_id = (SELECT component_id FROM chosen)
        UNION ALL SELECT position_id, activation, dla, false
        FROM recorded_rows
        WHERE component_id = (SELECT component_id FROM chosen)
    ) GROUP BY position_id
)
-- both materialised: DuckDB 2.0.0 can stop with an internal error where it joins such lists
-- otherwise
, wanted AS MATERIALIZED (
    SELECT position_id FROM stored WHERE own AND getvariable('positions') = ''
    UNION SELECT unnest(string_split(nullif(getvariable('positions'), ''), ',')::BIGINT[])
)
, neighbours AS MATERIALIZED (
    SELECT position_rows.position_id, position_rows."offset", windows.token_ids
        , unnest(range(greatest(0, position_rows."offset" - 24)
            , least(len(windows.token_ids), position_rows."offset" + 9))) AS neighbour_offset
    FROM wanted JOIN position_rows USING (position_id) JOIN windows USING (window_id)
)
, cells AS (
    -- a neighbour's position differs from this one's by their distance: both are in one window
    SELECT neighbours.position_id, neighbours.neighbour_offset, neighbours."offset"
        , vocabulary.tokens[neighbours.token_ids[neighbours.neighbour_offset + 1] + 1] AS token
        , stored.activation, stored.dla, exp(-position_rows.loss) AS probability
    FROM neighbours AS neighbours
    LEFT JOIN stored
        ON stored.position_id
            = neighbours.position_id + neighbours.neighbour_offset - neighbours."offset"
    LEFT JOIN position_rows
        ON position_rows.position_id
            = neighbours.position_id + neighbours.neighbour_offset - neighbours."offset"
    LEFT JOIN vocabulary ON true
)
, lists AS (
    SELECT position_id, list(token ORDER BY neighbour_offset) AS tokens
        , any_value("offset") - min(neighbour_offset) AS shown
        , list(activation ORDER BY neighbour_offset) AS activations
        , list(dla ORDER BY neighbour_offset) AS dlas
        , list(probability ORDER BY neighbour_offset) AS probabilities
    FROM cells GROUP BY position_id
)
SELECT lists.position_id, lists.tokens, lists.shown::INTEGER AS shown, lists.activations, lists.dlas
    , lists.probabilities, head_attention_rows.top_offset, head_attention_rows.top_weight
    , head_attention_rows.previous_token, head_attention_rows.first_token
    , head_attention_rows."self"
    , head_attention_rows.induction
FROM lists
LEFT JOIN head_attention_rows
    ON head_attention_rows.position_id = lists.position_id AND head_attention_rows.component_id = (
    SELECT component_id FROM chosen
)
ORDER BY lists.position_id;
