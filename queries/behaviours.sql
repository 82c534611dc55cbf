-- Title:      Behaviours of components
-- Question:   what does each component do where it matters, and would any other component or a
--             scrambled claim look the same?
-- Grain:      one row per component and behaviour
-- Key:        component, behaviour
-- Parameters: kind (default 'head'), component (default ''), family (default 'auto'), behaviour
--             (default ''), top (default 40)
-- Reads:      behaviour_marks, behaviours, component_facts, components, importance,
--             layer_coverages, jackknife_groups
-- Reference:  importance-weighted coverage: sum of |DLA| where the behaviour holds / sum of |DLA|;
--             delete-a-group jackknife over documents: Wolter, Introduction to Variance Estimation,
--             chapter 4, interval on the logit scale; moments of a permuted sum: Hoeffding 1951, A
--             combinatorial central limit theorem
-- Caveat:     heads on the uniform sample of positions, neurons on that and their strata together,
--             weighted. scrambled: the same claim permuted among the positions of each domain, its
--             expected coverage, and scrambled_hi the value that 97.5 % of permutations stay below.
--             random: the same behaviour asked of other components of the same kind and layer (all
--             heads; 17 neurons chosen by hash, without itself), their median, and random_hi the
--             largest; kept in the run. Families overlap: coverages do not add up to 1 (see
--             mixture). No interval where one replicate group holds every row. family auto takes
--             attention behaviours of heads, token and context behaviours of neurons, and the
--             user's own of both; family and behaviour '' show all; top is the number of
--             components, by importance, 0 all; component overrides kind and top. Which components
--             do a behaviour most is asked by query components_by_behaviour.
SET VARIABLE kind = coalesce(getvariable('kind')::VARCHAR, 'head');
SET VARIABLE component = coalesce(getvariable('component')::VARCHAR, '');
SET VARIABLE family = coalesce(getvariable('family')::VARCHAR, 'auto');
SET VARIABLE behaviour = coalesce(getvariable('behaviour')::VARCHAR, '');
SET VARIABLE top = coalesce(getvariable('top')::BIGINT, 40);
SET VARIABLE chosen = (
    SELECT if(count(*) = 0, error(concat('this run is of an earlier version and lacks a table:'
        , ' profiler behaviours refresh RUN adds it')), NULL)
    FROM duckdb_tables() WHERE table_name = 'layer_coverages'
);
SET VARIABLE chosen = chosen_components(
    getvariable('kind'), getvariable('component'), getvariable('top'));
