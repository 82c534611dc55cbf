-- Title:      Components by a behaviour
-- Question:   which components do it, or are important where it holds, more than others or than by
--             chance?
-- Grain:      one row per component with enough positions where the behaviour holds
-- Key:        component
-- Parameters: behaviour (required), kind (default ''), least (default 20), top (default 20),
--             importance (default 'direct')
-- Reads:      behaviour_marks, behaviours, components, dense_rows, documents, importance,
--             jackknife_groups, pooled_strata, position_marks, runs, sample_rows, uniform_marks
-- Reference:  lift of a rule over its base rate: Brin, Motwani, Ullman and Tsur 1997; the base rate
--             of each domain is held against the domain itself; delete-a-group jackknife over
--             documents: Wolter, Introduction to Variance Estimation, chapter 4, interval on the
--             logit scale
-- Caveat:     coverage is the share of the component's |DLA| at positions where the behaviour
--             holds, scrambled what the same claim covers when it is permuted among the positions
--             of each domain, lift the first over the second: 1 for a component that does not look.
--             The interval of lift is that of coverage over scrambled. others is the median
--             coverage of all components of the kind. Rows are ordered by the lower end of an
--             interval, so that few documents do not come first: of lift where the behaviour is
--             about the text; of coverage where it is about what the component does (attention,
--             effect), which a head that does so everywhere does most, with a lift of 1. Left out
--             are components with fewer than `least` recorded positions where it holds, and those
--             without an interval: n_left_out says how many. kind is head or neuron, both if empty;
--             top 0 shows all. |DLA| sees only what is written directly to the next token's logit;
--             importance total counts by |total effect| at the positions where it was measured.
--             acts says how the component acts, agrees whether its total effects do with ablations.
SET VARIABLE behaviour = required(getvariable('behaviour'), 'behaviour', 'on_number');
SET VARIABLE kind = coalesce(getvariable('kind')::VARCHAR, '');
SET VARIABLE least = coalesce(getvariable('least')::BIGINT, 20);
SET VARIABLE top = coalesce(getvariable('top')::BIGINT, 20);
SET VARIABLE importance = coalesce(getvariable('importance')::VARCHAR, 'direct');
SET VARIABLE importance = importance_asked(getvariable('importance'));
SET VARIABLE asked = (
    SELECT behaviour_id FROM behaviours WHERE behaviour = getvariable('behaviour')
);
-- most behaviours are about the position alone: those are asked once a position, not once a row
SET VARIABLE of_position = (
    SELECT count(*) > 0 FROM (
        SELECT 1 FROM position_marks WHERE behaviour_id = getvariable('asked') LIMIT 1
    )
);
-- a list, because a filter on a list goes below a view: what is about heads is asked of heads alone
SET VARIABLE heads = (
    SELECT list(components.component) FROM components
    JOIN behaviours ON behaviours.kind = components.kind
    WHERE components.kind = 'head' AND behaviours.behaviour_id = getvariable('asked')
);
WITH asked AS (
    SELECT kind, family IN ('attention', 'effect') AS is_act FROM behaviours
    WHERE behaviour_id = getvariable('asked')
)
, pool AS (
    SELECT components.component_id, components.component, components.kind FROM components
    JOIN asked ON asked.kind IN ('both', behaves_as(components.kind))
    WHERE components.kind IN ('head', 'neuron', 'feature', 'direction', 'subspace')
        AND getvariable('kind') IN ('', components.kind)
)
, rows AS NOT MATERIALIZED (
    -- as view component_facts has them: heads on the uniform sample, neurons on their strata too
    SELECT component_id, bin, position_id, dla, total, true AS uniform FROM dense_rows
    UNION ALL
    SELECT component_id, bin, position_id, dla, NULL, false
    FROM sample_rows ANTI JOIN uniform_marks USING (position_id)
)
, weighted AS NOT MATERIALIZED (
    SELECT rows.component_id, rows.position_id, rows.dla, rows.total
        , CASE pool.kind WHEN 'head' THEN (SELECT n_positions FROM runs)
                / nullif((SELECT count(*) FROM uniform_marks), 0)
            ELSE pooled_strata.n / pooled_strata.kept END AS weight
    FROM rows
    JOIN pool USING (component_id)
    JOIN pooled_strata USING (component_id, bin)
    WHERE rows.uniform OR pool.kind <> 'head'
)
, counted AS NOT MATERIALIZED (
    SELECT component_id, position_id, weight_of(getvariable('importance'), weight) AS weight
        , importance_at(getvariable('importance'), weight, dla, total) AS importance
    FROM weighted
)
, at_position AS MATERIALIZED (
    SELECT position_id, holds, holds IS NULL AS is_untold FROM position_marks
    WHERE getvariable('of_position') AND behaviour_id = getvariable('asked')
        AND holds IS DISTINCT FROM false
)
, facts AS MATERIALIZED (
    SELECT counted.component_id, counted.position_id >> 32 AS doc_id
        , sum(weight) AS weights, sum(importance) AS importance
        , count(*) FILTER (holds) AS n_held, sum_where(weight, holds) AS weights_held
        , sum_where(importance, holds) AS importance_held
        , sum_where(weight, is_untold) AS weights_untold
        , sum_where(importance, is_untold) AS importance_untold
    FROM counted LEFT JOIN at_position USING (position_id)
    WHERE importance IS NOT NULL
    GROUP BY counted.component_id, doc_id
)
, marks AS MATERIALIZED (
    SELECT component, doc_id
        , count(*) FILTER (holds) AS n_held
        , sum_where(weight_of(getvariable('importance'), weight), holds) AS weights_held
        , sum_where(importance_at(getvariable('importance'), weight, dla, total)
            , holds) AS importance_held
        , sum_where(weight_of(getvariable('importance'), weight), holds IS NULL) AS weights_untold
        , sum_where(importance_at(getvariable('importance'), weight, dla, total)
            , holds IS NULL) AS importance_untold
    FROM behaviour_marks
    WHERE NOT getvariable('of_position') AND behaviour_id = getvariable('asked')
        AND (getvariable('heads') IS NULL OR list_contains(getvariable('heads'), component))
        AND importance_at(getvariable('importance'), weight, dla, total) IS NOT NULL
    GROUP BY component, doc_id
)
, by_document AS MATERIALIZED (
    -- rows where it cannot be told are taken out of numerator and denominator
    SELECT pool.component, pool.kind, documents.group_id, documents.domain
        , coalesce(marks.n_held, facts.n_held) AS n_held
        , facts.weights - coalesce(marks.weights_untold, facts.weights_untold) AS weights
        , coalesce(marks.weights_held, facts.weights_held) AS weights_held
        , facts.importance - coalesce(marks.importance_untold
            , facts.importance_untold) AS importance
        , coalesce(marks.importance_held, facts.importance_held) AS importance_held
    FROM facts
    JOIN pool USING (component_id)
    JOIN documents USING (doc_id)
    LEFT JOIN marks ON marks.component = pool.component AND marks.doc_id = facts.doc_id
)
, sums AS (
    SELECT component AS key, group_id, importance_held AS above, importance AS below
    FROM by_document
)
, by_domain AS (
    SELECT component, sum(importance) AS domain_importance
        , sum(weights_held) / nullif(sum(weights), 0) AS rate
    FROM by_document GROUP BY component, domain
)
, scrambled AS (
    SELECT component
        , sum(domain_importance * rate) / nullif(sum(domain_importance), 0) AS scrambled
    FROM by_domain GROUP BY component
)
, whole AS (
    SELECT component, any_value(kind) AS kind, sum(n_held) AS n_held
        , sum(weights_held) / nullif(sum(weights), 0) AS base_rate
        , sum(importance_held) / nullif(sum(importance), 0) AS coverage
        , effective_number(importance) AS documents
    FROM by_document GROUP BY component
)
, measured AS (
    SELECT whole.component, whole.kind, whole.n_held, whole.base_rate, whole.coverage
        , share_lo(whole.coverage, errors.se, errors.t, whole.documents) AS coverage_lo
        , share_hi(whole.coverage, errors.se, errors.t, whole.documents) AS coverage_hi
        , scrambled.scrambled, whole.documents
    FROM whole
    JOIN scrambled USING (component)
    LEFT JOIN jackknife_ratios('sums') AS errors ON errors.key = whole.component
)
, ranked AS (
    SELECT *, coverage / nullif(scrambled, 0) AS lift
        , coverage_lo / nullif(scrambled, 0) AS lift_lo
        , coverage_hi / nullif(scrambled, 0) AS lift_hi
        , median(coverage) OVER (PARTITION BY kind) AS others, count(*) OVER () AS n_all
    FROM measured
)
, shown AS (
    SELECT *, n_all - count(*) OVER () AS n_left_out
        , row_number() OVER (
            ORDER BY round(if((SELECT is_act FROM asked), coverage_lo, lift_lo), 9) DESC, component
        ) AS ordinal
    FROM ranked WHERE n_held >= getvariable('least') AND lift_lo IS NOT NULL
)
SELECT shown.component, shown.kind, lift, lift_lo, lift_hi, coverage, coverage_lo, coverage_hi
    , scrambled, others, base_rate, n_held::BIGINT AS n_held, documents AS effective_documents
    , n_left_out::BIGINT AS n_left_out, importance.acts, importance.agrees
FROM shown JOIN importance ON importance.component = shown.component
WHERE getvariable('top') = 0 OR ordinal <= getvariable('top')
ORDER BY ordinal;
