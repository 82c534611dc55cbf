-- Title:      Agreement of techniques
-- Question:   where two techniques judged the same claims, did they agree, and could they have
--             disagreed?
-- Grain:      one row per two techniques
-- Key:        first, second
-- Parameters: check_id (default '')
-- Reads:      check_agreement, latest_check
-- Reference:  Cohen 1960
-- Caveat:     could_disagree 0: both always say the same word, so that their agreement is no
--             evidence. check_id empty takes the one written last.
SET VARIABLE check_id = coalesce(getvariable('check_id')::VARCHAR, '');
SELECT first, second, n, agree, agree / n AS agreement, expected, could_disagree, kappa
FROM check_agreement
WHERE check_id = chosen_check(getvariable('check_id'))
ORDER BY could_disagree DESC, first, second;