WITH asked AS (
    SELECT behaviour_id, behaviour, family, kinds.kind
    FROM behaviours
    JOIN (
        VALUES ('head'), ('neuron'), ('feature'), ('direction'), ('subspace')
    ) AS kinds(kind) ON behaviours.kind IN ('both', behaves_as(kinds.kind))
    WHERE getvariable('behaviour') IN ('', behaviour)
        AND family_asked(getvariable('family'), kinds.kind, family)
)
, facts AS MATERIALIZED (
    -- sums of a component's kept rows in each document, whatever holds there
    SELECT component, doc_id, any_value(kind) AS kind, any_value(layer) AS layer
        , any_value(group_id) AS group_id, any_value(domain) AS domain
        , count(*) AS n, sum(weight) AS weights, sum(weighted_importance(weight, dla)) AS importance
        , sum(weighted_importance(weight, dla) ** 2) AS importance_squared
    FROM component_facts WHERE list_contains(getvariable('chosen'), component)
    GROUP BY component, doc_id
)
, marks AS MATERIALIZED (
    -- the same of the rows where a behaviour holds, and of those where it cannot be told
    SELECT component, behaviour_id, doc_id
        , count(*) FILTER (holds) AS n_held, sum_where(weight, holds) AS weights_held
        , sum_where(weighted_importance(weight, dla), holds) AS importance_held
        , count(*) FILTER (holds IS NULL) AS n_untold
        , sum_where(weight, holds IS NULL) AS weights_untold
        , sum_where(weighted_importance(weight, dla), holds IS NULL) AS importance_untold
        , sum_where(weighted_importance(weight, dla) ** 2
            , holds IS NULL) AS importance_squared_untold
    FROM behaviour_marks WHERE list_contains(getvariable('chosen'), component)
    GROUP BY component, behaviour_id, doc_id
)
, by_document AS MATERIALIZED (
    -- rows where it cannot be told are taken out of numerator and denominator
    SELECT facts.component, facts.kind, facts.layer, asked.behaviour_id, asked.behaviour
        , asked.family, facts.group_id, facts.domain, facts.n - coalesce(marks.n_untold, 0) AS n
        , coalesce(marks.n_held, 0) AS n_held
        , facts.weights - coalesce(marks.weights_untold, 0) AS weights
        , coalesce(marks.weights_held, 0) AS weights_held
        , facts.importance - coalesce(marks.importance_untold, 0) AS importance
        , coalesce(marks.importance_held, 0) AS importance_held
        , facts.importance_squared
            - coalesce(marks.importance_squared_untold, 0) AS importance_squared
    FROM facts JOIN asked USING (kind)
    LEFT JOIN marks
        ON marks.component = facts.component AND marks.behaviour_id = asked.behaviour_id
            AND marks.doc_id = facts.doc_id
    WHERE facts.n > coalesce(marks.n_untold, 0)
)
, whole AS (
    SELECT component, kind, layer, behaviour_id, behaviour, family, sum(n) AS n
        , sum(n_held) AS n_held, sum(weights) AS weights, sum(weights_held) AS weights_held
        , sum(importance) AS importance, sum(importance_held) AS importance_held
        , effective_number(importance) AS documents
    FROM by_document GROUP BY component, kind, layer, behaviour_id, behaviour, family
)
, sums AS (
    SELECT {'component': component, 'behaviour': behaviour} AS key, group_id
        , importance_held AS above, importance AS below
    FROM by_document
)
, errors AS (
    SELECT key.component, key.behaviour, se, t FROM jackknife_ratios('sums')
)
, by_domain AS (
    SELECT component, behaviour, domain, sum(importance) AS domain_importance
        , sum(weights_held) / sum(weights) AS rate
        , sum(importance_squared) - sum(importance) ** 2 / sum(n) AS spread, sum(n) AS domain_n
    FROM by_document GROUP BY component, behaviour, domain
)
, scrambled AS (
    -- a permutation of flags h among values a: mean sum(a) * mean(h), variance sum((a - mean)^2) *
    -- h-variance * n / (n - 1)
    SELECT component, behaviour
        , sum(domain_importance * rate) / nullif(sum(domain_importance), 0) AS mean
        , sqrt(sum(CASE WHEN domain_n > 1
            THEN spread * rate * (1 - rate) * domain_n / (domain_n - 1) ELSE 0 END))
                / nullif(sum(domain_importance), 0) AS sd
    FROM by_domain GROUP BY component, behaviour
)
, matched AS (
    SELECT subject.component, layer_coverages.behaviour_id
        , median(layer_coverages.coverage) AS random, max(layer_coverages.coverage) AS random_hi
        , count(*) AS n_random
    FROM layer_coverages
    JOIN components USING (component_id)
    JOIN (
        SELECT DISTINCT component, kind, layer FROM facts
    ) AS subject
        ON subject.kind = components.kind AND subject.layer = components.layer
            AND subject.component <> components.component
    GROUP BY subject.component, layer_coverages.behaviour_id
)
SELECT whole.component, whole.kind, whole.layer, whole.behaviour, whole.family, whole.n::BIGINT AS n
    , whole.n_held::BIGINT AS n_held
    , whole.weights_held / whole.weights AS base_rate
    , whole.importance_held / nullif(whole.importance, 0) AS coverage, errors.se AS coverage_se
    , share_lo(whole.importance_held / whole.importance, errors.se, errors.t
        , whole.documents) AS coverage_lo
    , share_hi(whole.importance_held / whole.importance, errors.se, errors.t
        , whole.documents) AS coverage_hi
    , scrambled.mean AS scrambled
    , least(1, scrambled.mean + 1.959964 * scrambled.sd) AS scrambled_hi
    , matched.random, matched.random_hi, coalesce(matched.n_random, 0)::BIGINT AS n_random
    , whole.documents AS effective_documents
FROM whole
JOIN errors ON errors.component = whole.component AND errors.behaviour = whole.behaviour
JOIN scrambled ON scrambled.component = whole.component AND scrambled.behaviour = whole.behaviour
LEFT JOIN matched
    ON matched.component = whole.component AND matched.behaviour_id = whole.behaviour_id
ORDER BY list_position(getvariable('chosen'), whole.component), round(coverage, 9) DESC
    , whole.behaviour;
