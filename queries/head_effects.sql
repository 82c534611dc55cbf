-- Title:      Where a head looks, and what it does to the token there
-- Question:   when the head shows each attention behaviour, does it copy the attended token,
--             suppress it, or neither?
-- Grain:      one row per attention behaviour and effect
-- Key:        behaviour, effect
-- Parameters: component (required)
-- Reads:      behaviour_rows, jackknife_groups
-- Reference:  copying and suppression by the sign of the head's DLA to the token it attends to
--             most: McDougall et al. 2023, Copy Suppression; delete-a-group jackknife over
--             documents, interval on the logit scale
-- Caveat:     effect is of the head's whole write on the most attended token, against the threshold
--             of 0.1 logits stated in table behaviours. share is of the |DLA| at positions where
--             the behaviour holds; coverage is of all |DLA| of the head. Behaviours overlap,
--             effects do not. A behaviour that never holds has no rows.
SET VARIABLE component = required(getvariable('component'), 'component', 'L0H0');
WITH rows AS (
    SELECT *
    FROM behaviour_rows
    WHERE component = getvariable('component') AND family IN ('attention', 'effect') AND holds
)
, crossed AS (
    -- each position once for every attention behaviour and effect that hold there together
    SELECT attention.behaviour, effects.behaviour AS effect, attention.group_id, attention.doc_id
        , weighted_importance(attention.weight, attention.dla) AS importance
    FROM rows AS attention
    JOIN rows AS effects USING (position_id)
    WHERE attention.family = 'attention' AND effects.family = 'effect'
)
, total AS (
    -- an effect can be told of every row: `neither` stands for all of them
    SELECT sum(weighted_importance(weight, dla)) AS importance FROM behaviour_rows
    WHERE component = getvariable('component') AND behaviour = 'neither' AND holds IS NOT NULL
)
, groups AS (
    SELECT behaviour, group_id, sum(importance) AS group_importance
    FROM crossed
    GROUP BY behaviour, group_id
)
, whole AS (
    SELECT behaviour, sum(importance) AS importance, effective_number(importance) AS documents
    FROM (
        SELECT behaviour, doc_id, sum(importance) AS importance
        FROM crossed
        GROUP BY behaviour, doc_id
    )
    GROUP BY behaviour
)
, cells AS (
    SELECT behaviour, effect, group_id, sum(importance) AS group_cell_importance
        , count(*) AS group_n
    FROM crossed
    GROUP BY behaviour, effect, group_id
)
, sums AS (
    SELECT behaviour, effect, sum(group_cell_importance) AS cell_importance, sum(group_n) AS n
    FROM cells
    GROUP BY behaviour, effect
)
, ratios AS (
    SELECT {'behaviour': sums.behaviour, 'effect': sums.effect} AS key, groups.group_id
        , coalesce(cells.group_cell_importance, 0) AS above, groups.group_importance AS below
    FROM sums
    JOIN groups ON groups.behaviour = sums.behaviour
    LEFT JOIN cells
        ON cells.behaviour = sums.behaviour AND cells.effect = sums.effect
            AND cells.group_id = groups.group_id
)
, errors AS (
    SELECT sums.behaviour, sums.effect, sums.cell_importance, sums.n, whole.importance
        , whole.documents, jackknifed.se, jackknifed.t
    FROM jackknife_ratios('ratios') AS jackknifed
    JOIN sums ON sums.behaviour = jackknifed.key.behaviour AND sums.effect = jackknifed.key.effect
    JOIN whole ON whole.behaviour = sums.behaviour
    WHERE whole.importance > 0
)
SELECT errors.behaviour, errors.effect, errors.n::BIGINT AS n
    , errors.cell_importance / errors.importance AS share
    , share_lo(errors.cell_importance / errors.importance, errors.se, errors.t
        , errors.documents) AS share_lo
    , share_hi(errors.cell_importance / errors.importance, errors.se, errors.t
        , errors.documents) AS share_hi
    , errors.cell_importance / total.importance AS coverage
FROM errors CROSS JOIN total
ORDER BY round(errors.importance, 9) DESC, errors.behaviour, round(errors.cell_importance, 9) DESC
    , errors.effect;
