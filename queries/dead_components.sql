-- Title:      Dead and rarely active components
-- Question:   which heads and neurons never or hardly ever became active on this corpus, and how
--             sure is that?
-- Grain:      one row per component that never left one spectrum bin, was never active, or was
--             active rarely
-- Key:        component
-- Parameters: below (default 0.0001)
-- Reads:      spectrum_counts, power_sums, bins, components, classes, documents
-- Reference:  rule of three: Hanley and Lippman-Hand 1983; Wilson 1927 where some position was
--             active
-- Caveat:     active means an activation > 0 (counted from 2^-16 up). upper_bound is the 95 % upper
--             bound of the active share, 3/n where it was not seen in n positions, as if positions
--             were independent; upper_bound_documents takes the number of documents for n, as if
--             positions of one document were all alike. The truth lies between. Activations in (0,
--             2^-16) count as active only in activation_max.
SET VARIABLE below = coalesce(getvariable('below')::DOUBLE, 0.0001);
WITH counts AS (
    SELECT spectrum_counts.component_id, sum(spectrum_counts.n) AS n
        , sum_where(spectrum_counts.n, bins.lo > 0) AS n_active
        , count(DISTINCT spectrum_counts.bin) AS n_bins
    FROM spectrum_counts
    JOIN classes ON classes.class_id = spectrum_counts.class_id AND NOT classes.special
    JOIN bins ON bins.resolution = 'spectrum' AND bins.bin = spectrum_counts.bin
    JOIN components USING (component_id)
    WHERE components.unit IS NOT NULL
    GROUP BY spectrum_counts.component_id
)
, ranges AS (
    SELECT power_sums.component_id, min(power_sums.a_min) AS activation_min
        , max(power_sums.a_max) AS activation_max
    FROM power_sums JOIN classes ON classes.class_id = power_sums.class_id AND NOT classes.special
    GROUP BY power_sums.component_id
)
, judged AS (
    SELECT *, (SELECT count(*) FROM documents) AS n_documents, n_active / n AS active_share
        , CASE WHEN n_bins = 1 THEN 'one bin' WHEN activation_max <= 0 THEN 'never active'
            ELSE 'rarely active' END AS reason
    FROM counts JOIN ranges USING (component_id)
    WHERE n_bins = 1 OR activation_max <= 0 OR n_active < getvariable('below') * n
)
SELECT component, kind, layer, reason, n::BIGINT AS n, n_active::BIGINT AS n_active, active_share
    , CASE WHEN n_active = 0 THEN least(1, 3 / n)
        ELSE wilson(active_share, n, 1.645) END AS upper_bound
    , CASE WHEN n_active = 0 THEN least(1, 3 / n_documents)
        ELSE wilson(active_share, n_documents, 1.645) END AS upper_bound_documents
    , activation_min, activation_max
FROM judged JOIN components USING (component_id)
ORDER BY n_active, component_id;
