-- Title:      Registered predictions
-- Question:   what was predicted before the test, and how did it come out?
-- Grain:      one row per prediction
-- Key:        entry
-- Parameters: none
-- Reads:      predictions
-- Reference:  profiler.generality.evidence.predictions: a chain of SHA-256
-- Caveat:     intact is false from the first entry on that was edited or removed. known_before: the
--             number stood in the file when the prediction was made, which makes it post hoc.
SELECT entry, registered_at, statement, subject, role, circuit, statistic, distribution, direction
    , threshold, origin, known_before
    , outcome, value, lo AS value_lo, hi AS value_hi, n, overlap, check_id, resolved_at, intact
    , hash
FROM predictions
ORDER BY entry;
