-- Title:      Sign quadrants of a gated neuron
-- Question:   when the neuron's gate is open or shut and its value above or below 0, how often is
--             that, how much does it matter, and at which tokens?
-- Grain:      one row per sign of gate and value that holds a position
-- Key:        quadrant
-- Parameters: component (required), shown (default 6)
-- Reads:      gate_sums, components, dense_rows, position_rows, tokens, jackknife_groups
-- Reference:  Elhage et al. 2022, Softmax linear units; Gurnee et al. 2024, Universal neurons;
--             delete-a-group jackknife over documents: Wolter, Introduction to Variance Estimation,
--             chapter 4
-- Caveat:     the activation is act(gate) * value, so a neuron of a gated MLP can write with either
--             sign for two reasons, and a spectrum of the activation alone does not tell them
--             apart. gate is before its nonlinearity; 0 counts as not above 0. Counts and sums are
--             exact, over all ordinary positions; tokens are those of the largest sum of |DLA| in
--             the quadrant, at the positions of the uniform sample. No rows for a component that is
--             not a gated neuron.
SET VARIABLE component = required(getvariable('component'), 'component', 'L0N0');
SET VARIABLE shown = coalesce(getvariable('shown')::BIGINT, 6);
WITH own AS MATERIALIZED (
    SELECT concat('gate ', if(gate_sums.gate, '> 0', '<= 0'), ', value '
            , if(gate_sums."value", '> 0', '<= 0')) AS quadrant
        , gate_sums.gate, gate_sums."value", gate_sums.group_id, gate_sums.n, gate_sums.sum_dla
        , gate_sums.sum_abs_dla
    FROM gate_sums JOIN components USING (component_id)
    WHERE components.component = getvariable('component')
)
, groups AS (
    SELECT group_id, sum(sum_abs_dla) AS group_abs_dla, sum(n) AS group_n FROM own GROUP BY group_id
)
, sums AS (
    SELECT {'quadrant': own.quadrant, 'of': 'importance'} AS key, groups.group_id
        , coalesce(held.sum_abs_dla, 0) AS above, groups.group_abs_dla AS below
    FROM groups
    CROSS JOIN (SELECT DISTINCT quadrant FROM own) AS own
    LEFT JOIN own AS held ON held.quadrant = own.quadrant AND held.group_id = groups.group_id
    UNION ALL
    SELECT {'quadrant': quadrant, 'of': 'dla'}, group_id, sum_dla, n FROM own
)
, ratios AS MATERIALIZED (
    SELECT key.quadrant AS quadrant, key.of AS of, ratio, se, t FROM jackknife_ratios('sums')
)
, at_tokens AS (
    SELECT dense_rows.gate > 0 AS gate, dense_rows."value" > 0 AS "value", tokens.token
        , sum(abs(dense_rows.dla)::DOUBLE) AS size, count(*) AS n
    FROM dense_rows
    JOIN components USING (component_id)
    JOIN position_rows USING (position_id)
    JOIN tokens ON tokens.token_id = position_rows.token_id
    WHERE components.component = getvariable('component') AND dense_rows.gate IS NOT NULL
    GROUP BY ALL
)
, largest AS (
    SELECT gate, "value", list(token ORDER BY size DESC, token) AS top_tokens
    FROM (
        SELECT *, row_number() OVER (
            PARTITION BY gate, "value" ORDER BY size DESC, token) AS ordinal
        FROM at_tokens
    ) WHERE ordinal <= getvariable('shown')
    GROUP BY gate, "value"
)
SELECT whole.quadrant, whole.n::BIGINT AS n, whole.n / sum(whole.n) OVER () AS share_n
    , importance.ratio AS share_abs_dla
    , greatest(0, importance.ratio - importance.t * importance.se) AS share_abs_dla_lo
    , least(1, importance.ratio + importance.t * importance.se) AS share_abs_dla_hi
    , dla.ratio AS dla, dla.ratio - dla.t * dla.se AS dla_lo, dla.ratio + dla.t * dla.se AS dla_hi
    , array_to_string([trim(token, ' ') FOR token IN largest.top_tokens], '  ') AS top_tokens
FROM (
    SELECT quadrant, gate, "value", sum(n) AS n FROM own GROUP BY quadrant, gate, "value"
) AS whole
JOIN ratios AS importance ON importance.quadrant = whole.quadrant AND importance.of = 'importance'
JOIN ratios AS dla ON dla.quadrant = whole.quadrant AND dla.of = 'dla'
LEFT JOIN largest ON largest.gate = whole.gate AND largest."value" = whole."value"
ORDER BY whole.gate DESC, whole."value" DESC;
