-- Title:      Two runs: which components do something else
-- Question:   which components care for a behaviour in one run more than in the other, beyond chance and beyond what the text does?
-- Grain:      one row per component and behaviour
-- Key:        component, behaviour
-- Parameters: kind (default 'head'), family (default 'auto'), top (default 100)
-- Reads:      behaviour_rows, importance, jackknife_groups, other.behaviour_rows, other.jackknife_groups
-- Reference:  difference of the log importance ratio (macro log_ratio: mean |DLA| where the behaviour holds over mean |DLA| elsewhere, domains held
--             apart) over its own delete-a-group jackknife error, t with Welch's degrees of freedom; Benjamini and Hochberg 1995
-- Caveat:     the second run is attached as other: ATTACH 'b.duckdb' AS other (READ_ONLY) in a shell, `profiler compare a b` here.
--             Runs of other tokenizers or shapes have no component in common: `profiler compare` refuses them, this file cannot.
--             Coverage differs wherever the text does, so it is not what is tested: the ratio takes out how often the behaviour holds. A head that
--             attends somewhere more often, and matters no more there than elsewhere, is no difference here. scrambled: the claim permuted
--             among the positions of each domain. difference is of coverage above scrambled, second run less first; times is ratio_b / ratio_a with
--             its 95 % interval. p and q are NULL, last, where fewer than 10 effective documents of a run have such a position, or one
--             without. Documents that are in both runs make the errors depend on each other. largest_a and largest_b name the behaviour
--             farthest above scrambled in each run; differs: they are not the same, and q is below 0.05 for one of the two.
--             Behaviours overlap: of a component that cares for one, the ratios of others that overlap with it change with the text.
--             top is the most important components of the first run, 0 all; family as in behaviours.
SET VARIABLE kind = coalesce(getvariable('kind')::VARCHAR, 'head');
SET VARIABLE family = coalesce(getvariable('family')::VARCHAR, 'auto');
SET VARIABLE top = coalesce(getvariable('top')::BIGINT, 100);
SET VARIABLE chosen = (
    SELECT list(component) FROM (
        SELECT component, row_number() OVER (ORDER BY sum_abs_dla DESC, component_id) AS place FROM importance WHERE kind = getvariable('kind')
    ) WHERE getvariable('top') = 0 OR place <= getvariable('top')
);
WITH rows AS (
    SELECT 'a' AS run, component, behaviour, kind, family, group_id, doc_id, weight, weight * abs(dla)::DOUBLE AS m, holds FROM behaviour_rows
    UNION ALL
    SELECT 'b', component, behaviour, kind, family, group_id, doc_id, weight, weight * abs(dla)::DOUBLE, holds FROM other.behaviour_rows
)
, by_document AS (
    SELECT run, component, behaviour, group_id, doc_id, sum(weight) AS w, coalesce(sum(weight) FILTER (holds), 0) AS v, sum(m) AS m
        , coalesce(sum(m) FILTER (holds), 0) AS h
    FROM rows WHERE list_contains(getvariable('chosen'), component) AND holds IS NOT NULL
        AND (getvariable('family') IN ('', family) OR getvariable('family') = 'auto'
            AND (family = 'user' OR CASE kind WHEN 'head' THEN family = 'attention' ELSE family IN ('token', 'context') END))
    GROUP BY run, component, behaviour, group_id, doc_id
)
, by_group AS (
    SELECT run, component, behaviour, group_id, sum(w) AS w_g, sum(v) AS v_g, sum(m) AS m_g, sum(h) AS h_g, sum(m ** 2) AS m2_g
        , sum(v ** 2) AS v2_g, sum((w - v) ** 2) AS u2_g
    FROM by_document GROUP BY run, component, behaviour, group_id
)
, cells AS (
    -- every claim in every group of its run, whether it has a row there or not
    SELECT k.run, k.component, k.behaviour, g.domain_id, g.groups, g.part, coalesce(w_g, 0) AS w_g, coalesce(v_g, 0) AS v_g, coalesce(m_g, 0) AS m_g
        , coalesce(h_g, 0) AS h_g, coalesce(m2_g, 0) AS m2_g, coalesce(v2_g, 0) AS v2_g, coalesce(u2_g, 0) AS u2_g
    FROM (SELECT DISTINCT run, component, behaviour FROM by_group) k
    JOIN (SELECT 'a' AS run, * FROM jackknife_groups UNION ALL SELECT 'b', * FROM other.jackknife_groups) g USING (run)
    LEFT JOIN by_group b ON b.run = k.run AND b.component = k.component AND b.behaviour = k.behaviour AND b.group_id = g.group_id
)
, domains AS (
    SELECT *, sum(w_g) OVER here AS w_d, sum(v_g) OVER here AS v_d, sum(m_g) OVER here AS m_d, sum(h_g) OVER here AS h_d
        , coalesce(held_part(h_d, v_d, w_d), 0) AS a_d, coalesce(rest_part(m_d, h_d, v_d, w_d), 0) AS b_d
        , coalesce(held_part(h_d - h_g, v_d - v_g, w_d - w_g), 0) / (1 - part) AS a_left
        , coalesce(rest_part(m_d - m_g, h_d - h_g, v_d - v_g, w_d - w_g), 0) / (1 - part) AS b_left
    FROM cells WINDOW here AS (PARTITION BY run, component, behaviour, domain_id)
)
, whole AS (
    -- a domain's sums stand in each of its groups: divided by their number before they are added
    SELECT run, component, behaviour, domain_id, groups, a_d, b_d, a_left, b_left, sum(w_g) OVER cell AS w, sum(v_g) OVER cell AS v
        , sum(m_g) OVER cell AS m, sum(h_g) OVER cell AS h, without(m, m_d, m_g, part) AS m_rest, without(h, h_d, h_g, part) AS h_rest
        , sum(a_d / groups) OVER cell AS a, sum(b_d / groups) OVER cell AS b, m ** 2 / nullif(sum(m2_g) OVER cell, 0) AS documents
        , sum(m_d * coalesce(v_d / nullif(w_d, 0), 0) / groups) OVER cell AS scrambled
        , sum(m_d * coalesce(v_d / nullif(w_d, 0) * (1 - v_d / nullif(w_d, 0)), 0) / groups) OVER cell AS unlike
        , least(v ** 2 / nullif(sum(v2_g) OVER cell, 0), (w - v) ** 2 / nullif(sum(u2_g) OVER cell, 0)) AS fewest
    FROM domains WINDOW cell AS (PARTITION BY run, component, behaviour)
)
, left_out AS (
    SELECT run, component, behaviour, domain_id, groups, h / m AS coverage, scrambled / m AS scrambled, a / nullif(b, 0) AS ratio, documents
        , v > 0 AND v < w AND fewest >= 10 AS testable, 0.5 * unlike / m / documents AS prior
        , CASE WHEN m_rest > 1e-12 * m THEN h_rest / m_rest - coverage END AS coverage_change
        , log_ratio(a / m, b / m, prior) AS log_ratio
        , CASE WHEN m_rest > 1e-12 * m
            THEN log_ratio(greatest(0, a - a_d + a_left) / m_rest, greatest(0, b - b_d + b_left) / m_rest, prior) - log_ratio END AS change
    FROM whole WHERE m > 0
)
, by_domain AS (
    SELECT run, component, behaviour, groups, coverage, scrambled, ratio, documents, testable, log_ratio
        , domain_variance(coverage_change, groups) AS coverage_v, domain_variance(change, groups) AS v
    FROM left_out GROUP BY run, component, behaviour, domain_id, groups, coverage, scrambled, ratio, documents, testable, log_ratio
)
, claims AS (
    -- a ratio that is 0 or infinite in all groups has no spread of its own: a factor of e
    SELECT run, component, behaviour, coverage, scrambled, ratio, log_ratio, testable, jackknife_se(coverage_v) AS se
        , t975(jackknife_df(coverage_v, groups)) AS t, jackknife_df(v, groups) AS df
        , CASE WHEN coverage <= 1e-12 OR coverage >= 1 - 1e-12 THEN 1 ELSE 0 END AS least_v, jackknife_se(v) ** 2 AS own_v
        , CASE WHEN own_v IS NOT NULL THEN greatest(least_v, own_v) END AS variance
        , CASE WHEN se IS NOT NULL THEN share_lo(coverage, se, t, documents) END AS coverage_lo
        , CASE WHEN se IS NOT NULL THEN share_hi(coverage, se, t, documents) END AS coverage_hi
    FROM by_domain GROUP BY run, component, behaviour, coverage, scrambled, ratio, documents, testable, log_ratio
)
, largest AS (
    SELECT run, component, first(behaviour ORDER BY round(coverage - scrambled, 9) DESC, behaviour) AS largest FROM claims GROUP BY run, component
)
, tested AS (
    SELECT a.component, a.behaviour, a.coverage AS coverage_a, a.coverage_lo AS coverage_a_lo, a.coverage_hi AS coverage_a_hi
        , a.scrambled AS scrambled_a, b.coverage AS coverage_b, b.coverage_lo AS coverage_b_lo, b.coverage_hi AS coverage_b_hi
        , b.scrambled AS scrambled_b, b.coverage - b.scrambled - a.coverage + a.scrambled AS difference, a.ratio AS ratio_a, b.ratio AS ratio_b
        , b.log_ratio - a.log_ratio AS log_times, sqrt(a.variance + b.variance) AS spread, welch_df(a.variance, a.df, b.variance, b.df) AS welch
        , CASE WHEN a.testable AND b.testable AND spread > 0 THEN least(1, t_p(abs(log_times) / spread, welch)) END AS p
    FROM claims a JOIN claims b ON b.component = a.component AND b.behaviour = a.behaviour AND b.run = 'b'
    WHERE a.run = 'a'
)
, ranked AS (
    SELECT *, p * count(p) OVER () / row_number() OVER (ORDER BY p NULLS LAST, component, behaviour) AS raw FROM tested
)
, decided AS (
    SELECT *, CASE WHEN p IS NOT NULL
        THEN least(1, min(raw) OVER (ORDER BY p DESC NULLS FIRST, component DESC, behaviour DESC ROWS UNBOUNDED PRECEDING)) END AS q
    FROM ranked
)
SELECT r.component, r.behaviour, r.coverage_a, r.coverage_a_lo, r.coverage_a_hi, r.scrambled_a
    , r.coverage_b, r.coverage_b_lo, r.coverage_b_hi, r.scrambled_b, r.difference, r.ratio_a, r.ratio_b
    , exp(r.log_times) AS times, exp(r.log_times - t975(r.welch) * r.spread) AS times_lo, exp(r.log_times + t975(r.welch) * r.spread) AS times_hi
    , r.p, r.q, la.largest AS largest_a, lb.largest AS largest_b
    , la.largest <> lb.largest
        AND coalesce(bool_or(r.q < 0.05 AND r.behaviour IN (la.largest, lb.largest)) OVER (PARTITION BY r.component), false) AS differs
FROM decided r
JOIN largest la ON la.component = r.component AND la.run = 'a'
JOIN largest lb ON lb.component = r.component AND lb.run = 'b'
ORDER BY r.p NULLS LAST, r.component, r.behaviour;
