-- Title:      A component by domain
-- Question:   does it do as much in every part of the corpus?
-- Grain:      one row per domain that holds an ordinary position
-- Key:        value
-- Parameters: component (required)
-- Reads:      breakdown
-- Reference:  delete-a-group jackknife over documents: Wolter, Introduction to Variance Estimation,
--             chapter 4
-- Caveat:     standard errors of a domain's means rest on its own replicate groups (column groups),
--             those of shares on all. Shares follow the size of the domains: compare abs_dla for
--             what happens per position.
SET VARIABLE component = required(getvariable('component'), 'component', 'L0H0');
SELECT value, n, activation, activation_se, activation_lo, activation_hi, dla, dla_se, dla_lo
    , dla_hi
    , abs_dla, abs_dla_se, abs_dla_lo, abs_dla_hi
    , share_abs_dla, share_abs_dla_se, share_abs_dla_lo, share_abs_dla_hi, groups
FROM breakdown
WHERE component = getvariable('component') AND axis = 'domain'
ORDER BY value_id;
