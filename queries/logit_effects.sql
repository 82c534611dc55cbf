-- Title:      Tokens that a neuron boosts and suppresses
-- Question:   which next tokens does the neuron's write direction raise and lower most?
-- Grain:      one row per side and rank
-- Key:        side, rank
-- Parameters: component (required)
-- Reads:      logit_effects, tokens, components
-- Reference:  nostalgebraist 2020, the logit lens, for one neuron's output weights
-- Caveat:     read from the weights at the corpus's mean final norm scale: no text is involved,
--             later layers are skipped, and tokens that never occur are ranked too. No rows for a
--             head, whose output has no fixed direction.
SET VARIABLE component = required(getvariable('component'), 'component', 'L0H0');
SELECT logit_effects.side, logit_effects."rank", tokens.token, logit_effects.effect
FROM logit_effects
JOIN components USING (component_id)
JOIN tokens USING (token_id)
WHERE components.component = getvariable('component')
ORDER BY logit_effects.side, logit_effects."rank";
