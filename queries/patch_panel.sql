-- Title:      The metric panel of patches
-- Question:   what did a patch do to the answer, by every metric?
-- Grain:      one row per component, positions, direction and value
-- Key:        component, positions, direction, value
-- Parameters: experiment (default ''), top (default 40)
-- Reads:      patches, patch_shares, latest_experiment
-- Reference:  circuits are not one number: Zhang and Nanda 2024, section 4
-- Caveat:     means over pairs at the answer's position. disagree is true where log probability and logit difference
--             moved in opposite directions from the median patch: the denominator moved, not the answer. top 0 shows
--             all. experiment empty takes the one written last.
SET VARIABLE experiment = coalesce(getvariable('experiment')::VARCHAR, '');
SET VARIABLE top = coalesce(getvariable('top')::BIGINT, 40);
WITH middle AS (
    -- what patches that do nothing leave: the median over all patches of one direction
    SELECT direction, median(log_prob) AS log_prob, median(logit_diff) AS logit_diff FROM patches WHERE experiment = coalesce(nullif(getvariable('experiment'), ''), (SELECT experiment FROM latest_experiment)) GROUP BY direction
)
SELECT p.component, p.component_kind, p.layer, p.positions, p.direction, p.value, p.n, s.share, p.effect, p.logit_diff, p.answer_logit
    , p.distractor_logit, s.fix, s."break", p.log_prob, p.prob, p."rank", p.top1, p.entropy, p.kl_from_reference, p.kl_to_reference, p.js
    , (p.log_prob - m.log_prob) * (p.logit_diff - m.logit_diff) < 0 AS disagree
FROM patches p
JOIN patch_shares s USING (experiment, component, component_kind, positions, direction, value, pair_set)
JOIN middle m ON m.direction = p.direction
WHERE experiment = coalesce(nullif(getvariable('experiment'), ''), (SELECT experiment FROM latest_experiment))
ORDER BY abs(s.share) DESC, p.component, p.positions, p.direction, p.value
LIMIT CASE WHEN getvariable('top') > 0 THEN getvariable('top') END;
