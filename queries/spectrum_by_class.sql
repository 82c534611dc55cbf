-- Title:      Activation spectrum of a component by token class
-- Question:   at each activation, which class of token is it, and how much does the component matter there?
-- Grain:      one row per class and spectrum bin that holds a position
-- Key:        class, bin
-- Parameters: component (required)
-- Reads:      spectrum, group_counts
-- Reference:  Wilson 1927 with the effective sample size of clustered data (Korn and Graubard 1998)
-- Caveat:     class_share is P(class | bin), within_class is P(bin | class): a class can fill the top bins and still be
--             mostly silent. The interval of class_share is Wilson's with n of the bin divided by the class's design
--             effect: the jackknife variance of its share of all positions over the binomial one, at least 1. It
--             takes positions of a bin to be as alike within documents as positions of the corpus are.
--             expected_value is the bin's middle times n/N: over all rows it sums to the mean activation, to within
--             half a bin; an overflow bin counts with its finite edge.
SET VARIABLE component = coalesce(getvariable('component')::VARCHAR, error('set the component first: SET VARIABLE component = ''L0H0'';'));
WITH sizes AS (
    SELECT group_id, sum(n) AS n_g FROM group_counts WHERE axis = 'class' GROUP BY group_id
)
, classes_present AS (
    SELECT DISTINCT value AS class FROM group_counts WHERE axis = 'class'
)
, counts AS (
    SELECT k.class AS key, z.group_id, coalesce(s.n, 0) AS above, z.n_g AS below
    FROM classes_present k CROSS JOIN sizes z
    LEFT JOIN group_counts s ON s.axis = 'class' AND s.value = k.class AND s.group_id = z.group_id
)
, effects AS (
    -- design effect of each class: how many times the binomial variance its share really has
    SELECT key AS class, CASE WHEN se IS NOT NULL THEN greatest(1, se ** 2 / nullif(ratio * (1 - ratio) / below, 0)) END AS effect
    FROM jackknife_ratios('counts')
)
, cells AS (
    SELECT s.class, s.bin, s.lo, s.hi, s.n, s.sum_dla, s.sum_abs_dla
        , sum(s.n) OVER (PARTITION BY s.bin) AS n_bin, sum(s.n) OVER (PARTITION BY s.class) AS n_class
        , sum(s.n) OVER () AS n_all, sum(s.sum_abs_dla) OVER () AS importance
        , CASE WHEN isinf(s.lo) THEN s.hi WHEN isinf(s.hi) THEN s.lo ELSE (s.lo + s.hi) / 2 END AS middle
        , 1.959964 AS z
    FROM spectrum s WHERE s.component = getvariable('component')
)
, shares AS (
    SELECT c.*, c.n / c.n_bin AS p, c.n_bin / e.effect AS n_eff
    FROM cells c LEFT JOIN effects e USING (class)
)
SELECT class, bin, lo, hi, n, p AS class_share
    , greatest(0, (p + z ** 2 / (2 * n_eff) - z * sqrt(p * (1 - p) / n_eff + z ** 2 / (4 * n_eff ** 2))) / (1 + z ** 2 / n_eff)) AS class_share_lo
    , least(1, (p + z ** 2 / (2 * n_eff) + z * sqrt(p * (1 - p) / n_eff + z ** 2 / (4 * n_eff ** 2))) / (1 + z ** 2 / n_eff)) AS class_share_hi
    , n / n_class AS within_class, middle * n / n_all AS expected_value, sum_dla, sum_abs_dla
    , sum_abs_dla / nullif(importance, 0) AS importance_share
FROM shares
ORDER BY bin, class;
