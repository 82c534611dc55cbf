-- Title:      A component by position in the window
-- Question:   does it act early or late in the window?
-- Grain:      one row per position bucket that holds an ordinary position
-- Key:        value
-- Parameters: component (required)
-- Reads:      breakdown
-- Reference:  delete-a-group jackknife over documents: Wolter, Introduction to Variance Estimation,
--             chapter 4
-- Caveat:     buckets are offsets in the window, not in the document; only long documents reach the
--             last ones, so a trend over buckets is partly a trend over kinds of document.
SET VARIABLE component = required(getvariable('component'), 'component', 'L0H0');
SELECT value, n, activation, activation_se, activation_lo, activation_hi, dla, dla_se, dla_lo
    , dla_hi
    , abs_dla, abs_dla_se, abs_dla_lo, abs_dla_hi
    , share_abs_dla, share_abs_dla_se, share_abs_dla_lo, share_abs_dla_hi, groups
FROM breakdown
WHERE component = getvariable('component') AND axis = 'position'
ORDER BY value_id;
