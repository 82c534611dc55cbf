-- Title:      Circuits across tasks
-- Question:   how faithful is each circuit on the prompts of the other tasks?
-- Grain:      one row per circuit and task
-- Key:        circuit, task
-- Parameters: check_id (default '')
-- Reads:      cross_tasks, latest_check
-- Reference:  Hanna et al. 2024, Have Faith in Faithfulness: the matrix of circuits and tasks
-- Caveat:     high values off the diagonal mean shared machinery, or a circuit that does
--             everything. check_id empty takes the one written last.
SET VARIABLE check_id = coalesce(getvariable('check_id')::VARCHAR, '');
SELECT circuit, task, statistic, value AS faithfulness, lo AS faithfulness_lo, hi AS faithfulness_hi
    , n
FROM cross_tasks
WHERE check_id = chosen_check(getvariable('check_id'))
QUALIFY row_number() OVER (PARTITION BY circuit, task ORDER BY statistic) = 1
ORDER BY circuit, task;
