-- Title:      The metric panel of patches
-- Question:   what did a patch do to the answer, by every metric?
-- Grain:      one row per component, positions, direction and value
-- Key:        component, positions, direction, value
-- Parameters: experiment (default ''), top (default 40)
-- Reads:      patches, patch_shares, patch_experiments, latest_experiment
-- Reference:  circuits are not one number: Zhang and Nanda 2024, section 4
-- Caveat:     means over pairs at the answer's position. share and effect are of the metric
--             measured_by. disagree is true where log probability and
--             logit difference moved in opposite directions from the median patch: the denominator
--             moved, not the answer. top 0 shows all. experiment empty takes the one written last.
SET VARIABLE experiment = coalesce(getvariable('experiment')::VARCHAR, '');
SET VARIABLE top = coalesce(getvariable('top')::BIGINT, 40);
WITH middle AS (
    -- what patches that do nothing leave: the median over all patches of one direction
    SELECT direction, median(log_prob) AS log_prob, median(logit_diff) AS logit_diff
    FROM patches
    WHERE experiment = chosen_experiment(getvariable('experiment'))
    GROUP BY direction
)
SELECT patches.component, patches.component_kind, patches.layer, patches.positions
    , patches.direction, patches.value, patches.n, patch_shares.share, patches.effect
    , patches.logit_diff, patches.answer_logit
    , patches.distractor_logit, patch_shares.fix, patch_shares."break", patches.log_prob
    , patches.prob, patches."rank", patches.top1, patches.entropy, patches.kl_from_reference
    , patches.kl_to_reference, patches.js
    , (patches.log_prob - middle.log_prob) * (patches.logit_diff - middle.logit_diff)
        < 0 AS disagree
    , patch_experiments.selected_by AS measured_by
FROM patches
JOIN patch_shares USING (experiment, component, component_kind, positions, direction, value
    , pair_set)
JOIN middle ON middle.direction = patches.direction
JOIN patch_experiments USING (experiment)
WHERE experiment = chosen_experiment(getvariable('experiment'))
ORDER BY abs(patch_shares.share) DESC, patches.component, patches.positions, patches.direction
    , patches.value
LIMIT CASE WHEN getvariable('top') > 0 THEN getvariable('top') END;
