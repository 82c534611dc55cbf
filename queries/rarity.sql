-- Title:      What could have been seen
-- Question:   how often does each behaviour hold at all, and would a rate of one in ten thousand have shown at this n?
-- Grain:      one row per behaviour
-- Key:        behaviour
-- Parameters: component (required), rate (default 0.0001)
-- Reads:      behaviour_marks, behaviours, component_facts, components
-- Reference:  rule of three: Hanley and Lippman-Hand 1983, If nothing goes wrong, is everything all right?; design effect: Kish
-- Caveat:     design_effect is the jackknife variance of the rate over that of as many independent positions; below ten
--             occurrences it cannot be told, and the 90 % quantile over the component's behaviours with at least ten is taken (or
--             its own, where larger; at least 1): in simulations a bound by their median failed for behaviours that keep to few documents.
--             effective_n = n / design_effect. rate_hi of a behaviour never seen is 3 / effective_n. n_needed positions of this
--             corpus would show one occurrence with 95 % probability if the behaviour held at `rate`. undetectable: never seen, and
--             a behaviour that holds at `rate` would not have been seen either.
SET VARIABLE component = coalesce(getvariable('component')::VARCHAR, error('set the component first: SET VARIABLE component = ''L0H0'';'));
SET VARIABLE rate = coalesce(getvariable('rate')::DOUBLE, 0.0001);
WITH in_document AS MATERIALIZED (
    SELECT doc_id, group_id, count(*) AS n, sum(weight) AS w FROM component_facts WHERE component = getvariable('component')
    GROUP BY doc_id, group_id
)
, marks AS MATERIALIZED (
    SELECT behaviour_id, doc_id, count(*) FILTER (holds) AS n_held, count(*) FILTER (holds IS NULL) AS n_untold
        , coalesce(sum(weight) FILTER (holds), 0) AS h, coalesce(sum(weight) FILTER (holds IS NULL), 0) AS w_untold
    FROM behaviour_marks WHERE component = getvariable('component') GROUP BY behaviour_id, doc_id
)
, by_document AS (
    SELECT b.behaviour, b.family, d.doc_id, d.group_id, d.n - coalesce(m.n_untold, 0) AS n, coalesce(m.n_held, 0) AS n_held
        , d.w - coalesce(m.w_untold, 0) AS w, coalesce(m.h, 0) AS h
    FROM in_document d
    JOIN behaviours b ON b.kind IN ('both', (SELECT kind FROM components WHERE component = getvariable('component')))
    LEFT JOIN marks m ON m.behaviour_id = b.behaviour_id AND m.doc_id = d.doc_id
    WHERE d.n > coalesce(m.n_untold, 0)
)
, by_group AS (
    SELECT behaviour, family, group_id, sum(n) AS n_g, sum(n_held) AS k_g, sum(w) AS w_g, sum(h) AS h_g, count(*) AS docs_g
        , count(*) FILTER (n_held > 0) AS docs_held_g
    FROM by_document GROUP BY behaviour, family, group_id
)
, whole AS (
    SELECT *, sum(n_g) OVER one AS n, sum(k_g) OVER one AS n_held, sum(w_g) OVER one AS w, sum(h_g) OVER one AS h
        , sum(docs_g) OVER one AS documents, sum(docs_held_g) OVER one AS documents_held
    FROM by_group WINDOW one AS (PARTITION BY behaviour)
)
, ratios AS (
    SELECT behaviour AS key, group_id, h_g AS above, w_g AS below FROM by_group
)
, errors AS (
    SELECT w.behaviour, w.family, w.n, w.n_held, w.documents, w.documents_held, w.h / w.w AS seen, e.se, e.t
    FROM (SELECT DISTINCT behaviour, family, n, n_held, documents, documents_held, w, h FROM whole) w
    JOIN jackknife_ratios('ratios') e ON e.key = w.behaviour
)
, effects AS (
    SELECT *, greatest(1, se ** 2 / nullif(seen * (1 - seen) / n, 0)) AS own FROM errors
)
, sized AS (
    SELECT *, CASE WHEN n_held >= 10 AND own IS NOT NULL THEN own
        ELSE greatest(coalesce(quantile_cont(own, 0.9) FILTER (n_held >= 10) OVER (), 1), coalesce(own, 1)) END AS design_effect
    FROM effects
)
SELECT behaviour, family, n::BIGINT AS n, n_held::BIGINT AS n_held, documents::BIGINT AS documents, documents_held::BIGINT AS documents_held
    , seen AS rate, CASE WHEN n_held = 0 THEN 0 WHEN se IS NOT NULL THEN share_lo(seen, se, t, n / design_effect) END AS rate_lo
    , CASE WHEN n_held = 0 THEN least(1, 3 * design_effect / n)
        WHEN se IS NOT NULL THEN share_hi(seen, se, t, n / design_effect) END AS rate_hi
    , design_effect, n / design_effect AS effective_n
    , ceil(ln(0.05) / ln(1 - getvariable('rate')) * design_effect)::BIGINT AS n_needed
    , CASE WHEN n_held > 0 THEN 'seen' WHEN n < ceil(ln(0.05) / ln(1 - getvariable('rate')) * design_effect) THEN 'undetectable at this n'
        ELSE 'rarer than the rate' END AS verdict
FROM sized
ORDER BY round(seen, 9) DESC, behaviour;
