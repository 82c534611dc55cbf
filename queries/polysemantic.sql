-- Title:      Components that do different things in different domains
-- Question:   which components care for a behaviour in one domain and less elsewhere, beyond chance and beyond what the text does?
-- Grain:      one row per component of which a claim can be tested
-- Key:        component
-- Parameters: kind (default 'head'), family (default 'auto'), top (default 100)
-- Reads:      behaviour_rows, behaviours, importance, jackknife_groups
-- Reference:  difference of the log importance ratio (macro log_ratio: mean |DLA| where the behaviour holds over mean |DLA| elsewhere) over its
--             own delete-a-group jackknife error, t with Welch's degrees of freedom; Bonferroni over pairs of domains and behaviours,
--             Benjamini and Hochberg 1995 over components
-- Caveat:     coverage differs between domains wherever the text does, so it is not what is tested: the ratio takes out how often the behaviour
--             holds. A head that attends somewhere more often, and matters no more there than elsewhere, is no difference here: where it
--             attends, of head and text together, is tested beside it: attends is the attention behaviour whose share of positions differs most,
--             from rate_a to rate_b, attends_q its q over heads. difference is of coverage above scrambled;
--             times is ratio_a / ratio_b with its 95 % interval. behaviours are those that take part in a mixture,
--             of one family; auto: attention of heads, token and context of neurons, with the user's own; '' takes all. behaviour is the one
--             that differs most (smallest p); behaviours names the one farthest above scrambled in each domain, differs: these names are not
--             all the same, and q is below 0.05. q controls the share of false discoveries among the components shown; it says that a difference is
--             there, not that it is large. Behaviours overlap: of a component that cares for one, the ratios of others that overlap with it
--             change with the text, so read behaviour as a hint. A claim is tested in two domains of two groups of documents each, where 10 effective
--             documents have such a position and 10 one without; tests says how many were, the others are left out.
SET VARIABLE kind = coalesce(getvariable('kind')::VARCHAR, 'head');
SET VARIABLE family = coalesce(getvariable('family')::VARCHAR, 'auto');
SET VARIABLE top = coalesce(getvariable('top')::BIGINT, 100);
SET VARIABLE chosen = (
    SELECT list(component) FROM (
        SELECT component, row_number() OVER (ORDER BY sum_abs_dla DESC, component_id) AS place FROM importance WHERE kind = getvariable('kind')
    ) WHERE getvariable('top') = 0 OR place <= getvariable('top')
);
WITH by_document AS (
    SELECT component, behaviour, domain, group_id, doc_id, sum(weight) AS w, coalesce(sum(weight) FILTER (holds), 0) AS v
        , sum(weight * abs(dla)::DOUBLE) AS m, coalesce(sum(weight * abs(dla)::DOUBLE) FILTER (holds), 0) AS h
    FROM behaviour_rows
    WHERE list_contains(getvariable('chosen'), component) AND priority IS NOT NULL AND holds IS NOT NULL
        AND (getvariable('family') IN ('', family) OR getvariable('family') = 'auto'
            AND (family = 'user' OR CASE kind WHEN 'head' THEN family = 'attention' ELSE family IN ('token', 'context') END))
    GROUP BY component, behaviour, domain, group_id, doc_id
)
, by_group AS (
    SELECT component, behaviour, domain, group_id, sum(w) AS w_g, sum(v) AS v_g, sum(m) AS m_g, sum(h) AS h_g, sum(m ** 2) AS m2_g
        , sum(v ** 2) AS v2_g, sum((w - v) ** 2) AS u2_g, sum(w ** 2) AS w2_g
    FROM by_document GROUP BY component, behaviour, domain, group_id
)
, whole AS (
    -- sums over the domain beside each group's; fewest: effective documents where the behaviour holds, or where it does not
    SELECT component, behaviour, domain, groups, w_g, v_g, m_g, h_g, sum(w_g) OVER one AS w, sum(v_g) OVER one AS v, sum(m_g) OVER one AS m
        , sum(h_g) OVER one AS h, w ** 2 / nullif(sum(w2_g) OVER one, 0) AS documents
        , least(v ** 2 / nullif(sum(v2_g) OVER one, 0), (w - v) ** 2 / nullif(sum(u2_g) OVER one, 0)) AS fewest
        , 0.5 * v / w * (1 - v / w) * sum(m2_g) OVER one / nullif(m, 0) ** 2 AS prior
    FROM by_group JOIN jackknife_groups USING (group_id) WINDOW one AS (PARTITION BY component, behaviour, domain)
)
, left_out AS (
    SELECT component, behaviour, domain, groups, h / m AS coverage, v / w AS scrambled, fewest, v > 0 AND v < w AND fewest >= 10 AS testable
        , held_part(h, v, w) / nullif(rest_part(m, h, v, w), 0) AS ratio
        , log_ratio(held_part(h, v, w) / m, rest_part(m, h, v, w) / m, prior) AS log_ratio
        , log_ratio(held_part(h - h_g, v - v_g, w - w_g) / nullif(m - m_g, 0)
            , rest_part(m - m_g, h - h_g, v - v_g, w - w_g) / nullif(m - m_g, 0), prior) - log_ratio AS change
    FROM whole WHERE m > 0
)
, ratios AS (
    -- a ratio that is 0 or infinite in all groups has no spread of its own: a factor of e
    SELECT component, behaviour, domain, groups - 1 AS df, coverage, scrambled, ratio, log_ratio, testable
        , CASE WHEN coverage <= 1e-12 OR coverage >= 1 - 1e-12 THEN 1 ELSE 0 END AS least_v, domain_variance(change, groups) AS own_v
        , CASE WHEN groups > 1 AND own_v IS NOT NULL THEN greatest(least_v, own_v) END AS variance
    FROM left_out GROUP BY component, behaviour, domain, groups, coverage, scrambled, ratio, log_ratio, testable
)
, largest AS (
    SELECT component, list(behaviour ORDER BY domain) AS behaviours, list(domain ORDER BY domain) AS domains
        , count(DISTINCT behaviour) > 1 AS unlike
    FROM (
        SELECT *, row_number() OVER (PARTITION BY component, domain ORDER BY round(coverage - scrambled, 9) DESC, behaviour) AS place
        FROM ratios
    ) WHERE place = 1 GROUP BY component
)
, pairs AS (
    SELECT a.component, a.behaviour, a.domain AS domain_a, b.domain AS domain_b, a.coverage AS coverage_a, a.scrambled AS scrambled_a
        , b.coverage AS coverage_b, b.scrambled AS scrambled_b, a.ratio AS ratio_a, b.ratio AS ratio_b
        , a.log_ratio - b.log_ratio AS log_times, sqrt(a.variance + b.variance) AS se, welch_df(a.variance, a.df, b.variance, b.df) AS welch
        , t_p(abs(log_times) / se, welch) AS p
    FROM ratios a JOIN ratios b ON b.component = a.component AND b.behaviour = a.behaviour AND b.domain > a.domain
    WHERE a.testable AND b.testable AND a.variance + b.variance > 0
)
, tested AS (
    SELECT *, count(*) OVER (PARTITION BY component) AS tests, least(1, p * tests) AS p_component
        , row_number() OVER (PARTITION BY component ORDER BY round(p, 15), round(abs(log_times), 9) DESC, behaviour, domain_a, domain_b) AS place
    FROM pairs
)
, ranked AS (
    SELECT *, p_component * count(*) OVER () / row_number() OVER (ORDER BY p_component, component) AS raw
    FROM tested WHERE place = 1
)
, decided AS (
    SELECT *, least(1, min(raw) OVER (ORDER BY p_component DESC, component DESC ROWS UNBOUNDED PRECEDING)) AS q FROM ranked
)
, rates AS (
    -- where a head attends is its own doing as much as the text's; at 0 or 1 in all groups: 1 / (effective documents + 2), as of a uniform prior
    SELECT component, behaviour, domain, groups - 1 AS df, v / w AS rate
        , greatest(domain_variance((v - v_g) / nullif(w - w_g, 0) - v / w, groups)
            , CASE WHEN v <= 0 OR v >= w THEN (1 / (any_value(documents) + 2)) ** 2 ELSE 0 END) AS variance
    FROM whole WHERE behaviour IN (SELECT behaviour FROM behaviours WHERE family IN ('attention', 'effect'))
    GROUP BY component, behaviour, domain, groups, v, w HAVING groups > 1
)
, moves AS (
    SELECT a.component, a.behaviour, a.domain AS domain_a, b.domain AS domain_b, a.rate AS rate_a, b.rate AS rate_b
        , t_p(abs(a.rate - b.rate) / sqrt(a.variance + b.variance), welch_df(a.variance, a.df, b.variance, b.df)) AS p
        , least(1, p * count(*) OVER (PARTITION BY a.component)) AS p_component
        , row_number() OVER (PARTITION BY a.component ORDER BY round(p, 15), round(abs(a.rate - b.rate), 9) DESC, a.behaviour, a.domain, b.domain)
            AS place
    FROM rates a JOIN rates b ON b.component = a.component AND b.behaviour = a.behaviour AND b.domain > a.domain
    WHERE a.variance + b.variance > 0
)
, moved AS (
    SELECT *, least(1, min(raw) OVER (ORDER BY p_component DESC, component DESC ROWS UNBOUNDED PRECEDING)) AS q FROM (
        SELECT *, p_component * count(*) OVER () / row_number() OVER (ORDER BY p_component, component) AS raw FROM moves WHERE place = 1
    )
)
SELECT l.component, coalesce(l.unlike AND r.q < 0.05, false) AS differs, l.domains, l.behaviours, r.behaviour, r.domain_a, r.domain_b
    , r.coverage_a, r.scrambled_a, r.coverage_b, r.scrambled_b, r.coverage_a - r.scrambled_a - r.coverage_b + r.scrambled_b AS difference
    , r.ratio_a, r.ratio_b, exp(r.log_times) AS times
    , exp(r.log_times - t975(r.welch) * r.se) AS times_lo, exp(r.log_times + t975(r.welch) * r.se) AS times_hi
    , coalesce(r.tests, 0) AS tests, r.p_component AS p, r.q
    , m.behaviour AS attends, m.domain_a AS attends_domain_a, m.rate_a, m.domain_b AS attends_domain_b, m.rate_b, m.q AS attends_q
FROM largest l LEFT JOIN decided r USING (component) LEFT JOIN moved m USING (component)
WHERE r.component IS NOT NULL OR m.component IS NOT NULL
ORDER BY r.p_component NULLS LAST, m.p_component, l.component;
