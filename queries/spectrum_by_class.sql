-- Title:      Activation spectrum of a component by token class
-- Question:   at each activation, which class of token is it, and how much does the component
--             matter there?
-- Grain:      one row per class and spectrum bin that holds a position
-- Key:        class, bin
-- Parameters: component (required)
-- Reads:      spectrum, presence_counts, components, jackknife_groups
-- Reference:  Wilson 1927 with the effective sample size of clustered data (Korn and Graubard 1998)
-- Caveat:     class_share is P(class | bin), within_class is P(bin | class): a class can fill the
--             top bins and still be mostly silent. The interval of class_share is Wilson's with n
--             of the bin divided by the class's design effect: the jackknife variance of its share
--             of all positions over the binomial one, at least 1. It takes positions of a bin to be
--             as alike within documents as positions of the corpus are. expected_value is the bin's
--             middle times n/N: over all rows it sums to the mean activation, to within half a bin;
--             an overflow bin counts with its finite edge.
SET VARIABLE component = required(getvariable('component'), 'component', 'L0H0');
WITH counted AS (
    -- positions where the component is present
    SELECT value, group_id, n FROM presence_counts
    WHERE axis = 'class' AND presence = (
        SELECT presence FROM components WHERE component = getvariable('component')
    )
)
, sizes AS (
    SELECT group_id, sum(n) AS group_n FROM counted GROUP BY group_id
)
, classes_present AS (
    SELECT DISTINCT value AS class FROM counted
)
, counts AS (
    SELECT classes_present.class AS key, sizes.group_id, coalesce(counted.n, 0) AS above
        , sizes.group_n AS below
    FROM classes_present CROSS JOIN sizes
    LEFT JOIN counted
        ON counted.value = classes_present.class AND counted.group_id = sizes.group_id
)
, effects AS (
    -- design effect of each class: how many times the binomial variance its share really has
    SELECT key AS class
        , CASE WHEN se IS NOT NULL
            THEN greatest(1, se ** 2 / nullif(ratio * (1 - ratio) / below, 0)) END AS effect
    FROM jackknife_ratios('counts')
)
, cells AS (
    -- an overflow bin has an infinite edge: its finite edge stands for its middle
    SELECT spectrum.class, spectrum.bin, spectrum.lo, spectrum.hi, spectrum.n, spectrum.sum_dla
        , spectrum.sum_abs_dla
        , sum(spectrum.n) OVER (PARTITION BY spectrum.bin) AS n_bin
        , sum(spectrum.n) OVER (PARTITION BY spectrum.class) AS n_class
        , sum(spectrum.n) OVER () AS n_all, sum(spectrum.sum_abs_dla) OVER () AS importance
        , CASE WHEN isinf(spectrum.lo) THEN spectrum.hi WHEN isinf(spectrum.hi) THEN spectrum.lo
            ELSE (spectrum.lo + spectrum.hi) / 2 END AS middle
    FROM spectrum WHERE spectrum.component = getvariable('component')
)
, shares AS (
    SELECT cells.*, cells.n / cells.n_bin AS share, cells.n_bin / effects.effect AS effective_n
    FROM cells LEFT JOIN effects USING (class)
)
SELECT class, bin, lo, hi, n, share AS class_share
    , greatest(0, wilson(share, effective_n, -1.959964)) AS class_share_lo
    , least(1, wilson(share, effective_n, 1.959964)) AS class_share_hi
    , n / n_class AS within_class, middle * n / n_all AS expected_value, sum_dla, sum_abs_dla
    , sum_abs_dla / nullif(importance, 0) AS importance_share
FROM shares
ORDER BY bin, class;
