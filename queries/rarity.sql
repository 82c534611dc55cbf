-- Title:      What could have been seen
-- Question:   how often does each behaviour hold at all, and would a rate of one in ten thousand
--             have shown at this n?
-- Grain:      one row per behaviour
-- Key:        behaviour
-- Parameters: component (required), rate (default 0.0001)
-- Reads:      behaviour_marks, behaviours, component_facts, components, jackknife_groups
-- Reference:  rule of three: Hanley and Lippman-Hand 1983, If nothing goes wrong, is everything all
--             right?; design effect: Kish
-- Caveat:     design_effect is the jackknife variance of the rate over that of as many independent
--             positions; below ten occurrences it cannot be told, and the 90 % quantile over the
--             component's behaviours with at least ten is taken (or its own, where larger; at least
--             1): in simulations a bound by their median failed for behaviours that keep to few
--             documents. effective_n = n / design_effect. rate_hi of a behaviour never seen is 3 /
--             effective_n. n_needed positions of this corpus would show one occurrence with 95 %
--             probability if the behaviour held at `rate`. undetectable: never seen, and a
--             behaviour that holds at `rate` would not have been seen either.
SET VARIABLE component = required(getvariable('component'), 'component', 'L0H0');
SET VARIABLE rate = coalesce(getvariable('rate')::DOUBLE, 0.0001);
WITH in_document AS MATERIALIZED (
    SELECT doc_id, group_id, count(*) AS n, sum(weight) AS weights
    FROM component_facts
    WHERE component = getvariable('component')
    GROUP BY doc_id, group_id
)
, marks AS MATERIALIZED (
    -- rows where a behaviour holds, and where it cannot be told, in each document
    SELECT behaviour_id, doc_id, count(*) FILTER (holds) AS n_held
        , count(*) FILTER (holds IS NULL) AS n_untold
        , sum_where(weight, holds) AS weights_held
        , sum_where(weight, holds IS NULL) AS weights_untold
    FROM behaviour_marks WHERE component = getvariable('component') GROUP BY behaviour_id, doc_id
)
, by_document AS (
    SELECT behaviours.behaviour, behaviours.family, in_document.doc_id, in_document.group_id
        , in_document.n - coalesce(marks.n_untold, 0) AS n, coalesce(marks.n_held, 0) AS n_held
        , in_document.weights - coalesce(marks.weights_untold, 0) AS weights
        , coalesce(marks.weights_held, 0) AS weights_held
    FROM in_document
    JOIN behaviours ON behaviours.kind IN ('both', (
        SELECT behaves_as(kind) FROM components WHERE component = getvariable('component')
    ))
    LEFT JOIN marks
        ON marks.behaviour_id = behaviours.behaviour_id AND marks.doc_id = in_document.doc_id
    WHERE in_document.n > coalesce(marks.n_untold, 0)
)
, by_group AS (
    SELECT behaviour, family, group_id, sum(n) AS group_n, sum(n_held) AS group_n_held
        , sum(weights) AS group_weights, sum(weights_held) AS group_weights_held
        , count(*) AS group_documents
        , count(*) FILTER (n_held > 0) AS group_documents_held
    FROM by_document GROUP BY behaviour, family, group_id
)
, whole AS (
    SELECT *, sum(group_n) OVER in_behaviour AS n, sum(group_n_held) OVER in_behaviour AS n_held
        , sum(group_weights) OVER in_behaviour AS weights
        , sum(group_weights_held) OVER in_behaviour AS weights_held
        , sum(group_documents) OVER in_behaviour AS documents
        , sum(group_documents_held) OVER in_behaviour AS documents_held
    FROM by_group WINDOW in_behaviour AS (PARTITION BY behaviour)
)
, ratios AS (
    SELECT behaviour AS key, group_id, group_weights_held AS above, group_weights AS below
    FROM by_group
)
, errors AS (
    SELECT totals.behaviour, totals.family, totals.n, totals.n_held, totals.documents
        , totals.documents_held, totals.weights_held / totals.weights AS seen, jackknifed.se
        , jackknifed.t
    FROM (
        SELECT DISTINCT behaviour, family, n, n_held, documents, documents_held, weights
            , weights_held
        FROM whole
    ) AS totals
    JOIN jackknife_ratios('ratios') AS jackknifed ON jackknifed.key = totals.behaviour
)
, effects AS (
    SELECT *, greatest(1, se ** 2 / nullif(seen * (1 - seen) / n, 0)) AS own FROM errors
)
, sized AS (
    -- below ten occurrences the design effect is borrowed from commoner behaviours
    SELECT *, CASE WHEN n_held >= 10 AND own IS NOT NULL THEN own
        ELSE greatest(coalesce(quantile_cont(own, 0.9) FILTER (n_held >= 10) OVER (), 1)
            , coalesce(own, 1)) END AS design_effect
    FROM effects
)
SELECT behaviour, family, n::BIGINT AS n, n_held::BIGINT AS n_held, documents::BIGINT AS documents
    , documents_held::BIGINT AS documents_held
    , seen AS rate
    , CASE WHEN n_held = 0 THEN 0 WHEN se IS NOT NULL
        THEN share_lo(seen, se, t, n / design_effect) END AS rate_lo
    , CASE WHEN n_held = 0 THEN least(1, 3 * design_effect / n)
        WHEN se IS NOT NULL THEN share_hi(seen, se, t, n / design_effect) END AS rate_hi
    , design_effect, n / design_effect AS effective_n
    , ceil(ln(0.05) / ln(1 - getvariable('rate')) * design_effect)::BIGINT AS n_needed
    , CASE WHEN n_held > 0 THEN 'seen'
        WHEN n < ceil(ln(0.05) / ln(1 - getvariable('rate')) * design_effect)
            THEN 'undetectable at this n'
        ELSE 'rarer than the rate' END AS verdict
FROM sized
ORDER BY round(seen, 9) DESC, behaviour;
