-- Title:      Rank of a component
-- Question:   how much of all importance is this head's or neuron's, and how many matter more?
-- Grain:      one row; none for an embedding or bias
-- Key:        component
-- Parameters: component (required)
-- Reads:      importance, group_sums, presence_counts, components, group_importance,
--             jackknife_groups
-- Reference:  importance is mean |DLA|; delete-a-group jackknife over documents: Wolter,
--             Introduction to Variance Estimation, chapter 4
-- Caveat:     the same numbers as component_overview has of all, for one, without adding up all.
--             rank counts from 1; components that tie are ordered by layer. |DLA| sees only what is
--             written directly to the next token's logit. Of an expert's neuron n counts the
--             positions where its expert was chosen, and abs_dla is the mean over these; the share
--             is of all positions. A unit of a dictionary is ranked among these; its share is of
--             what all heads and neurons write, which it describes again.
SET VARIABLE component = required(getvariable('component'), 'component', 'L0H0');
WITH ranked AS (
    SELECT component, kind, layer, sum_abs_dla AS abs_dla_sum
        , row_number() OVER (
            PARTITION BY described(kind) ORDER BY sum_abs_dla DESC, component_id
        ) AS rank
        , count(*) OVER (PARTITION BY described(kind)) AS n_components
    FROM importance
)
, own AS (
    SELECT group_id, sum(sum_abs_dla) AS group_abs_dla FROM group_sums
    WHERE component = getvariable('component') AND axis = 'class' GROUP BY group_id
)
-- A group in which the component wrote nothing still counts, as 0 of what all wrote there.
, shares AS (
    SELECT getvariable('component') AS key, group_id, coalesce(group_abs_dla, 0) AS above
        , group_importance.sum_abs_dla AS below
    FROM group_importance
    LEFT JOIN own USING (group_id)
)
SELECT ranked.component, ranked.kind, ranked.layer, coalesce(sizes.n, 0)::BIGINT AS n
    , ranked.abs_dla_sum / nullif(sizes.n, 0) AS abs_dla
    , ranked.abs_dla_sum / nullif(everything.all_abs_dla, 0) AS share_abs_dla
    , errors.se AS share_abs_dla_se
    , CASE WHEN errors.se IS NOT NULL
        THEN greatest(0, share_abs_dla - errors.t * errors.se) END AS share_abs_dla_lo
    , CASE WHEN errors.se IS NOT NULL
        THEN least(1, share_abs_dla + errors.t * errors.se) END AS share_abs_dla_hi
    , ranked.rank, ranked.n_components
FROM ranked
JOIN components USING (component)
LEFT JOIN (
    SELECT presence, sum(n) AS n FROM presence_counts WHERE axis = 'class' GROUP BY presence
) AS sizes USING (presence)
CROSS JOIN (SELECT sum(sum_abs_dla) AS all_abs_dla FROM group_importance) AS everything
LEFT JOIN jackknife_ratios('shares') AS errors ON errors.key = ranked.component
WHERE ranked.component = getvariable('component')
ORDER BY ranked.rank;
