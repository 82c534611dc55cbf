-- Title:      Coverage of roles
-- Question:   on which share of a member's importance does its role hold, on each distribution?
-- Grain:      one row per member, role and rung
-- Key:        component, role, rung
-- Parameters: check_id (default '')
-- Reads:      ledger, latest_check
-- Reference:  importance-weighted coverage; rule of evidence 5
-- Caveat:     null is the scrambled claim; a role that claims every position has none that says anything. check_id
--             empty takes the one written last.
SET VARIABLE check_id = coalesce(getvariable('check_id')::VARCHAR, '');
SELECT subject AS component, role, rung, ordinal, value AS coverage, lo AS coverage_lo, hi AS coverage_hi, null_mean AS scrambled, null_hi AS scrambled_hi
    , n, unit, speaks, p_for, p_against, refused
FROM ledger
WHERE check_id = coalesce(nullif(getvariable('check_id'), ''), (SELECT check_id FROM latest_check))
    AND technique = 'coverage' AND statistic = 'coverage'
QUALIFY row_number() OVER (PARTITION BY subject, role, rung ORDER BY value IS NULL, finding) = 1
ORDER BY subject, role, ordinal, rung;
