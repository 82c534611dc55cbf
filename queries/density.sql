-- Title:      Activation density of a component
-- Question:   how is the component's activation distributed over all ordinary positions?
-- Grain:      one row per density bin that holds a position
-- Key:        bin
-- Parameters: component (required)
-- Reads:      density
-- Reference:  log-linear bins, 16 an octave: a bin's middle is within 1/32 of every value in it
-- Caveat:     bins grow with the value, so equal p is not equal density: divide by hi - lo for that. Values smaller
--             than 2^-16 in size share one bin; of 2^16 and more, one bin a side, whose outer edge is infinite.
SET VARIABLE component = coalesce(getvariable('component')::VARCHAR, error('set the component first: SET VARIABLE component = ''L0H0'';'));
SELECT bin, lo, hi, n, n / sum(n) OVER () AS p, sum(n) OVER (ORDER BY bin) / sum(n) OVER () AS cumulative
FROM density WHERE component = getvariable('component')
ORDER BY bin;
