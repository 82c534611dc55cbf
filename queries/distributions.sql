-- Title:      The distributions, nearest first
-- Question:   how faithful and how necessary is the circuit from its discovery prompts to the whole corpus?
-- Grain:      one row per distribution
-- Key:        distribution
-- Parameters: check_id (default '')
-- Reads:      check_distributions, ledger, checks, latest_check
-- Reference:  Miller et al. 2024; Nainani et al. 2024; two one-sided tests (Schuirmann 1987)
-- Caveat:     a faithfulness above 1 is over-recovery, no success. kl_recovered is of the whole next-token
--             distribution of running text, which no circuit of one task claims. null is of random circuits of the same
--             sizes. A distribution without numbers says why. check_id empty takes the one written last.
SET VARIABLE check_id = coalesce(getvariable('check_id')::VARCHAR, '');
WITH faithful AS (
    SELECT * FROM ledger l SEMI JOIN checks c ON c.check_id = l.check_id AND c.circuit = l.subject
    WHERE l.technique IN ('faithfulness', 'corpus faithfulness') AND l.statistic = 'faithfulness'
    QUALIFY row_number() OVER (PARTITION BY l.check_id, l.distribution ORDER BY l.value IS NULL, l.technique DESC, l.finding) = 1
)
, necessary AS (
    SELECT * FROM ledger l SEMI JOIN checks c ON c.check_id = l.check_id AND c.circuit = l.subject
    WHERE l.technique = 'necessity' AND l.statistic = 'necessity'
    QUALIFY row_number() OVER (PARTITION BY l.check_id, l.distribution ORDER BY l.value IS NULL, l.finding) = 1
)
, recovered AS (
    SELECT * FROM ledger l SEMI JOIN checks c ON c.check_id = l.check_id AND c.circuit = l.subject
    WHERE l.technique = 'corpus faithfulness' AND l.statistic = 'KL recovered'
    QUALIFY row_number() OVER (PARTITION BY l.check_id, l.distribution ORDER BY l.value IS NULL, l.finding) = 1
)
SELECT r.name AS distribution, r.ordinal, r.kind, r.description, r.n_prompts, r.n_tokens, r.n_documents
    , f.value AS faithfulness, f.lo AS faithfulness_lo, f.hi AS faithfulness_hi, f.null_mean, f.null_hi, f.n, f.unit, f.speaks, f.way, f.p_for, f.p_against
    , f.value - first_value(f.value) OVER (ORDER BY r.ordinal, r.name) AS gap, coalesce(f.value > 1, false) AS over_one
    , n.value AS necessity, n.lo AS necessity_lo, n.hi AS necessity_hi, n.null_mean AS necessity_null, n.null_hi AS necessity_null_hi
    , k.value AS kl_recovered, k.lo AS kl_recovered_lo, k.hi AS kl_recovered_hi, k.null_hi AS kl_recovered_null_hi
    , k.n AS kl_recovered_n, k.unit AS kl_recovered_unit
    , coalesce(nullif(r.refused, ''), nullif(f.refused, ''), CASE WHEN f.check_id IS NULL AND k.check_id IS NULL THEN 'only roles were tested here' ELSE '' END) AS refused
FROM check_distributions r LEFT JOIN faithful f ON f.check_id = r.check_id AND f.distribution = r.name LEFT JOIN necessary n ON n.check_id = r.check_id AND n.distribution = r.name
    LEFT JOIN recovered k ON k.check_id = r.check_id AND k.distribution = r.name
WHERE r.check_id = coalesce(nullif(getvariable('check_id'), ''), (SELECT check_id FROM latest_check))
ORDER BY r.ordinal, r.name;
