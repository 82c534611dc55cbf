-- Title:      Discovery and test data
-- Question:   how many examples of each distribution were used for discovery too?
-- Grain:      one row per distribution that lists its examples
-- Key:        distribution
-- Parameters: check_id (default '')
-- Reads:      check_examples, check_distributions, latest_check
-- Reference:  rule of evidence 7: data used for discovery is left out of the test, or the overlap is told
-- Caveat:     examples are told apart by the hash of their text; two prompts that differ in one word are two.
--             check_id empty takes the one written last.
SET VARIABLE check_id = coalesce(getvariable('check_id')::VARCHAR, '');
WITH own AS (
    SELECT e.*, r.ordinal FROM check_examples e JOIN check_distributions r ON r.check_id = e.check_id AND r.name = e.distribution
    WHERE e.check_id = coalesce(nullif(getvariable('check_id'), ''), (SELECT check_id FROM latest_check))
)
SELECT distribution, ordinal, count(*) AS n, count(*) FILTER (key IN (SELECT key FROM own WHERE ordinal = 0)) AS shared
    , count(*) FILTER (key IN (SELECT key FROM own WHERE ordinal = 0)) / count(*) AS overlap
FROM own
GROUP BY distribution, ordinal
ORDER BY ordinal, distribution;
