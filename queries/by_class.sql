-- Title:      A component by class of the token
-- Question:   on which classes of token is it active, and where does its importance lie?
-- Grain:      one row per token class that holds an ordinary position
-- Key:        value
-- Parameters: component (required)
-- Reads:      breakdown
-- Reference:  delete-a-group jackknife over documents: Wolter, Introduction to Variance Estimation,
--             chapter 4
-- Caveat:     special classes are left out of the means and of the shares. A standard error is NULL
--             where a single replicate group holds every position of the class: nothing is known of
--             other documents.
SET VARIABLE component = required(getvariable('component'), 'component', 'L0H0');
SELECT value, n, activation, activation_se, activation_lo, activation_hi, dla, dla_se, dla_lo
    , dla_hi
    , abs_dla, abs_dla_se, abs_dla_lo, abs_dla_hi
    , share_abs_dla, share_abs_dla_se, share_abs_dla_lo, share_abs_dla_hi, groups
FROM breakdown
WHERE component = getvariable('component') AND axis = 'class'
ORDER BY value_id;
