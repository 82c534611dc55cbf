-- Title:      Coverage over the top of importance
-- Question:   on which share of the positions where the component matters most does the behaviour
--             hold?
-- Grain:      one row per top share of positions by importance
-- Key:        top
-- Parameters: component (required), behaviour (required), importance (default 'direct')
-- Reads:      behaviour_rows, importance, jackknife_groups
-- Reference:  importance-weighted coverage on the top completions by effect: McDougall et al. 2023,
--             Copy Suppression; delete-a-group jackknife over documents, interval on the logit
--             scale
-- Caveat:     top 0.05 are the 5 % of positions with the largest |DLA| (weighted rows, heads on the
--             uniform sample, neurons on that and their strata together); importance_share is the
--             part of the sum of |DLA| they carry. The interval takes the cut anew without each
--             group of documents, so that it holds the cut's own sampling. scrambled: the claim
--             permuted among the positions of each domain (of all positions, not of the top).
--             random: median of the same curve over other components of the same kind and layer
--             (all heads; 16 neurons). importance total takes |total effect| in the place of |DLA|,
--             at the positions of the uniform sample where it was measured. Rows at the top are
--             few: read n.
SET VARIABLE component = required(getvariable('component'), 'component', 'L0H0');
SET VARIABLE behaviour = required(getvariable('behaviour'), 'behaviour', 'induction');
SET VARIABLE importance = coalesce(getvariable('importance')::VARCHAR, 'direct');
SET VARIABLE importance = importance_asked(getvariable('importance'));
-- the component and the others of its kind and layer; a list, because a filter on a list goes below
-- the view
SET VARIABLE pool = (
    SELECT list(ranked.component) FROM (
        SELECT *, row_number() OVER (PARTITION BY kind, layer ORDER BY md5(component)) AS ordinal
        FROM importance
    ) AS ranked JOIN importance
        ON importance.component = getvariable('component') AND importance.kind = ranked.kind
            AND importance.layer = ranked.layer
    WHERE ranked.kind = 'head' OR ranked.ordinal <= 17 OR ranked.component = importance.component
);
WITH rows AS (
    -- depth: share of positions from the most important down to the middle of the row's own
    SELECT component, position_id, doc_id, group_id, domain, weight, size
        , weight * size AS importance, holds
        , (sum(weight)
            OVER (PARTITION BY component ORDER BY size DESC, position_id) - weight / 2)
            / sum(weight) OVER (PARTITION BY component) AS depth
    FROM (
        SELECT component, position_id, doc_id, group_id, domain, holds
            , weight_of(getvariable('importance'), behaviour_rows.weight) AS weight
            , importance_at(getvariable('importance'), 1, dla, total) AS size
        FROM behaviour_rows
        WHERE list_contains(getvariable('pool'), component)
            AND behaviour = getvariable('behaviour') AND holds IS NOT NULL
    ) WHERE size IS NOT NULL
)
, tops AS (
    SELECT unnest([0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0])::DOUBLE AS top
)
, own AS (
    SELECT * FROM rows WHERE component = getvariable('component')
)
, by_document AS (
    SELECT top, doc_id, count(*) AS n, count(*) FILTER (holds) AS n_held
        , sum(importance) AS importance, sum_where(importance, holds) AS importance_held
    FROM own JOIN tops ON depth <= top * (1 + 1e-9) GROUP BY top, doc_id
)
, whole AS (
    SELECT top, sum(n) AS n, sum(n_held) AS n_held, sum(importance) AS importance
        , sum(importance_held) / sum(importance) AS coverage
        , effective_number(importance) AS documents
    FROM by_document GROUP BY top HAVING sum(importance) > 0
)
, left_out AS (
    -- all rows but one group's, each group in turn, its domain weighted up, with the depth among
    -- those that are left
    SELECT removed_group, importance, holds
        , (sum(weight)
            OVER (PARTITION BY removed_group ORDER BY size DESC, position_id) - weight / 2)
            / sum(weight) OVER (PARTITION BY removed_group) AS depth
    FROM (
        SELECT removed.group_id AS removed_group, sampled.size, sampled.position_id, sampled.holds
            , sampled.size * sampled.weight * scale AS importance, sampled.weight * scale AS weight
        FROM jackknife_groups AS removed
        JOIN (
            SELECT own.*, jackknife_groups.domain_id FROM own JOIN jackknife_groups USING (group_id)
        ) AS sampled ON sampled.group_id <> removed.group_id
        CROSS JOIN LATERAL (
            SELECT CASE WHEN sampled.domain_id = removed.domain_id THEN 1 / (1 - removed.part)
                ELSE 1 END AS scale
        )
    )
)
, replicates AS (
    SELECT removed_group, top, sum_where(importance, holds) / nullif(sum(importance), 0) AS coverage
    FROM left_out JOIN tops ON depth <= top * (1 + 1e-9) GROUP BY removed_group, top
)
, by_domain AS (
    SELECT whole.top, jackknife_groups.groups
        , domain_variance(replicates.coverage - whole.coverage, jackknife_groups.groups) AS variance
    FROM whole
    CROSS JOIN jackknife_groups
    LEFT JOIN replicates
        ON replicates.top = whole.top AND replicates.removed_group = jackknife_groups.group_id
    GROUP BY whole.top, jackknife_groups.domain_id, jackknife_groups.groups
)
, errors AS (
    SELECT top, jackknife_se(variance) AS se, t975(jackknife_df(variance, groups)) AS t
    FROM by_domain
    GROUP BY top
)
, rates AS (
    SELECT domain, sum(weight) FILTER (holds) / sum(weight) AS rate FROM own GROUP BY domain
)
, scrambled AS (
    SELECT top, sum(importance * coalesce(rate, 0)) / sum(importance) AS scrambled
    FROM own
    JOIN tops ON depth <= top * (1 + 1e-9)
    JOIN rates USING (domain)
    GROUP BY top
    HAVING sum(importance) > 0
)
, random AS (
    SELECT top, median(coverage) AS random, max(coverage) AS random_hi FROM (
        SELECT component, top, sum_where(importance, holds) / nullif(sum(importance), 0) AS coverage
        FROM rows
        JOIN tops ON depth <= top * (1 + 1e-9)
        WHERE component <> getvariable('component')
        GROUP BY component, top
    ) GROUP BY top
)
SELECT whole.top, whole.importance / (
    SELECT sum(importance) FROM own
) AS importance_share, whole.n::BIGINT AS n, whole.n_held::BIGINT AS n_held, whole.coverage
    , share_lo(whole.coverage, errors.se, errors.t, whole.documents) AS coverage_lo
    , share_hi(whole.coverage, errors.se, errors.t, whole.documents) AS coverage_hi
    , scrambled.scrambled, random.random, random.random_hi
FROM whole JOIN scrambled USING (top) LEFT JOIN errors USING (top) LEFT JOIN random USING (top)
ORDER BY whole.top;
