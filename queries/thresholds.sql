-- Title:      Thresholds of a verdict
-- Question:   which numbers decided the verdict and its findings?
-- Grain:      one row per threshold
-- Key:        name
-- Parameters: check_id (default '')
-- Reads:      check_thresholds, latest_check
-- Reference:  profiler.generality.evidence.thresholds
-- Caveat:     as they stood when the check was made. check_id empty takes the one written last.
SET VARIABLE check_id = coalesce(getvariable('check_id')::VARCHAR, '');
SELECT name, value, meaning
FROM check_thresholds
WHERE check_id = chosen_check(getvariable('check_id'))
ORDER BY rowid;
