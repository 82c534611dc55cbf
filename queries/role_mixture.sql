-- Title:      Mixtures of members
-- Question:   what else does each member do, by share of its importance?
-- Grain:      one row per member, distribution and behaviour
-- Key:        component, distribution, behaviour
-- Parameters: check_id (default '')
-- Reads:      ledger, latest_check
-- Reference:  rule of evidence 6: a mixture has an explicit unexplained share
-- Caveat:     behaviours below one per cent are left out by the check; what no behaviour explains
--             is a row of its own. What heads attend to at the places of their roles stands in
--             role_instead. check_id empty takes the one written last.
SET VARIABLE check_id = coalesce(getvariable('check_id')::VARCHAR, '');
SELECT subject AS component, any_value(role) AS role, distribution, any_value(ordinal) AS ordinal
    , replace(statistic, 'share: ', '') AS behaviour
    , any_value(value) AS share, any_value(lo) AS share_lo, any_value(hi) AS share_hi
    , any_value(n) AS n, any_value(unit) AS unit
FROM ledger
WHERE check_id = chosen_check(getvariable('check_id'))
    AND technique = 'mixture' AND starts_with(statistic, 'share: ')
        AND NOT starts_with(statistic, 'share: attends to ') AND value IS NOT NULL
GROUP BY subject, distribution, statistic
ORDER BY component, ordinal, distribution, share DESC, behaviour;
