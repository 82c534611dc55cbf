-- Title:      Two runs: which components do something else
-- Question:   which components show a behaviour in one run more than in the other, beyond chance?
-- Grain:      one row per component and behaviour
-- Key:        component, behaviour
-- Parameters: kind (default 'head'), family (default 'auto'), top (default 100)
-- Reads:      behaviour_rows, importance, replicate_groups, other.behaviour_rows, other.replicate_groups
-- Reference:  difference of importance-weighted coverage over the root of the summed squared jackknife standard errors, t with the
--             groups of the smaller run less one (conservative); Benjamini and Hochberg 1995 over all rows
-- Caveat:     the second run is attached as other: ATTACH 'b.duckdb' AS other (READ_ONLY) in a shell, `profiler compare a b` here.
--             Runs of other tokenizers or shapes have no component in common: `profiler compare` refuses them, this file cannot.
--             Documents that are in both runs make the errors depend on each other. largest_a and largest_b name the behaviour of
--             largest coverage in each run, differs says that they are not the same. A coverage of exactly 0 or 1 has the standard error
--             1 / (effective documents + 2). top is the most important components of the first run, 0 all; family as in behaviours.
SET VARIABLE kind = coalesce(getvariable('kind')::VARCHAR, 'head');
SET VARIABLE family = coalesce(getvariable('family')::VARCHAR, 'auto');
SET VARIABLE top = coalesce(getvariable('top')::BIGINT, 100);
SET VARIABLE chosen = (
    SELECT list(component) FROM (
        SELECT component, row_number() OVER (ORDER BY sum_abs_dla DESC, component_id) AS place FROM importance WHERE kind = getvariable('kind')
    ) WHERE getvariable('top') = 0 OR place <= getvariable('top')
);
WITH rows AS (
    SELECT 'a' AS run, component, behaviour, kind, family, group_id, doc_id, weight * abs(dla)::DOUBLE AS m, holds FROM behaviour_rows
    UNION ALL
    SELECT 'b', component, behaviour, kind, family, group_id, doc_id, weight * abs(dla)::DOUBLE, holds FROM other.behaviour_rows
)
, by_document AS (
    SELECT run, component, behaviour, group_id, doc_id, sum(m) AS m, coalesce(sum(m) FILTER (holds), 0) AS h
    FROM rows WHERE list_contains(getvariable('chosen'), component) AND holds IS NOT NULL
        AND (getvariable('family') IN ('', family) OR getvariable('family') = 'auto'
            AND (family = 'user' OR CASE kind WHEN 'head' THEN family = 'attention' ELSE family IN ('token', 'context') END))
    GROUP BY run, component, behaviour, group_id, doc_id
)
, by_group AS (
    SELECT run, component, behaviour, group_id, sum(m) AS m_g, sum(h) AS h_g, sum(m ** 2) AS m2_g FROM by_document
    GROUP BY run, component, behaviour, group_id
)
, sizes AS (
    SELECT 'a' AS run, count(*) AS groups FROM replicate_groups UNION ALL SELECT 'b', count(*) FROM other.replicate_groups
)
, whole AS (
    SELECT *, sum(m_g) OVER one AS m, sum(h_g) OVER one AS h, sum(m2_g) OVER one AS m2 FROM by_group
    WINDOW one AS (PARTITION BY run, component, behaviour)
)
, coverages AS (
    SELECT run, component, behaviour, h / m AS coverage, m ** 2 / m2 AS documents, s.groups
        , CASE WHEN s.groups > 1 AND min(m - m_g) > 0
            THEN sqrt((s.groups - 1) / s.groups * sum(((h - h_g) / nullif(m - m_g, 0) - h / m) ** 2)) END AS se
        , CASE WHEN h <= 1e-12 * m OR h >= (1 - 1e-12) * m THEN 1 / (m ** 2 / m2 + 2) ELSE 0 END AS least_se
    FROM whole JOIN sizes s USING (run) WHERE m > 0
    GROUP BY run, component, behaviour, m, h, m2, s.groups
)
, largest AS (
    SELECT run, component, first(behaviour ORDER BY round(coverage, 9) DESC, behaviour) AS largest FROM coverages GROUP BY run, component
)
, tested AS (
    SELECT a.component, a.behaviour, a.coverage AS coverage_a, b.coverage AS coverage_b, b.coverage - a.coverage AS difference
        , share_lo(a.coverage, a.se, t975(a.groups - 1), a.documents) AS coverage_a_lo
        , share_hi(a.coverage, a.se, t975(a.groups - 1), a.documents) AS coverage_a_hi
        , share_lo(b.coverage, b.se, t975(b.groups - 1), b.documents) AS coverage_b_lo
        , share_hi(b.coverage, b.se, t975(b.groups - 1), b.documents) AS coverage_b_hi
        , sqrt(greatest(a.se, a.least_se) ** 2 + greatest(b.se, b.least_se) ** 2) AS difference_se
        , least(a.groups, b.groups) - 1 AS df
    FROM coverages a JOIN coverages b ON b.component = a.component AND b.behaviour = a.behaviour AND b.run = 'b'
    WHERE a.run = 'a' AND a.se IS NOT NULL AND b.se IS NOT NULL AND greatest(a.se, a.least_se, b.se, b.least_se) > 0
)
, ranked AS (
    SELECT *, least(1, t_p(abs(difference) / difference_se, df)) AS p
        , p * count(*) OVER () / row_number() OVER (ORDER BY p, component, behaviour) AS raw
    FROM tested
)
SELECT r.component, r.behaviour, r.coverage_a, r.coverage_a_lo, r.coverage_a_hi, r.coverage_b, r.coverage_b_lo, r.coverage_b_hi
    , r.difference, r.difference_se, r.p
    , least(1, min(r.raw) OVER (ORDER BY r.p DESC, r.component DESC, r.behaviour DESC ROWS UNBOUNDED PRECEDING)) AS q
    , la.largest AS largest_a, lb.largest AS largest_b, la.largest <> lb.largest AS differs
FROM ranked r
JOIN largest la ON la.component = r.component AND la.run = 'a'
JOIN largest lb ON lb.component = r.component AND lb.run = 'b'
ORDER BY r.p, r.component, r.behaviour;
