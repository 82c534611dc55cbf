-- Title:      Samples of every activation
-- Question:   what does the text look like at any activation, not only around the quantiles?
-- Grain:      one row per sampled position
-- Key:        position_id
-- Parameters: component (required)
-- Reads:      sample_weights, bins, contexts
-- Reference:  stratified random sampling: Cochran 1977, Sampling Techniques, chapter 5
-- Caveat:     a few random positions of each spectrum bin (stratum), so the tails are
--             over-represented: weight is how many positions of the corpus a row stands for.
--             Drawing rows in proportion to it imitates a random draw.
SET VARIABLE component = required(getvariable('component'), 'component', 'L0H0');
-- a list, because a filter on a list goes below the view and a join does not: contexts are spelled
-- for these alone
SET VARIABLE drawn = (
    SELECT list(position_id) FROM sample_weights WHERE component = getvariable('component')
);
SELECT sample_weights.position_id, sample_weights.stratum, bins.lo AS stratum_lo
    , bins.hi AS stratum_hi, contexts.domain, contexts.source, contexts.context_before
    , contexts.context_token
    , contexts.context_after, contexts.token, contexts.next_token, sample_weights.activation
    , sample_weights.dla, sample_weights.inclusion_probability, sample_weights.weight
FROM sample_weights
JOIN bins ON bins.resolution = 'spectrum' AND bins.bin = sample_weights.stratum
JOIN contexts USING (position_id)
WHERE sample_weights.component = getvariable('component')
    AND list_contains(getvariable('drawn'), contexts.position_id)
ORDER BY sample_weights.stratum, sample_weights.activation, sample_weights.position_id;
