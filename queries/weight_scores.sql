-- Title:      Scores of the weights
-- Question:   do the weights alone say the same as the behaviour?
-- Grain:      one row per component and score
-- Key:        component, score
-- Parameters: check_id (default '')
-- Reads:      weight_scores, latest_check
-- Reference:  McDougall et al. 2023, section 3; Elhage et al. 2021
-- Caveat:     ignored_share is the share of terms that the score leaves out: a score that ignores
--             most is weak evidence. check_id empty takes the one written last.
SET VARIABLE check_id = coalesce(getvariable('check_id')::VARCHAR, '');
SELECT component, score, value, null_mean, null_sd, (value - null_mean) / nullif(null_sd, 0) AS z
    , "rank", ignored_share
FROM weight_scores
WHERE check_id = chosen_check(getvariable('check_id'))
ORDER BY component, score;
