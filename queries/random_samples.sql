-- Title:      Random samples of a component
-- Question:   what does it do on text that was not picked for it?
-- Grain:      one row per position
-- Key:        position_id
-- Parameters: component (required), n (default 20)
-- Reads:      activations, contexts
-- Reference:  simple random sample of ordinary positions, the same positions for every component
-- Caveat:     n is cut to the stored uniform sample (--dense-positions). Rare behaviour will not be
--             in it.
SET VARIABLE component = required(getvariable('component'), 'component', 'L0H0');
SET VARIABLE n = coalesce(getvariable('n')::BIGINT, 20);
-- a list, because a filter on a list goes below the view and a join does not: contexts are spelled
-- for these alone
SET VARIABLE drawn = (
    SELECT list(position_id) FROM (
        SELECT position_id FROM activations WHERE component = getvariable('component')
        ORDER BY md5(position_id::VARCHAR), position_id LIMIT getvariable('n')
    )
);
SELECT position_id, domain, source, context_before, context_token, context_after, token, next_token
    , activation, dla
    , loss, "rank", entropy
FROM contexts JOIN activations USING (position_id)
WHERE component = getvariable('component') AND list_contains(getvariable('drawn'), position_id)
ORDER BY md5(position_id::VARCHAR), position_id;
