-- Title:      Discovery and test data
-- Question:   how many examples of each rung were used for discovery too?
-- Grain:      one row per rung that lists its examples
-- Key:        rung
-- Parameters: check_id (default '')
-- Reads:      check_examples, check_rungs, latest_check
-- Reference:  rule of evidence 7: data used for discovery is left out of the test, or the overlap is told
-- Caveat:     examples are told apart by the hash of their text; two prompts that differ in one word are two.
--             check_id empty takes the one written last.
SET VARIABLE check_id = coalesce(getvariable('check_id')::VARCHAR, '');
WITH own AS (
    SELECT e.*, r.ordinal FROM check_examples e JOIN check_rungs r ON r.check_id = e.check_id AND r.name = e.rung
    WHERE e.check_id = coalesce(nullif(getvariable('check_id'), ''), (SELECT check_id FROM latest_check))
)
SELECT rung, ordinal, count(*) AS n, count(*) FILTER (key IN (SELECT key FROM own WHERE ordinal = 0)) AS shared
    , count(*) FILTER (key IN (SELECT key FROM own WHERE ordinal = 0)) / count(*) AS overlap
FROM own
GROUP BY rung, ordinal
ORDER BY ordinal, rung;
