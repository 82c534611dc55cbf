-- Title:      Mixture of behaviours
-- Question:   how does the component's importance divide among behaviours, and how much is left unexplained?
-- Grain:      one row per slice (all, each domain, each band of activation) and behaviour; unexplained is one of them
-- Key:        slice, value, behaviour
-- Parameters: component (required), behaviours (default ''), rule (default 'priority'), min_lift (default 2.0)
-- Reads:      behaviour_marks, behaviours, component_facts
-- Reference:  delete-a-group jackknife over documents, interval on the logit scale; an explicit unexplained share:
--             design rule of evidence 6
-- Caveat:     shares of the sum of |DLA|; in a slice they add up to 1. Overlaps: rule priority gives a position to the behaviour
--             of the smallest priority that holds there (table behaviours), rule equal divides it among all that hold.
--             behaviours is a list separated by commas, in the order of their priority; '' takes the attention behaviours of a
--             head and the token and context behaviours of a neuron, with the user's own; of token and context behaviours only those
--             with coverage of at least min_lift times their rate among all positions, chosen on the same rows: a
--             choice to confirm on another run. A band is named by the quantile that it begins at; share_n is the share of positions
--             that are really in the slice, and quantiles that ties leave no level near to are no bands. scrambled: the share that the
--             behaviour would have were its places permuted among the positions of each domain: compare slices by share above it.
SET VARIABLE component = coalesce(getvariable('component')::VARCHAR, error('set the component first: SET VARIABLE component = ''L0H0'';'));
SET VARIABLE behaviours = coalesce(getvariable('behaviours')::VARCHAR, '');
SET VARIABLE rule = coalesce(getvariable('rule')::VARCHAR, 'priority');
SET VARIABLE min_lift = coalesce(getvariable('min_lift')::DOUBLE, 2.0);
WITH asked AS (
    SELECT behaviour, priority FROM behaviours WHERE getvariable('behaviours') = '' AND priority IS NOT NULL
    UNION ALL
    SELECT trim(b.name), b.place FROM (
        SELECT unnest(string_split(getvariable('behaviours'), ',')) AS name
            , generate_subscripts(string_split(getvariable('behaviours'), ','), 1) AS place
    ) b WHERE getvariable('behaviours') <> ''
)
, facts AS MATERIALIZED (
    SELECT position_id, group_id, doc_id, domain, band, weight, weight * abs(dla)::DOUBLE AS m FROM component_facts
    WHERE component = getvariable('component')
)
, total AS (
    SELECT sum(weight) AS w, sum(m) AS m FROM facts
)
, marks AS MATERIALIZED (
    SELECT position_id, behaviour, family, kind, weight AS w, weight * abs(dla)::DOUBLE AS m, holds FROM behaviour_marks
    WHERE component = getvariable('component') AND behaviour IN (SELECT behaviour FROM asked)
)
, taking_part AS (
    SELECT behaviour FROM marks GROUP BY behaviour, family, kind
    HAVING getvariable('behaviours') <> '' OR family IN ('attention', 'user') OR kind = 'neuron'
        AND sum(m) FILTER (holds) / nullif((SELECT m FROM total) - coalesce(sum(m) FILTER (holds IS NULL), 0), 0)
            >= getvariable('min_lift') * sum(w) FILTER (holds) / ((SELECT w FROM total) - coalesce(sum(w) FILTER (holds IS NULL), 0))
)
, held AS (
    SELECT position_id, behaviour, CASE WHEN getvariable('rule') = 'equal' THEN 1 / count(*) OVER here
            ELSE (row_number() OVER (here ORDER BY priority, behaviour) = 1)::INTEGER END::DOUBLE AS part
    FROM marks SEMI JOIN taking_part USING (behaviour) JOIN asked USING (behaviour)
    WHERE holds WINDOW here AS (PARTITION BY position_id)
)
, parts AS (
    SELECT position_id, behaviour, part FROM held WHERE part > 0
    UNION ALL
    SELECT f.position_id, 'unexplained', 1 FROM facts f ANTI JOIN held h USING (position_id)
)
, slices AS (
    SELECT f.*, s.slice, s.value FROM facts f CROSS JOIN LATERAL (
        SELECT unnest(['all', 'domain', 'quantile']) AS slice, unnest(['all', f.domain, format('{:g}', f.band)]) AS value
    ) s
)
, whole AS (
    SELECT slice, value, sum(m) AS m, sum(weight) AS w, count(*) AS n_slice FROM slices GROUP BY slice, value
)
, groups AS (
    SELECT slice, value, group_id, sum(m) AS m_g, sum(d_m ** 2) AS m2_g FROM (
        SELECT slice, value, group_id, doc_id, sum(m) AS m, sum(m) AS d_m FROM slices GROUP BY slice, value, group_id, doc_id
    ) GROUP BY slice, value, group_id
)
, documents AS (
    SELECT slice, value, sum(m_g) ** 2 / nullif(sum(m2_g), 0) AS documents FROM groups GROUP BY slice, value
)
, cells AS (
    SELECT slice, value, behaviour, group_id, sum(part * m) AS c_g, count(*) AS n_g
    FROM slices JOIN parts USING (position_id) GROUP BY slice, value, behaviour, group_id
)
, sums AS (
    SELECT slice, value, behaviour, sum(c_g) AS c, sum(n_g) AS n FROM cells GROUP BY slice, value, behaviour
    UNION ALL
    SELECT w.slice, w.value, 'unexplained', 0, 0 FROM whole w
    WHERE NOT EXISTS (SELECT 1 FROM cells x WHERE x.slice = w.slice AND x.value = w.value AND x.behaviour = 'unexplained')
)
, ratios AS (
    -- every behaviour in every group of a slice, whether it holds there or not
    SELECT {'slice': s.slice, 'value': s.value, 'behaviour': s.behaviour} AS key, g.group_id, coalesce(x.c_g, 0) AS above, g.m_g AS below
    FROM sums s
    JOIN groups g ON g.slice = s.slice AND g.value = s.value
    LEFT JOIN cells x ON x.slice = s.slice AND x.value = s.value AND x.behaviour = s.behaviour AND x.group_id = g.group_id
)
, rates AS (
    -- how often each behaviour is given a position of a domain, whatever the component writes there
    SELECT f.domain, p.behaviour, sum(p.part * f.weight) / any_value(d.w) AS rate
    FROM facts f JOIN parts p USING (position_id) JOIN (SELECT domain, sum(weight) AS w FROM facts GROUP BY domain) d USING (domain)
    GROUP BY f.domain, p.behaviour
)
, scrambled AS (
    SELECT s.slice, s.value, r.behaviour, sum(s.m * r.rate) AS c
    FROM (SELECT slice, value, domain, sum(m) AS m FROM slices GROUP BY slice, value, domain) s JOIN rates r USING (domain)
    GROUP BY s.slice, s.value, r.behaviour
)
, errors AS (
    SELECT s.slice, s.value, s.behaviour, s.c, s.n, w.m, w.w, w.n_slice, e.se, e.t
    FROM jackknife_ratios('ratios') e
    JOIN sums s ON s.slice = e.key.slice AND s.value = e.key.value AND s.behaviour = e.key.behaviour
    JOIN whole w ON w.slice = s.slice AND w.value = s.value
    WHERE w.m > 0
)
SELECT e.slice, e.value, e.behaviour, e.c / e.m AS share, e.se AS share_se
    , CASE WHEN e.se IS NOT NULL THEN share_lo(least(1, e.c / e.m), e.se, e.t, d.documents) END AS share_lo
    , CASE WHEN e.se IS NOT NULL THEN share_hi(least(1, e.c / e.m), e.se, e.t, d.documents) END AS share_hi
    , coalesce(x.c, 0) / e.m AS scrambled, e.n::BIGINT AS n, e.n_slice::BIGINT AS n_slice, e.w / (SELECT w FROM total) AS share_n
    , e.m / (SELECT m FROM whole WHERE slice = 'all') AS importance_share
FROM errors e
JOIN documents d ON d.slice = e.slice AND d.value = e.value
LEFT JOIN scrambled x ON x.slice = e.slice AND x.value = e.value AND x.behaviour = e.behaviour
ORDER BY e.slice, e.value, e.behaviour = 'unexplained', round(share, 9) DESC, e.behaviour;
