-- Title:      Behaviours of components
-- Question:   what does each component do where it matters, and would any other component or a scrambled claim look the same?
-- Grain:      one row per component and behaviour
-- Key:        component, behaviour
-- Parameters: kind (default 'head'), component (default ''), family (default 'auto'), behaviour (default ''), top (default 40)
-- Reads:      behaviour_marks, behaviours, component_facts, components, importance, layer_coverages
-- Reference:  importance-weighted coverage: sum of |DLA| where the behaviour holds / sum of |DLA|; delete-a-group jackknife
--             over documents: Wolter, Introduction to Variance Estimation, chapter 4, interval on the logit scale; moments of a
--             permuted sum: Hoeffding 1951, A combinatorial central limit theorem
-- Caveat:     heads on the uniform sample of positions, neurons on that and their strata together, weighted. scrambled: the same
--             claim permuted among the positions of each domain, its expected coverage, and scrambled_hi the value that 97.5 % of
--             permutations stay below. random: the same behaviour asked of other components of the same kind and layer (all
--             heads; 17 neurons chosen by hash, without itself), their median, and random_hi the largest; kept in the run.
--             Families overlap: coverages do not add up to 1 (see mixture). No interval where one replicate group holds every row. family auto takes
--             attention behaviours of heads, token and context behaviours of neurons, and the user's own of both; family
--             and behaviour '' show all; top is the number of components, by importance, 0 all; component overrides kind and top.
SET VARIABLE kind = coalesce(getvariable('kind')::VARCHAR, 'head');
SET VARIABLE component = coalesce(getvariable('component')::VARCHAR, '');
SET VARIABLE family = coalesce(getvariable('family')::VARCHAR, 'auto');
SET VARIABLE behaviour = coalesce(getvariable('behaviour')::VARCHAR, '');
SET VARIABLE top = coalesce(getvariable('top')::BIGINT, 40);
SET VARIABLE chosen = (
    SELECT if(count(*) = 0, error('this run is of an earlier version and lacks a table: profiler behaviours refresh RUN adds it'), NULL)
    FROM duckdb_tables() WHERE table_name = 'layer_coverages'
);
-- a list, because a filter on a list goes below the view and a join does not
SET VARIABLE chosen = (
    SELECT list(component ORDER BY place) FROM (
        SELECT component, row_number() OVER (ORDER BY sum_abs_dla DESC, component_id) AS place FROM importance
        WHERE getvariable('component') IN ('', component) AND (getvariable('component') <> '' OR kind = getvariable('kind'))
    ) WHERE getvariable('component') <> '' OR getvariable('top') = 0 OR place <= getvariable('top')
);
WITH asked AS (
    SELECT behaviour_id, behaviour, family, k.kind FROM behaviours b JOIN (VALUES ('head'), ('neuron')) k(kind) ON b.kind IN ('both', k.kind)
    WHERE getvariable('behaviour') IN ('', behaviour)
        AND (getvariable('family') IN ('', family) OR getvariable('family') = 'auto'
            AND (family = 'user' OR CASE k.kind WHEN 'head' THEN family = 'attention' ELSE family IN ('token', 'context') END))
)
, facts AS MATERIALIZED (
    SELECT component, doc_id, any_value(kind) AS kind, any_value(layer) AS layer, any_value(group_id) AS group_id, any_value(domain) AS domain
        , count(*) AS n, sum(weight) AS w, sum(weight * abs(dla)::DOUBLE) AS m, sum((weight * abs(dla)::DOUBLE) ** 2) AS m2
    FROM component_facts WHERE list_contains(getvariable('chosen'), component)
    GROUP BY component, doc_id
)
, marks AS MATERIALIZED (
    SELECT component, behaviour_id, doc_id
        , count(*) FILTER (holds) AS n_held, coalesce(sum(weight) FILTER (holds), 0) AS w_held
        , coalesce(sum(weight * abs(dla)::DOUBLE) FILTER (holds), 0) AS m_held
        , count(*) FILTER (holds IS NULL) AS n_untold, coalesce(sum(weight) FILTER (holds IS NULL), 0) AS w_untold
        , coalesce(sum(weight * abs(dla)::DOUBLE) FILTER (holds IS NULL), 0) AS m_untold
        , coalesce(sum((weight * abs(dla)::DOUBLE) ** 2) FILTER (holds IS NULL), 0) AS m2_untold
    FROM behaviour_marks WHERE list_contains(getvariable('chosen'), component)
    GROUP BY component, behaviour_id, doc_id
)
, by_document AS MATERIALIZED (
    SELECT f.component, f.kind, f.layer, a.behaviour_id, a.behaviour, a.family, f.group_id, f.domain, f.n - coalesce(k.n_untold, 0) AS n
        , coalesce(k.n_held, 0) AS n_held, f.w - coalesce(k.w_untold, 0) AS w, coalesce(k.w_held, 0) AS w_held
        , f.m - coalesce(k.m_untold, 0) AS m, coalesce(k.m_held, 0) AS m_held, f.m2 - coalesce(k.m2_untold, 0) AS m2
    FROM facts f JOIN asked a USING (kind)
    LEFT JOIN marks k ON k.component = f.component AND k.behaviour_id = a.behaviour_id AND k.doc_id = f.doc_id
    WHERE f.n > coalesce(k.n_untold, 0)
)
, whole AS (
    SELECT component, kind, layer, behaviour_id, behaviour, family, sum(n) AS n, sum(n_held) AS n_held, sum(w) AS w, sum(w_held) AS w_held
        , sum(m) AS m, sum(m_held) AS m_held, sum(m) ** 2 / nullif(sum(m ** 2), 0) AS documents
    FROM by_document GROUP BY component, kind, layer, behaviour_id, behaviour, family
)
, sums AS (
    SELECT {'component': component, 'behaviour': behaviour} AS key, group_id, m_held AS above, m AS below FROM by_document
)
, errors AS (
    SELECT key.component, key.behaviour, se, t FROM jackknife_ratios('sums')
)
, by_domain AS (
    SELECT component, behaviour, domain, sum(m) AS m_d, sum(w_held) / sum(w) AS rate, sum(m2) - sum(m) ** 2 / sum(n) AS spread, sum(n) AS n_d
    FROM by_document GROUP BY component, behaviour, domain
)
, scrambled AS (
    -- a permutation of flags h among values a: mean sum(a) * mean(h), variance sum((a - mean)^2) * h-variance * n / (n - 1)
    SELECT component, behaviour, sum(m_d * rate) / nullif(sum(m_d), 0) AS mean
        , sqrt(sum(CASE WHEN n_d > 1 THEN spread * rate * (1 - rate) * n_d / (n_d - 1) ELSE 0 END)) / nullif(sum(m_d), 0) AS sd
    FROM by_domain GROUP BY component, behaviour
)
, matched AS (
    SELECT c.component, l.behaviour_id, median(l.coverage) AS random, max(l.coverage) AS random_hi, count(*) AS n_random
    FROM layer_coverages l
    JOIN components o USING (component_id)
    JOIN (SELECT DISTINCT component, kind, layer FROM facts) c ON c.kind = o.kind AND c.layer = o.layer AND c.component <> o.component
    GROUP BY c.component, l.behaviour_id
)
SELECT w.component, w.kind, w.layer, w.behaviour, w.family, w.n::BIGINT AS n, w.n_held::BIGINT AS n_held
    , w.w_held / w.w AS base_rate, w.m_held / nullif(w.m, 0) AS coverage, e.se AS coverage_se
    , CASE WHEN e.se IS NOT NULL THEN share_lo(w.m_held / w.m, e.se, e.t, w.documents) END AS coverage_lo
    , CASE WHEN e.se IS NOT NULL THEN share_hi(w.m_held / w.m, e.se, e.t, w.documents) END AS coverage_hi
    , s.mean AS scrambled, least(1, s.mean + 1.959964 * s.sd) AS scrambled_hi
    , r.random, r.random_hi, coalesce(r.n_random, 0)::BIGINT AS n_random, w.documents AS effective_documents
FROM whole w
JOIN errors e ON e.component = w.component AND e.behaviour = w.behaviour
JOIN scrambled s ON s.component = w.component AND s.behaviour = w.behaviour
LEFT JOIN matched r ON r.component = w.component AND r.behaviour_id = w.behaviour_id
ORDER BY list_position(getvariable('chosen'), w.component), round(coverage, 9) DESC, w.behaviour;
