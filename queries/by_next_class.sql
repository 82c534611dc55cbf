-- Title:      DLA of a component by class of the next token
-- Question:   which classes of next token does it help or hurt?
-- Grain:      one row per class of the next token that holds an ordinary position
-- Key:        value
-- Parameters: component (required)
-- Reads:      breakdown
-- Reference:  delete-a-group jackknife over documents: Wolter, Introduction to Variance Estimation,
--             chapter 4
-- Caveat:     a positive DLA means that it raised the logit of the token that came, not that it
--             raised the whole class: other tokens of the class may have gained as much.
SET VARIABLE component = required(getvariable('component'), 'component', 'L0H0');
SELECT value, n, activation, activation_se, activation_lo, activation_hi, dla, dla_se, dla_lo
    , dla_hi
    , abs_dla, abs_dla_se, abs_dla_lo, abs_dla_hi
    , share_abs_dla, share_abs_dla_se, share_abs_dla_lo, share_abs_dla_hi, groups
FROM breakdown
WHERE component = getvariable('component') AND axis = 'next_class'
ORDER BY value_id;
