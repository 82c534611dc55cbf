-- Title:      Run
-- Question:   what was recorded, from which model and corpus, how, and how well did it close?
-- Grain:      one row
-- Key:        run_id
-- Parameters: none
-- Reads:      runs
-- Reference:  design, rules of evidence
-- Caveat:     two runs with one run_id hold the same numbers only with the same versions of the
--             libraries.
SELECT * FROM runs ORDER BY run_id;
