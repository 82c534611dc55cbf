-- Title:      Published numbers
-- Question:   what was published about this circuit, and what did the check measure?
-- Grain:      one row per published number
-- Key:        what
-- Parameters: check_id (default '')
-- Reads:      published_numbers, ledger, latest_check
-- Reference:  the source column
-- Caveat:     prompts, values put in and positions are not those of the papers: differences are to
--             be expected. check_id empty takes the one written last.
SET VARIABLE check_id = coalesce(getvariable('check_id')::VARCHAR, '');
SELECT published_numbers.what, published_numbers.value AS published, published_numbers.unit
    , published_numbers.source, ledger.value AS measured, ledger.lo AS measured_lo
    , ledger.hi AS measured_hi, ledger.n, published_numbers.distribution
FROM published_numbers
LEFT JOIN ledger
    ON ledger.check_id = published_numbers.check_id
        AND ledger.technique = published_numbers.technique
            AND ledger.statistic = published_numbers.statistic
    AND ledger.distribution = published_numbers.distribution
        AND ledger.subject = published_numbers.subject
WHERE published_numbers.check_id = chosen_check(getvariable('check_id'))
QUALIFY row_number() OVER (PARTITION BY published_numbers.what ORDER BY ledger.finding) = 1
ORDER BY published_numbers.what;
