-- Title:      Samples of every activation
-- Question:   what does the text look like at any activation, not only around the quantiles?
-- Grain:      one row per sampled position
-- Key:        position_id
-- Parameters: component (required)
-- Reads:      sample_weights, bins, contexts
-- Reference:  stratified random sampling: Cochran 1977, Sampling Techniques, chapter 5
-- Caveat:     a few random positions of each spectrum bin (stratum), so the tails are over-represented: weight is how many
--             positions of the corpus a row stands for. Drawing rows in proportion to it imitates a random draw.
SET VARIABLE component = coalesce(getvariable('component')::VARCHAR, error('set the component first: SET VARIABLE component = ''L0H0'';'));
-- a list, because a filter on a list goes below the view and a join does not: contexts are spelled for these alone
SET VARIABLE drawn = (SELECT list(position_id) FROM sample_weights WHERE component = getvariable('component'));
SELECT s.position_id, s.stratum, b.lo AS stratum_lo, b.hi AS stratum_hi, c.domain, c.source, c.context_before, c.context_token
    , c.context_after, c.token, c.next_token, s.activation, s.dla, s.inclusion_probability, s.weight
FROM sample_weights s
JOIN bins b ON b.resolution = 'spectrum' AND b.bin = s.stratum
JOIN contexts c USING (position_id)
WHERE s.component = getvariable('component') AND list_contains(getvariable('drawn'), c.position_id)
ORDER BY s.stratum, s.activation, s.position_id;
