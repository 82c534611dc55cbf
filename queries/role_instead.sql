-- Title:      Where a role fails at its position
-- Question:   where a head does not attend to the position that its role names, what does it attend to?
-- Grain:      one row per member, distribution and position attended to
-- Key:        component, distribution, attended
-- Parameters: check_id (default ''), below (default 0.5), least (default 0.1)
-- Reads:      ledger, latest_check
-- Reference:  profiler.generality.coverage.at_positions
-- Caveat:     only roles that name positions of prompts; distributions on which the role holds on less than `below`, and what is
--             attended to on at least `least` of the importance there. Tokens that no position of the prompts names stand
--             together as `another token`. check_id empty takes the one written last.
SET VARIABLE check_id = coalesce(getvariable('check_id')::VARCHAR, '');
SET VARIABLE below = coalesce(getvariable('below')::DOUBLE, 0.5);
SET VARIABLE least = coalesce(getvariable('least')::DOUBLE, 0.1);
WITH own AS (
    SELECT * FROM ledger
    WHERE check_id = coalesce(nullif(getvariable('check_id'), ''), (SELECT check_id FROM latest_check)) AND value IS NOT NULL
)
SELECT c.subject AS component, c.role, c.distribution, c.ordinal, c.value AS coverage, substr(m.statistic, len('share: attends to ') + 1) AS attended
    , m.value AS share, m.lo AS share_lo, m.hi AS share_hi, m.n, m.unit, NOT starts_with(c.statistic, 'coverage where') AS done
FROM own c JOIN own m ON m.subject = c.subject AND m.role = c.role AND m.distribution = c.distribution AND starts_with(m.statistic, 'share: attends to ')
WHERE c.technique = 'coverage' AND c.value < getvariable('below') AND m.value >= getvariable('least')
ORDER BY component, c.ordinal, distribution, share DESC, attended;
