-- Title:      Claims and the weight of their evidence
-- Question:   how much independent evidence supports and contradicts each claim?
-- Grain:      one row per claim (subject and role)
-- Key:        subject, role
-- Parameters: check_id (default '')
-- Reads:      ledger, latest_check
-- Reference:  weights as in profiler.generality.evidence.ledger
-- Caveat:     techniques counts those that say something, for or against; a claim with one has not
--             been asked in two ways. check_id empty takes the one written last.
SET VARIABLE check_id = coalesce(getvariable('check_id')::VARCHAR, '');
SELECT subject, role, count(DISTINCT technique) FILTER (speaks IN ('for', 'against')) AS techniques
    , sum_where(weight, speaks = 'for') AS weight_for
    , sum_where(weight, speaks = 'against') AS weight_against
    , sum_where(weight, speaks = 'undecided') AS weight_undecided
    , count(*) FILTER (speaks = 'for') AS speak_for
    , count(*) FILTER (speaks = 'against') AS speak_against
    , count(*) FILTER (speaks = 'undecided') AS undecided
    , count(*) FILTER (speaks = 'refused') AS refused
    , count(*) FILTER (registered AND weight > 0) AS registered
    , count(*) FILTER (NOT registered AND weight > 0) AS post_hoc
FROM ledger
WHERE check_id = chosen_check(getvariable('check_id'))
GROUP BY subject, role
ORDER BY role <> '', subject, role;
