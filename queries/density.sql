-- Title:      Activation density of a component
-- Question:   how is the component's activation distributed over all ordinary positions?
-- Grain:      one row per density bin that holds a position
-- Key:        bin
-- Parameters: component (required)
-- Reads:      density, power_sums, components, classes
-- Reference:  log-linear bins, 16 an octave: a bin's middle is within 1/32 of every value in it
-- Caveat:     bins grow with the value, so equal p is not equal density: divide by hi - lo for
--             that. Values smaller than 2^-16 in size share one bin; of 2^16 and more, one bin a
--             side, whose outer edge is infinite. lo and hi are edges of the bin and may lie beyond
--             the values seen; middle does not.
SET VARIABLE component = required(getvariable('component'), 'component', 'L0H0');
WITH seen AS (
    SELECT min(power_sums.a_min) AS least_seen, max(power_sums.a_max) AS largest_seen
    FROM power_sums
    JOIN components USING (component_id)
    JOIN classes ON classes.class_id = power_sums.class_id AND NOT classes.special
    WHERE components.component = getvariable('component')
)
SELECT bin, lo, hi, n, n / sum(n) OVER () AS p
    , sum(n) OVER (ORDER BY bin) / sum(n) OVER () AS cumulative
    , greatest(least_seen, least(largest_seen, (lo + hi) / 2)) AS middle
FROM density CROSS JOIN seen WHERE component = getvariable('component')
ORDER BY bin;
