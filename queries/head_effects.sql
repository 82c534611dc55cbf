-- Title:      Where a head looks, and what it does to the token there
-- Question:   when the head shows each attention behaviour, does it copy the attended token, suppress it, or neither?
-- Grain:      one row per attention behaviour and effect
-- Key:        behaviour, effect
-- Parameters: component (required)
-- Reads:      behaviour_rows
-- Reference:  copying and suppression by the sign of the head's DLA to the token it attends to most: McDougall et al.
--             2023, Copy Suppression; delete-a-group jackknife over documents, interval on the logit scale
-- Caveat:     effect is of the head's whole write on the most attended token, against the threshold of 0.1 logits stated in
--             table behaviours. share is of the |DLA| at positions where the behaviour holds; coverage is of all |DLA|
--             of the head. Behaviours overlap, effects do not. A behaviour that never holds has no rows.
SET VARIABLE component = coalesce(getvariable('component')::VARCHAR, error('set the component first: SET VARIABLE component = ''L0H0'';'));
WITH rows AS (
    SELECT * FROM behaviour_rows WHERE component = getvariable('component') AND family IN ('attention', 'effect') AND holds
)
, crossed AS (
    SELECT a.behaviour, e.behaviour AS effect, a.group_id, a.doc_id, a.weight * abs(a.dla)::DOUBLE AS m
    FROM rows a JOIN rows e USING (position_id) WHERE a.family = 'attention' AND e.family = 'effect'
)
, total AS (
    SELECT sum(weight * abs(dla)::DOUBLE) AS m FROM behaviour_rows
    WHERE component = getvariable('component') AND behaviour = 'neither' AND holds IS NOT NULL
)
, groups AS (
    SELECT behaviour, group_id, sum(m) AS m_g FROM crossed GROUP BY behaviour, group_id
)
, whole AS (
    SELECT behaviour, sum(m) AS m, sum(m) ** 2 / nullif(sum(m ** 2), 0) AS documents
    FROM (SELECT behaviour, doc_id, sum(m) AS m FROM crossed GROUP BY behaviour, doc_id) GROUP BY behaviour
)
, cells AS (
    SELECT behaviour, effect, group_id, sum(m) AS c_g, count(*) AS n_g FROM crossed GROUP BY behaviour, effect, group_id
)
, sums AS (
    SELECT behaviour, effect, sum(c_g) AS c, sum(n_g) AS n FROM cells GROUP BY behaviour, effect
)
, ratios AS (
    SELECT {'behaviour': s.behaviour, 'effect': s.effect} AS key, g.group_id, coalesce(x.c_g, 0) AS above, g.m_g AS below
    FROM sums s
    JOIN groups g ON g.behaviour = s.behaviour
    LEFT JOIN cells x ON x.behaviour = s.behaviour AND x.effect = s.effect AND x.group_id = g.group_id
)
, errors AS (
    SELECT s.behaviour, s.effect, s.c, s.n, w.m, w.documents, e.se, e.t
    FROM jackknife_ratios('ratios') e
    JOIN sums s ON s.behaviour = e.key.behaviour AND s.effect = e.key.effect
    JOIN whole w ON w.behaviour = s.behaviour
    WHERE w.m > 0
)
SELECT e.behaviour, e.effect, e.n::BIGINT AS n, e.c / e.m AS share
    , CASE WHEN e.se IS NOT NULL THEN share_lo(e.c / e.m, e.se, e.t, e.documents) END AS share_lo
    , CASE WHEN e.se IS NOT NULL THEN share_hi(e.c / e.m, e.se, e.t, e.documents) END AS share_hi
    , e.c / t.m AS coverage
FROM errors e CROSS JOIN total t
ORDER BY round(e.m, 9) DESC, e.behaviour, round(e.c, 9) DESC, e.effect;
