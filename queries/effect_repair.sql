-- Title:      Self-repair on the corpus
-- Question:   how much of a head's direct effect comes back when the head is removed?
-- Grain:      one row per head
-- Key:        component
-- Parameters: component (default '')
-- Reads:      effect_repair
-- Reference:  Rushing and Nanda 2024, Explorations of self-repair in language models
-- Caveat:     by ablation with the mean, at positions drawn with probability as the size of the
--             direct effect. repaired 1: all of it comes back; 0: nothing; below 0: later
--             components lose with it. by_norm is the part of it that the final norm's denominator
--             makes. No interval where all positions are of one document.
SET VARIABLE component = coalesce(getvariable('component')::VARCHAR, '');
SELECT component, layer, direct, repaired, repaired_lo, repaired_hi, by_norm, value, n
FROM effect_repair
WHERE getvariable('component') IN ('', component)
ORDER BY repaired DESC NULLS LAST, component;
