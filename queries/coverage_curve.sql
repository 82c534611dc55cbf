-- Title:      Coverage over the top of importance
-- Question:   on which share of the positions where the component matters most does the behaviour hold?
-- Grain:      one row per top share of positions by importance
-- Key:        top
-- Parameters: component (required), behaviour (required)
-- Reads:      behaviour_rows, importance, jackknife_groups
-- Reference:  importance-weighted coverage on the top completions by effect: McDougall et al. 2023, Copy Suppression;
--             delete-a-group jackknife over documents, interval on the logit scale
-- Caveat:     top 0.05 are the 5 % of positions with the largest |DLA| (weighted rows, heads on the uniform sample, neurons on
--             that and their strata together); importance_share is the part of the sum of |DLA| they carry. The interval
--             takes the cut anew without each group of documents, so that it holds the cut's own sampling. scrambled:
--             the claim permuted among the positions of each
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
    SELECT component, position_id, doc_id, group_id, domain, weight, abs(dla)::DOUBLE AS size, weight * abs(dla)::DOUBLE AS m, holds
        , (sum(weight) OVER (PARTITION BY component ORDER BY abs(dla) DESC, position_id) - weight / 2)
            / sum(weight) OVER (PARTITION BY component) AS depth
    FROM behaviour_rows
    WHERE list_contains(getvariable('pool'), component) AND behaviour = getvariable('behaviour') AND holds IS NOT NULL
)
, tops AS (
    SELECT unnest([0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0])::DOUBLE AS top
)
, own AS (
    SELECT * FROM rows WHERE component = getvariable('component')
)
, by_document AS (
    SELECT top, doc_id, count(*) AS n, count(*) FILTER (holds) AS n_held, sum(m) AS m, coalesce(sum(m) FILTER (holds), 0) AS m_held
    FROM own JOIN tops ON depth <= top * (1 + 1e-9) GROUP BY top, doc_id
)
, whole AS (
    SELECT top, sum(n) AS n, sum(n_held) AS n_held, sum(m) AS m, sum(m_held) / sum(m) AS coverage, sum(m) ** 2 / sum(m ** 2) AS documents
    FROM by_document GROUP BY top HAVING sum(m) > 0
)
, left_out AS (
    -- all rows but one group's, each group in turn, its domain weighted up, with the depth among those that are left
    SELECT without, m, holds
        , (sum(weight) OVER (PARTITION BY without ORDER BY size DESC, position_id) - weight / 2)
            / sum(weight) OVER (PARTITION BY without) AS depth
    FROM (
        SELECT g.group_id AS without, r.size, r.position_id, r.holds, r.size * r.weight * scale AS m, r.weight * scale AS weight
        FROM jackknife_groups g JOIN (SELECT o.*, j.domain_id FROM own o JOIN jackknife_groups j USING (group_id)) r ON r.group_id <> g.group_id
        CROSS JOIN LATERAL (SELECT CASE WHEN r.domain_id = g.domain_id THEN 1 / (1 - g.part) ELSE 1 END AS scale)
    )
)
, replicates AS (
    SELECT without, top, coalesce(sum(m) FILTER (holds), 0) / nullif(sum(m), 0) AS coverage
    FROM left_out JOIN tops ON depth <= top * (1 + 1e-9) GROUP BY without, top
)
, by_domain AS (
    SELECT w.top, g.groups, domain_variance(r.coverage - w.coverage, g.groups) AS v
    FROM whole w CROSS JOIN jackknife_groups g LEFT JOIN replicates r ON r.top = w.top AND r.without = g.group_id
    GROUP BY w.top, g.domain_id, g.groups
)
, errors AS (
    SELECT top, jackknife_se(v) AS se, t975(jackknife_df(v, groups)) AS t FROM by_domain GROUP BY top
)
, rates AS (
    SELECT domain, sum(weight) FILTER (holds) / sum(weight) AS rate FROM own GROUP BY domain
)
, scrambled AS (
    SELECT top, sum(m * coalesce(rate, 0)) / sum(m) AS scrambled
    FROM own JOIN tops ON depth <= top * (1 + 1e-9) JOIN rates USING (domain) GROUP BY top HAVING sum(m) > 0
)
, random AS (
    SELECT top, median(coverage) AS random, max(coverage) AS random_hi FROM (
        SELECT component, top, coalesce(sum(m) FILTER (holds), 0) / nullif(sum(m), 0) AS coverage
        FROM rows JOIN tops ON depth <= top * (1 + 1e-9) WHERE component <> getvariable('component') GROUP BY component, top
    ) GROUP BY top
)
SELECT w.top, w.m / (SELECT sum(m) FROM own) AS importance_share, w.n::BIGINT AS n, w.n_held::BIGINT AS n_held, w.coverage
    , CASE WHEN e.se IS NOT NULL THEN share_lo(w.coverage, e.se, e.t, w.documents) END AS coverage_lo
    , CASE WHEN e.se IS NOT NULL THEN share_hi(w.coverage, e.se, e.t, w.documents) END AS coverage_hi
    , s.scrambled, r.random, r.random_hi
FROM whole w JOIN scrambled s USING (top) LEFT JOIN errors e USING (top) LEFT JOIN random r USING (top)
ORDER BY w.top;
