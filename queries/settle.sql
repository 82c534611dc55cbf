-- Title:      What would settle it
-- Question:   how many examples would settle what the check leaves undecided?
-- Grain:      one row per subject, distribution and statistic
-- Key:        subject, distribution, statistic
-- Parameters: check_id (default '')
-- Reads:      check_needs, latest_check
-- Reference:  the interval's width falls as one over the root of n
-- Caveat:     if the estimate stays where it is; 10,000,000 where it lies on the bound. Only an
--             inconclusive verdict has rows. check_id empty takes the one written last.
SET VARIABLE check_id = coalesce(getvariable('check_id')::VARCHAR, '');
SELECT subject, distribution, statistic, max(n) AS n, max(needed) AS needed, any_value(unit) AS unit
FROM check_needs
WHERE check_id = chosen_check(getvariable('check_id'))
GROUP BY subject, distribution, statistic
ORDER BY needed DESC, subject, distribution, statistic;
