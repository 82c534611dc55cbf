-- Title:      Component overview
-- Question:   which heads and neurons matter on this corpus, and for which token class?
-- Grain:      one row per head or neuron
-- Key:        component
-- Parameters: kind (default ''), top (default 100)
-- Reads:      cell_sums, group_counts, presence_counts, jackknife_groups, components, classes,
--             power_sums
-- Reference:  importance is mean |DLA|; delete-a-group jackknife over documents: Wolter,
--             Introduction to Variance Estimation, chapter 4
-- Caveat:     |DLA| sees only what a component writes directly to the next token's logit:
--             a component that works through later layers looks unimportant. share_abs_dla is of
--             the sum over all heads and neurons, whatever kind shows; such sums do not cancel, so
--             shares say nothing about the net effect. top_class_share says something of the
--             component only beside top_class_base, that class's share of all positions. Of an
--             expert's neuron n counts the positions where its expert was chosen, and means are
--             over these; its share_abs_dla, which rows are ordered by, is of all positions. kind
--             is head, neuron, feature ...; empty: the model's own; all: units of dictionaries too,
--             whose shares are of the same sum, which they are no part of. top 0 shows all.
SET VARIABLE kind = coalesce(getvariable('kind')::VARCHAR, '');
SET VARIABLE top = coalesce(getvariable('top')::BIGINT, 100);
WITH sizes AS (
    -- ordinary positions of each replicate group
    SELECT group_id, sum(n) AS group_n FROM group_counts WHERE axis = 'class' GROUP BY group_id
)
, present AS (
    -- those where a component is present: all of them, but for experts
    SELECT presence, group_id, sum(n) AS present_n FROM presence_counts WHERE axis = 'class'
    GROUP BY presence, group_id
)
, present_totals AS (
    SELECT presence, sum(present_n) AS n FROM present GROUP BY presence
)
, sums AS (
    -- sums of each component in each group: 0 in a group where an expert was not chosen
    SELECT component_id, presence, group_id
        , sum(sum_activation) AS group_activation, sum(sum_dla) AS group_dla
        , sum(sum_abs_dla) AS group_abs_dla
    FROM (
        SELECT cell_sums.component_id, components.presence, cell_sums.group_id
            , cell_sums.sum_activation, cell_sums.sum_dla, cell_sums.sum_abs_dla
        FROM cell_sums
        JOIN components USING (component_id)
        JOIN classes ON classes.class_id = cell_sums.value_id AND NOT classes.special
        WHERE cell_sums.axis = 'class' AND components.unit IS NOT NULL
        UNION ALL
        SELECT components.component_id, components.presence, sizes.group_id, 0, 0, 0
        FROM components JOIN sizes ON components.presence > 0
    )
    GROUP BY component_id, presence, group_id
)
, everything AS (
    -- units of dictionaries describe again what is in it
    SELECT sums.group_id
        , sum_where(sums.group_abs_dla, NOT described(components.kind)) AS group_all
    FROM sums
    JOIN components USING (component_id)
    GROUP BY sums.group_id
)
, whole AS (
    SELECT sums.component_id, present_totals.n, sum(sums.group_activation) AS sum_activation
        , sum(sums.group_dla) AS sum_dla, sum(sums.group_abs_dla) AS sum_abs_dla
    FROM sums
    JOIN present_totals USING (presence)
    GROUP BY sums.component_id, present_totals.n
)
, totals AS (
    SELECT sum(group_all) AS all_abs_dla FROM everything
)
, rests AS (
    -- positions of each presence and all |DLA| when a group is left out
    SELECT present_totals.presence, jackknife_groups.*
        , without(present_totals.n, sum(coalesce(present_n, 0)) OVER in_domain
            , coalesce(present_n, 0), part) AS n_rest
        , without(totals.all_abs_dla, sum(group_all) OVER in_domain, group_all
            , part) AS all_rest
    FROM jackknife_groups
    JOIN everything USING (group_id)
    CROSS JOIN totals
    CROSS JOIN present_totals
    LEFT JOIN present
        ON present.presence = present_totals.presence
            AND present.group_id = jackknife_groups.group_id
    WINDOW in_domain AS (PARTITION BY present_totals.presence, domain_id)
)
, left_out AS (
    SELECT sums.component_id, rests.domain_id, rests.groups, nullif(rests.n_rest, 0) AS n_rest
        , nullif(rests.all_rest, 0) AS all_rest, whole.n, whole.sum_activation, whole.sum_dla
        , whole.sum_abs_dla
        , without(whole.sum_activation, sum(sums.group_activation) OVER in_domain
            , sums.group_activation, rests.part) AS activation_rest
        , without(whole.sum_dla, sum(sums.group_dla) OVER in_domain, sums.group_dla
            , rests.part) AS dla_rest
        , without(whole.sum_abs_dla, sum(sums.group_abs_dla) OVER in_domain, sums.group_abs_dla
            , rests.part) AS abs_dla_rest
    FROM sums
    JOIN whole USING (component_id)
    JOIN rests ON rests.presence = sums.presence AND rests.group_id = sums.group_id
    WINDOW in_domain AS (PARTITION BY sums.component_id, rests.domain_id)
)
, by_domain AS (
    -- what each domain adds to the variance of the four estimates
    SELECT component_id, groups
        , domain_variance(activation_rest / n_rest - sum_activation / n
            , groups) AS activation_variance
        , domain_variance(dla_rest / n_rest - sum_dla / n, groups) AS dla_variance
        , domain_variance(abs_dla_rest / n_rest - sum_abs_dla / n
            , groups) AS abs_dla_variance
        , domain_variance(abs_dla_rest / all_rest - sum_abs_dla / nullif(totals.all_abs_dla, 0)
            , groups) AS share_variance
    FROM left_out CROSS JOIN totals GROUP BY component_id, domain_id, groups
)
, errors AS (
    SELECT component_id, jackknife_se(activation_variance) AS activation_se
        , t975(jackknife_df(activation_variance, groups)) * activation_se AS activation_half
        , jackknife_se(dla_variance) AS dla_se
        , t975(jackknife_df(dla_variance, groups)) * dla_se AS dla_half
        , jackknife_se(abs_dla_variance) AS abs_dla_se
        , t975(jackknife_df(abs_dla_variance, groups)) * abs_dla_se AS abs_dla_half
        , jackknife_se(share_variance) AS share_abs_dla_se
        , t975(jackknife_df(share_variance, groups)) * share_abs_dla_se AS share_abs_dla_half
    FROM by_domain GROUP BY component_id
)
, by_class AS (
    SELECT cell_sums.component_id, classes.class, sum(cell_sums.sum_abs_dla) AS class_abs_dla
    FROM cell_sums
    JOIN classes ON classes.class_id = cell_sums.value_id AND NOT classes.special
    WHERE cell_sums.axis = 'class'
    GROUP BY cell_sums.component_id, classes.class
)
, top_class AS (
    -- first by name where two classes tie
    SELECT component_id, first(class ORDER BY class_abs_dla DESC, class) AS class
        , max(class_abs_dla) AS class_abs_dla
    FROM by_class GROUP BY component_id
)
, spread AS (
    -- of all classes and domains together: inside them and between their means
    SELECT component_id, sqrt(sum(a_m2 + n * (a_mean - mean) ** 2) / sum(n)) AS activation_sd
        , min(a_min) AS activation_min, max(a_max) AS activation_max
    FROM (
        SELECT power_sums.*
            , sum(power_sums.n * power_sums.a_mean) OVER in_component / sum(power_sums.n)
                OVER in_component AS mean
        FROM power_sums
        JOIN classes ON classes.class_id = power_sums.class_id AND NOT classes.special
        WINDOW in_component AS (PARTITION BY power_sums.component_id)
    )
    GROUP BY component_id
)
SELECT components.component, components.kind, components.layer, whole.n::BIGINT AS n
    , whole.sum_activation / whole.n AS activation, errors.activation_se
    , activation - errors.activation_half AS activation_lo
    , activation + errors.activation_half AS activation_hi
    , spread.activation_sd
    , whole.sum_dla / whole.n AS dla, errors.dla_se, dla - errors.dla_half AS dla_lo
    , dla + errors.dla_half AS dla_hi
    , whole.sum_abs_dla / whole.n AS abs_dla, errors.abs_dla_se
    , abs_dla - errors.abs_dla_half AS abs_dla_lo, abs_dla + errors.abs_dla_half AS abs_dla_hi
    , whole.sum_abs_dla / nullif(totals.all_abs_dla, 0) AS share_abs_dla, errors.share_abs_dla_se
    , CASE WHEN errors.share_abs_dla_half IS NOT NULL
        THEN greatest(0, share_abs_dla - errors.share_abs_dla_half) END AS share_abs_dla_lo
    , CASE WHEN errors.share_abs_dla_half IS NOT NULL
        THEN least(1, share_abs_dla + errors.share_abs_dla_half) END AS share_abs_dla_hi
    , top_class.class AS top_class
    , top_class.class_abs_dla / nullif(whole.sum_abs_dla, 0) AS top_class_share
    , class_sizes.class_n / whole.n AS top_class_base
    , spread.activation_min, spread.activation_max
FROM whole
JOIN components USING (component_id)
JOIN top_class USING (component_id)
JOIN (
    SELECT presence, value AS class, sum(n) AS class_n FROM presence_counts WHERE axis = 'class'
    GROUP BY presence, value
) AS class_sizes
    ON class_sizes.presence = components.presence AND class_sizes.class = top_class.class
JOIN spread USING (component_id)
LEFT JOIN errors USING (component_id)
CROSS JOIN totals
WHERE getvariable('kind') IN ('all', components.kind)
    OR getvariable('kind') = '' AND NOT described(components.kind)
ORDER BY whole.sum_abs_dla DESC, components.component_id
LIMIT CASE WHEN getvariable('top') > 0 THEN getvariable('top') END;
