-- Title:      Components by a token
-- Question:   which components matter most at a token, and which write most toward it?
-- Grain:      one row per component and way
-- Key:        way, component
-- Parameters: token (required), least (default 5), top (default 20)
-- Reads:      token_sums, token_counts, tokens, components, power_sums, classes, logit_effects
-- Reference:  nostalgebraist 2020, the logit lens, for what a neuron's output weights write
-- Caveat:     way `at`: mean |DLA| at positions of the token over mean |DLA| at all ordinary
--             positions (lift; 1 for a component that does not look), of components that have sums
--             by token (heads, and those of --components; all where a run has --token-sums all), at
--             `least` positions or more. The token's positions may lie in few documents: there is
--             no interval. way `toward`: logits that a neuron's activation of 1 adds to the token,
--             of those among whose most boosted tokens it is, from the weights at the corpus's mean
--             final norm. Blanks count: ' Paris' is another token than 'Paris'. top 0 shows all.
SET VARIABLE token = required(getvariable('token'), 'token', ' the');
SET VARIABLE least = coalesce(getvariable('least')::BIGINT, 5);
SET VARIABLE top = coalesce(getvariable('top')::BIGINT, 20);
WITH asked AS (
    SELECT token_id FROM tokens WHERE token = getvariable('token')
)
, all_positions AS (
    SELECT power_sums.component_id, sum(power_sums.d_abs) / sum(power_sums.n) AS mean_abs_dla
    FROM power_sums
    JOIN classes ON classes.class_id = power_sums.class_id AND NOT classes.special
    GROUP BY power_sums.component_id
)
-- Positions of the token where the component is present: of an expert, those where it was chosen.
, at_token AS (
    SELECT token_sums.component_id, sum(token_counts.n) AS n
        , sum(token_sums.sum_activation) / sum(token_counts.n) AS activation
        , sum(token_sums.sum_abs_dla) / sum(token_counts.n) AS abs_dla
    FROM token_sums
    JOIN asked USING (token_id)
    JOIN components USING (component_id)
    JOIN token_counts
        ON token_counts.token_id = token_sums.token_id
            AND token_counts.presence = components.presence
    GROUP BY token_sums.component_id
)
-- `at` is read off the text, `toward` off the weights; each is ranked by itself.
, ways AS (
    SELECT 'at' AS way, at_token.component_id
        , at_token.abs_dla / nullif(all_positions.mean_abs_dla, 0) AS lift, at_token.abs_dla
        , at_token.activation, NULL AS effect, at_token.n
    FROM at_token JOIN all_positions USING (component_id)
    WHERE at_token.n >= getvariable('least')
    UNION ALL
    SELECT 'toward', logit_effects.component_id, NULL, NULL, NULL, logit_effects.effect, NULL
    FROM logit_effects JOIN asked USING (token_id)
    WHERE logit_effects.effect > 0
)
, ranked AS (
    SELECT ways.way, components.component, components.kind, ways.lift, ways.abs_dla
        , ways.activation, ways.effect, ways.n
        , row_number() OVER (
            PARTITION BY ways.way
            ORDER BY coalesce(ways.lift, ways.effect) DESC, components.component_id
        ) AS ordinal
    FROM ways JOIN components USING (component_id)
    WHERE components.unit IS NOT NULL
)
SELECT way, component, kind, lift, abs_dla, activation, effect, n::BIGINT AS n
FROM ranked WHERE getvariable('top') = 0 OR ordinal <= getvariable('top')
ORDER BY way, ordinal;
