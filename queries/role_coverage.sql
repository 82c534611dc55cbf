-- Title:      Coverage of roles
-- Question:   on which share of a member's importance does its role hold, on each distribution?
-- Grain:      one row per member, role and distribution
-- Key:        component, role, distribution
-- Parameters: check_id (default '')
-- Reads:      ledger, latest_check
-- Reference:  importance-weighted coverage; rule of evidence 5
-- Caveat:     scrambled is the scrambled claim, or, for a role that names positions of prompts, the
--             other heads of its layer; a role that claims every position has none that says
--             anything. A row with general_form_of is what such a role would be if it were claimed
--             of every position; the circuit does not claim it. done is false where the model
--             itself does not do the task, so that nothing is tested. check_id empty takes the one
--             written last.
SET VARIABLE check_id = coalesce(getvariable('check_id')::VARCHAR, '');
SELECT subject AS component, role, distribution, ordinal, value AS coverage, lo AS coverage_lo
    , hi AS coverage_hi, null_mean AS scrambled, null_hi AS scrambled_hi
    , n, unit, speaks, p_for, p_against, refused, general_form_of
    , NOT starts_with(statistic, 'coverage where') AS done
FROM ledger
WHERE check_id = chosen_check(getvariable('check_id'))
    AND technique = 'coverage'
        AND (statistic = 'coverage' OR starts_with(statistic, 'coverage where'))
QUALIFY row_number()
    OVER (PARTITION BY subject, role, distribution ORDER BY value IS NULL, finding) = 1
ORDER BY subject, general_form_of <> '', role, ordinal, distribution;
