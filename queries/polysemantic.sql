-- Title:      Components that do different things in different domains
-- Question:   which components show one behaviour in one domain and another one elsewhere, beyond chance?
-- Grain:      one row per component
-- Key:        component
-- Parameters: kind (default 'head'), family (default 'auto'), top (default 100)
-- Reads:      behaviour_rows, importance
-- Reference:  difference of importance-weighted coverage between two domains over its jackknife standard error, t with the
--             groups of both less two; Bonferroni over pairs of domains and behaviours, Benjamini and Hochberg 1995 over components
-- Caveat:     behaviours are those that take part in a mixture, of one family; auto: attention of heads, token and
--             context of neurons, with the user's own; '' takes all. behaviour is the one that differs most (smallest p);
--             behaviours names the largest of each domain. differs: these names are not all the same. q controls the
--             share of false discoveries among the components shown; it says that a difference is there, not that it is
--             large: read it with both coverages. A pair of domains needs two groups of documents each.
SET VARIABLE kind = coalesce(getvariable('kind')::VARCHAR, 'head');
SET VARIABLE family = coalesce(getvariable('family')::VARCHAR, 'auto');
SET VARIABLE top = coalesce(getvariable('top')::BIGINT, 100);
SET VARIABLE chosen = (
    SELECT list(component) FROM (
        SELECT component, row_number() OVER (ORDER BY sum_abs_dla DESC, component_id) AS place FROM importance WHERE kind = getvariable('kind')
    ) WHERE getvariable('top') = 0 OR place <= getvariable('top')
);
WITH by_document AS (
    SELECT component, behaviour, domain, group_id, doc_id, sum(weight * abs(dla)::DOUBLE) AS m
        , coalesce(sum(weight * abs(dla)::DOUBLE) FILTER (holds), 0) AS h
    FROM behaviour_rows
    WHERE list_contains(getvariable('chosen'), component) AND priority IS NOT NULL AND holds IS NOT NULL
        AND (getvariable('family') IN ('', family) OR getvariable('family') = 'auto'
            AND (family = 'user' OR CASE kind WHEN 'head' THEN family = 'attention' ELSE family IN ('token', 'context') END))
    GROUP BY component, behaviour, domain, group_id, doc_id
)
, by_group AS (
    SELECT component, behaviour, domain, group_id, sum(m) AS m_g, sum(h) AS h_g, sum(m ** 2) AS m2_g
    FROM by_document GROUP BY component, behaviour, domain, group_id
)
, whole AS (
    SELECT *, sum(m_g) OVER one AS m, sum(h_g) OVER one AS h, sum(m2_g) OVER one AS m2, count(*) OVER one AS g FROM by_group
    WINDOW one AS (PARTITION BY component, behaviour, domain)
)
, coverages AS (
    -- a coverage of exactly 0 or 1 has no spread of its own: 1 / (effective documents + 2), as a uniform prior would leave
    SELECT component, behaviour, domain, h / nullif(m, 0) AS coverage, g
        , CASE WHEN g > 1 AND min(m - m_g) > 0 THEN greatest(CASE WHEN h <= 0 OR h >= m THEN 1 / (m ** 2 / m2 + 2) ELSE 0 END
            , sqrt((g - 1) / g * sum(((h - h_g) / nullif(m - m_g, 0) - h / m) ** 2))) END AS se
    FROM whole GROUP BY component, behaviour, domain, m, h, m2, g
)
, largest AS (
    SELECT component, list(behaviour ORDER BY domain) AS behaviours, list(domain ORDER BY domain) AS domains
        , count(DISTINCT behaviour) > 1 AS differs
    FROM (
        SELECT *, row_number() OVER (PARTITION BY component, domain ORDER BY round(coverage, 9) DESC, behaviour) AS place
        FROM coverages WHERE coverage IS NOT NULL
    ) WHERE place = 1 GROUP BY component
)
, pairs AS (
    SELECT a.component, a.behaviour, a.domain AS domain_a, b.domain AS domain_b, a.coverage AS coverage_a, b.coverage AS coverage_b
        , a.coverage - b.coverage AS difference, sqrt(a.se ** 2 + b.se ** 2) AS se
        , t_p(abs(a.coverage - b.coverage) / sqrt(a.se ** 2 + b.se ** 2), a.g + b.g - 2) AS p
    FROM coverages a JOIN coverages b ON b.component = a.component AND b.behaviour = a.behaviour AND b.domain > a.domain
    WHERE a.se ** 2 + b.se ** 2 > 0
)
, tested AS (
    SELECT *, least(1, p * count(*) OVER (PARTITION BY component)) AS p_component
        , row_number() OVER (PARTITION BY component ORDER BY round(p, 15), round(abs(difference), 9) DESC, behaviour, domain_a, domain_b) AS place
    FROM pairs
)
, ranked AS (
    SELECT *, p_component * count(*) OVER () / row_number() OVER (ORDER BY p_component, component) AS raw
    FROM tested WHERE place = 1
)
SELECT r.component, l.differs, l.domains, l.behaviours, r.behaviour, r.domain_a, r.domain_b, r.coverage_a, r.coverage_b, r.difference
    , r.se AS difference_se, r.p_component AS p
    , least(1, min(r.raw) OVER (ORDER BY r.p_component DESC, r.component DESC ROWS UNBOUNDED PRECEDING)) AS q
FROM ranked r JOIN largest l USING (component)
ORDER BY r.p_component, r.component;
