-- Title:      Published numbers
-- Question:   what was published about this circuit, and what did the check measure?
-- Grain:      one row per published number
-- Key:        what
-- Parameters: check_id (default '')
-- Reads:      published_numbers, ledger, latest_check
-- Reference:  the source column
-- Caveat:     prompts, values put in and positions are not those of the papers: differences are to be expected.
--             check_id empty takes the one written last.
SET VARIABLE check_id = coalesce(getvariable('check_id')::VARCHAR, '');
SELECT p.what, p.value AS published, p.unit, p.source, l.value AS found, l.lo AS found_lo, l.hi AS found_hi, l.n, p.distribution
FROM published_numbers p LEFT JOIN ledger l ON l.check_id = p.check_id AND l.technique = p.technique AND l.statistic = p.statistic
    AND l.distribution = p.distribution AND l.subject = p.subject
WHERE p.check_id = coalesce(nullif(getvariable('check_id'), ''), (SELECT check_id FROM latest_check))
QUALIFY row_number() OVER (PARTITION BY p.what ORDER BY l.finding) = 1
ORDER BY p.what;
