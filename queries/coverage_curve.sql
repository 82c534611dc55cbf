-- Title:      Coverage over the top of importance
-- Question:   on which share of the positions where the component matters most does the behaviour hold?
-- Grain:      one row per top share of positions by importance
-- Key:        top
-- Parameters: component (required), behaviour (required)
-- Reads:      behaviour_rows, importance, replicate_groups
-- Reference:  importance-weighted coverage on the top completions by effect: McDougall et al. 2023, Copy Suppression;
--             delete-a-group jackknife over documents, interval on the logit scale
-- Caveat:     top 0.05 are the 5 % of positions with the largest |DLA| (weighted rows, heads on the uniform sample, neurons on
--             that and their strata together); importance_share is the part of the sum of |DLA| they carry. The cut is taken as
--             given: its own sampling is not in the interval. scrambled: the claim permuted among the positions of each
--             domain (of all positions, not of the top). random: median of the same curve over other components of the same kind and
--             layer (all heads; 16 neurons). Rows at the top are few: read n.
SET VARIABLE component = coalesce(getvariable('component')::VARCHAR, error('set the component first: SET VARIABLE component = ''L0H0'';'));
SET VARIABLE behaviour = coalesce(getvariable('behaviour')::VARCHAR, error('set the behaviour first: SET VARIABLE behaviour = ''induction'';'));
-- the component and the others of its kind and layer; a list, because a filter on a list goes below the view
SET VARIABLE pool = (
    SELECT list(o.component) FROM (
        SELECT *, row_number() OVER (PARTITION BY kind, layer ORDER BY md5(component)) AS place FROM importance
    ) o JOIN importance c ON c.component = getvariable('component') AND c.kind = o.kind AND c.layer = o.layer
    WHERE o.kind = 'head' OR o.place <= 17 OR o.component = c.component
);
WITH rows AS (
    SELECT component, doc_id, group_id, domain, weight, abs(dla)::DOUBLE AS size, weight * abs(dla)::DOUBLE AS m, holds
        , (sum(weight) OVER (PARTITION BY component ORDER BY abs(dla) DESC, position_id) - weight / 2)
            / sum(weight) OVER (PARTITION BY component) AS depth
    FROM behaviour_rows
    WHERE list_contains(getvariable('pool'), component) AND behaviour = getvariable('behaviour') AND holds IS NOT NULL
)
, tops AS (
    SELECT unnest([0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0])::DOUBLE AS top
)
, by_document AS (
    SELECT component, top, doc_id, group_id, count(*) AS n, count(*) FILTER (holds) AS n_held, sum(m) AS m
        , coalesce(sum(m) FILTER (holds), 0) AS m_held
    FROM rows JOIN tops ON depth <= top GROUP BY component, top, doc_id, group_id
)
, by_group AS (
    SELECT component, top, group_id, sum(n) AS n_g, sum(n_held) AS k_g, sum(m) AS m_g, sum(m_held) AS h_g, sum(m ** 2) AS m2_g
    FROM by_document GROUP BY component, top, group_id
)
, whole AS (
    SELECT *, sum(n_g) OVER one AS n, sum(k_g) OVER one AS n_held, sum(m_g) OVER one AS m, sum(h_g) OVER one AS h, sum(m2_g) OVER one AS m2
    FROM by_group WINDOW one AS (PARTITION BY component, top)
)
, estimates AS (
    SELECT component, top, n, n_held, m, h / m AS coverage, m ** 2 / m2 AS documents, g.groups
        , CASE WHEN g.groups > 1 AND min(m - m_g) > 0
            THEN sqrt((g.groups - 1) / g.groups * sum(((h - h_g) / nullif(m - m_g, 0) - h / m) ** 2)) END AS se
    FROM whole CROSS JOIN (SELECT count(*) AS groups FROM replicate_groups) g
    WHERE m > 0
    GROUP BY component, top, n, n_held, m, h, m2, g.groups
)
, rates AS (
    SELECT domain, sum(weight) FILTER (holds) / sum(weight) AS rate FROM rows WHERE component = getvariable('component') GROUP BY domain
)
, scrambled AS (
    SELECT top, sum(m * coalesce(rate, 0)) / sum(m) AS scrambled
    FROM rows JOIN tops ON depth <= top JOIN rates USING (domain)
    WHERE component = getvariable('component') GROUP BY top HAVING sum(m) > 0
)
, random AS (
    SELECT top, median(coverage) AS random, max(coverage) AS random_hi FROM estimates WHERE component <> getvariable('component') GROUP BY top
)
SELECT e.top, e.m / (SELECT sum(m) FROM rows WHERE component = getvariable('component')) AS importance_share
    , e.n::BIGINT AS n, e.n_held::BIGINT AS n_held, e.coverage
    , CASE WHEN e.se IS NOT NULL THEN share_lo(e.coverage, e.se, t975(e.groups - 1), e.documents) END AS coverage_lo
    , CASE WHEN e.se IS NOT NULL THEN share_hi(e.coverage, e.se, t975(e.groups - 1), e.documents) END AS coverage_hi
    , s.scrambled, r.random, r.random_hi
FROM estimates e JOIN scrambled s USING (top) LEFT JOIN random r USING (top)
WHERE e.component = getvariable('component')
ORDER BY e.top;
