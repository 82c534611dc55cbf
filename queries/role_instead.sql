-- Title:      Where a role fails at its position
-- Question:   where a head does not attend to the position that its role names, what does it attend
--             to?
-- Grain:      one row per member, distribution and position attended to
-- Key:        component, distribution, attended
-- Parameters: check_id (default ''), below (default 0.5), least (default 0.1)
-- Reads:      ledger, latest_check
-- Reference:  profiler.generality.coverage.at_positions
-- Caveat:     only roles that name positions of prompts; distributions on which the role holds on
--             less than `below`, and what is attended to on at least `least` of the importance
--             there. Tokens that no position of the prompts names stand together as `another
--             token`. check_id empty takes the one written last.
SET VARIABLE check_id = coalesce(getvariable('check_id')::VARCHAR, '');
SET VARIABLE below = coalesce(getvariable('below')::DOUBLE, 0.5);
SET VARIABLE least = coalesce(getvariable('least')::DOUBLE, 0.1);
WITH own AS (
    SELECT * FROM ledger
    WHERE check_id = chosen_check(getvariable('check_id')) AND value IS NOT NULL
)
SELECT roles.subject AS component, roles.role, roles.distribution, roles.ordinal
    , roles.value AS coverage
    , substr(attended_rows.statistic, len('share: attends to ') + 1) AS attended
    , attended_rows.value AS share, attended_rows.lo AS share_lo, attended_rows.hi AS share_hi
    , attended_rows.n, attended_rows.unit
    , NOT starts_with(roles.statistic, 'coverage where') AS done
FROM own AS roles
JOIN own AS attended_rows
    ON attended_rows.subject = roles.subject AND attended_rows.role = roles.role
        AND attended_rows.distribution = roles.distribution
            AND starts_with(attended_rows.statistic, 'share: attends to ')
WHERE roles.technique = 'coverage' AND roles.value < getvariable('below')
    AND attended_rows.value >= getvariable('least')
ORDER BY component, roles.ordinal, distribution, share DESC, attended;
