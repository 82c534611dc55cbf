-- Title:      Discovery and test data
-- Question:   how many examples of each distribution were used for discovery too?
-- Grain:      one row per distribution that lists its examples
-- Key:        distribution
-- Parameters: check_id (default '')
-- Reads:      check_examples, check_distributions, latest_check
-- Reference:  rule of evidence 7: data used for discovery is left out of the test, or the overlap
--             is told
-- Caveat:     examples are told apart by the hash of their text; two prompts that differ in one
--             word are two. check_id empty takes the one written last.
SET VARIABLE check_id = coalesce(getvariable('check_id')::VARCHAR, '');
WITH own AS (
    SELECT check_examples.*, check_distributions.ordinal
    FROM check_examples
    JOIN check_distributions
        ON check_distributions.check_id = check_examples.check_id
            AND check_distributions.name = check_examples.distribution
    WHERE check_examples.check_id = chosen_check(getvariable('check_id'))
)
SELECT distribution, ordinal, count(*) AS n, count(*) FILTER (key IN (
    SELECT key FROM own WHERE ordinal = 0
)) AS shared
    , count(*) FILTER (key IN (SELECT key FROM own WHERE ordinal = 0)) / count(*) AS overlap
FROM own
GROUP BY distribution, ordinal
ORDER BY ordinal, distribution;
