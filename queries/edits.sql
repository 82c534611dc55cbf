-- Title:      Edits made from the roles
-- Question:   does the component move when a text is edited as its role says matters, and not when
--             it is edited otherwise?
-- Grain:      one row per component, role, operation and distribution
-- Key:        component, role, operation, distribution
-- Parameters: check_id (default '')
-- Reads:      check_edits, latest_check
-- Reference:  Wang et al. 2022, section 4: 23.4 % broken against 0.4 % by control edits
-- Caveat:     shift is in the unit of the operation (profiler.generality.edits.edits); medians over
--             texts. Success rates with intervals are in the ledger. check_id empty takes the one
--             written last.
SET VARIABLE check_id = coalesce(getvariable('check_id')::VARCHAR, '');
SELECT component, role, operation, distribution, count(*) AS n, avg(shift) AS shift
    , avg(control_shift) AS control_shift, median(shift) AS median_shift
    , median(control_shift) AS median_control, avg((shift > control_shift)::INT) AS beats_control
    , arg_max(before, shift) AS before, arg_max(after, shift) AS after
FROM check_edits
WHERE check_id = chosen_check(getvariable('check_id'))
GROUP BY component, role, operation, distribution
ORDER BY component, role, operation, distribution;
