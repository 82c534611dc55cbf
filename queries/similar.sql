-- Title:      Components like another
-- Question:   which components do what this one does: at the same positions, on the same classes of
--             token, with the same spectrum?
-- Grain:      one row per component of the same kind, without itself
-- Key:        component
-- Parameters: component (required), measure (default 'coactivation'), top (default 20)
-- Reads:      dense_rows, position_rows, documents, components, power_sums, classes,
--             density_counts, bins
-- Reference:  co-activation: Pearson correlation; overlap of two distributions p, q: sum of min(p,
--             q), one less their total variation distance
-- Caveat:     coactivation: correlation of the two activations over the uniform sample of
--             positions, means of each domain taken out first, so that two components of one kind
--             of text are not alike for that. classes: overlap of the two distributions of |DLA|
--             over classes of token; most components share the commonest classes, so read it beside
--             classes_median, the median over all components of the kind. spectrum: overlap of the
--             two distributions of activation, each divided by its root mean square, in steps of a
--             quarter of an octave. measure is what rows are ordered by (the largest size of
--             coactivation; a negative one fires where the other does not). Directions of writes
--             are in the weights, not in a run: profiler find RUN --like L2H1 --by direction.
SET VARIABLE component = required(getvariable('component'), 'component', 'L0H0');
SET VARIABLE measure = coalesce(getvariable('measure')::VARCHAR, 'coactivation');
SET VARIABLE measure = CASE
    WHEN getvariable('measure') IN ('coactivation', 'classes', 'spectrum')
        THEN getvariable('measure')
    ELSE error('measure is coactivation, classes or spectrum') END;
SET VARIABLE top = coalesce(getvariable('top')::BIGINT, 20);
WITH pool AS (
    SELECT others.component_id, others.component
    FROM components AS others
    JOIN components AS own
        ON own.component = getvariable('component') AND own.kind = others.kind
    WHERE others.unit IS NOT NULL
)
, uniform AS (
    -- the sample of positions at which every component is recorded, with their domains
    SELECT dense_rows.component_id, dense_rows.position_id
        , dense_rows.activation::DOUBLE - avg(dense_rows.activation::DOUBLE)
            OVER (PARTITION BY dense_rows.component_id, documents.domain) AS activation
    FROM dense_rows
    JOIN pool USING (component_id)
    JOIN position_rows USING (position_id)
    JOIN documents USING (doc_id)
)
, own_uniform AS (
    SELECT position_id, activation FROM uniform JOIN pool USING (component_id)
    WHERE pool.component = getvariable('component')
)
, together AS (
    -- NULL where a component never changes
    SELECT uniform.component_id, count(*) AS n
        , CASE WHEN stddev_pop(uniform.activation) > 0
            THEN corr(uniform.activation, own_uniform.activation) END AS coactivation
    FROM uniform JOIN own_uniform USING (position_id)
    GROUP BY uniform.component_id
)
, class_shares AS (
    SELECT power_sums.component_id, power_sums.class_id
        , coalesce(sum(power_sums.d_abs) / nullif(sum(sum(power_sums.d_abs))
            OVER (PARTITION BY power_sums.component_id), 0), 0) AS part
    FROM power_sums
    JOIN pool USING (component_id)
    JOIN classes ON classes.class_id = power_sums.class_id AND NOT classes.special
    GROUP BY power_sums.component_id, power_sums.class_id
)
, own_classes AS (
    SELECT class_id, part FROM class_shares JOIN pool USING (component_id)
    WHERE pool.component = getvariable('component')
)
, alike_classes AS (
    SELECT class_shares.component_id, sum(least(class_shares.part, own_classes.part)) AS classes
    FROM class_shares JOIN own_classes USING (class_id)
    GROUP BY class_shares.component_id
)
, middles AS (
    SELECT density_counts.component_id, density_counts.n
        , CASE WHEN isinf(bins.lo) THEN bins.hi WHEN isinf(bins.hi) THEN bins.lo
            ELSE (bins.lo + bins.hi) / 2 END AS middle
    FROM density_counts
    JOIN pool USING (component_id)
    JOIN bins ON bins.resolution = 'density' AND bins.bin = density_counts.bin
)
, scales AS (
    SELECT component_id, sqrt(sum(n * middle ** 2) / sum(n)) AS scale, sum(n) AS all_n
    FROM middles GROUP BY component_id
)
, spectra AS (
    -- quarters of an octave of the size over the root mean square; below 1/64 of it all is 0
    SELECT middles.component_id
        , CASE WHEN abs(middles.middle) * 64 < scales.scale THEN 0
            ELSE sign(middles.middle)
                * (floor(4 * log2(abs(middles.middle) / scales.scale)) + 25) END AS step
        , sum(middles.n) / any_value(scales.all_n) AS part
    FROM middles JOIN scales USING (component_id)
    WHERE scales.scale > 0
    GROUP BY middles.component_id, step
)
, own_spectrum AS (
    SELECT step, part FROM spectra JOIN pool USING (component_id)
    WHERE pool.component = getvariable('component')
)
, alike_spectra AS (
    SELECT spectra.component_id, sum(least(spectra.part, own_spectrum.part)) AS spectrum
    FROM spectra JOIN own_spectrum USING (step)
    GROUP BY spectra.component_id
)
, measured AS (
    SELECT pool.component, together.coactivation
        , coalesce(alike_classes.classes, 0) AS classes
        , coalesce(alike_spectra.spectrum, 0) AS spectrum
        , coalesce(together.n, 0) AS n
    FROM pool
    LEFT JOIN together USING (component_id)
    LEFT JOIN alike_classes USING (component_id)
    LEFT JOIN alike_spectra USING (component_id)
    WHERE pool.component <> getvariable('component')
)
, ranked AS (
    SELECT *, median(abs(coactivation)) OVER () AS coactivation_median
        , median(classes) OVER () AS classes_median, median(spectrum) OVER () AS spectrum_median
        , row_number() OVER (
            ORDER BY CASE getvariable('measure') WHEN 'coactivation' THEN abs(coactivation)
                WHEN 'classes' THEN classes ELSE spectrum END DESC NULLS LAST, component
        ) AS ordinal
    FROM measured
)
SELECT component, coactivation, classes, spectrum, coactivation_median, classes_median
    , spectrum_median, n::BIGINT AS n
FROM ranked WHERE getvariable('top') = 0 OR ordinal <= getvariable('top')
ORDER BY ordinal;
