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
--             itself does not do the task, so that nothing is tested. counted_by: |DLA|, or |total
--             effect| of a member that acts through others alone in a run with total effects;
--             other_coverage is by the other of the two, over the whole corpus, NULL where it is
--             not known. check_id empty takes the one written last.
SET VARIABLE check_id = coalesce(getvariable('check_id')::VARCHAR, '');
WITH beside AS (
    SELECT subject, role, distribution, statistic, value FROM ledger
    WHERE check_id = chosen_check(getvariable('check_id')) AND technique = 'coverage'
        AND statistic IN ('coverage by |DLA|', 'coverage by |total effect|')
)
SELECT ledger.subject AS component, ledger.role, ledger.distribution, ordinal
    , ledger.value AS coverage, lo AS coverage_lo
    , hi AS coverage_hi, null_mean AS scrambled, null_hi AS scrambled_hi
    , n, unit, speaks, p_for, p_against, refused, general_form_of
    , NOT starts_with(ledger.statistic, 'coverage where') AS done
    , CASE beside.statistic WHEN 'coverage by |DLA|' THEN '|total effect|'
        ELSE '|DLA|' END AS counted_by
    , beside.value AS other_coverage
FROM ledger
LEFT JOIN beside
    ON beside.subject = ledger.subject AND beside.role = ledger.role
        AND beside.distribution = ledger.distribution AND ledger.statistic = 'coverage'
WHERE check_id = chosen_check(getvariable('check_id'))
    AND technique = 'coverage'
        AND (ledger.statistic = 'coverage' OR starts_with(ledger.statistic, 'coverage where'))
QUALIFY row_number()
    OVER (PARTITION BY ledger.subject, ledger.role, ledger.distribution
        ORDER BY ledger.value IS NULL, ledger.finding) = 1
ORDER BY ledger.subject, ledger.general_form_of <> '', ledger.role, ordinal, ledger.distribution;
