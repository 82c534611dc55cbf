-- Title:      The distributions, nearest first
-- Question:   how faithful and how necessary is the circuit from its discovery prompts to the whole
--             corpus?
-- Grain:      one row per distribution
-- Key:        distribution
-- Parameters: check_id (default '')
-- Reads:      check_distributions, check_examples, ledger, checks, latest_check
-- Reference:  Miller et al. 2024; Nainani et al. 2024; two one-sided tests (Schuirmann 1987)
-- Caveat:     a faithfulness above 1 is over-recovery, no success. kl_recovered is of the whole
--             next-token distribution of running text, which no circuit of one task claims. null is
--             of null_n other circuits of the same sizes, all where they are few; a circuit is
--             better than these where it is nearer to 1 than null_near. A distribution without
--             numbers says why. overlap is the share of its prompts (of running text: documents)
--             that the circuit was found on too; NULL where it lists none.
--             check_id empty takes the one written last.
SET VARIABLE check_id = coalesce(getvariable('check_id')::VARCHAR, '');
WITH faithful AS (
    -- of several findings the one with a number, then that on running text
    SELECT *
    FROM ledger
    SEMI JOIN checks ON checks.check_id = ledger.check_id AND checks.circuit = ledger.subject
    WHERE ledger.technique IN ('faithfulness', 'corpus faithfulness')
        AND ledger.statistic = 'faithfulness'
    QUALIFY row_number()
        OVER (PARTITION BY ledger.check_id, ledger.distribution
            ORDER BY ledger.value IS NULL, ledger.technique DESC, ledger.finding) = 1
)
, necessary AS (
    -- of several findings the one with a number
    SELECT *
    FROM ledger
    SEMI JOIN checks ON checks.check_id = ledger.check_id AND checks.circuit = ledger.subject
    WHERE ledger.technique = 'necessity' AND ledger.statistic = 'necessity'
    QUALIFY row_number()
        OVER (PARTITION BY ledger.check_id, ledger.distribution
            ORDER BY ledger.value IS NULL, ledger.finding) = 1
)
, recovered AS (
    SELECT *
    FROM ledger
    SEMI JOIN checks ON checks.check_id = ledger.check_id AND checks.circuit = ledger.subject
    WHERE ledger.technique = 'corpus faithfulness' AND ledger.statistic = 'KL recovered'
    QUALIFY row_number()
        OVER (PARTITION BY ledger.check_id, ledger.distribution
            ORDER BY ledger.value IS NULL, ledger.finding) = 1
)
, shared AS (
    -- which examples are discovery examples too, by the hash of their text
    SELECT tested.check_id, tested.distribution, avg((found.key IS NOT NULL)::DOUBLE) AS overlap
    FROM check_examples AS tested
    LEFT JOIN (
        SELECT DISTINCT check_examples.check_id, check_examples.key
        FROM check_examples
        JOIN check_distributions
            ON check_distributions.check_id = check_examples.check_id
                AND check_distributions.name = check_examples.distribution
        WHERE check_distributions.ordinal = 0
    ) AS found
        ON found.check_id = tested.check_id AND found.key = tested.key
    GROUP BY tested.check_id, tested.distribution
)
SELECT check_distributions.name AS distribution, check_distributions.ordinal
    , check_distributions.kind, check_distributions.description, check_distributions.n_prompts
    , check_distributions.n_tokens, check_distributions.n_documents
    , shared.overlap
    , faithful.value AS faithfulness, faithful.lo AS faithfulness_lo, faithful.hi AS faithfulness_hi
    , faithful.null_mean, faithful.null_hi, faithful.null_near, faithful.null_n
    , faithful.n, faithful.unit, faithful.speaks, faithful.way
    , faithful.p_for, faithful.p_against
    , faithful.value - first_value(faithful.value)
        OVER (ORDER BY check_distributions.ordinal, check_distributions.name) AS gap
    , coalesce(faithful.value > 1, false) AS over_one
    , necessary.value AS necessity, necessary.lo AS necessity_lo, necessary.hi AS necessity_hi
    , necessary.null_mean AS necessity_null, necessary.null_hi AS necessity_null_hi
    , recovered.value AS kl_recovered, recovered.lo AS kl_recovered_lo
    , recovered.hi AS kl_recovered_hi
    , recovered.null_hi AS kl_recovered_null_hi, recovered.n AS kl_recovered_n
    , recovered.unit AS kl_recovered_unit
    , coalesce(nullif(check_distributions.refused, ''), nullif(faithful.refused, '')
        , CASE WHEN faithful.check_id IS NULL AND recovered.check_id IS NULL
            THEN 'only roles were tested here' ELSE '' END) AS refused
FROM check_distributions
LEFT JOIN faithful
    ON faithful.check_id = check_distributions.check_id
        AND faithful.distribution = check_distributions.name
LEFT JOIN necessary
    ON necessary.check_id = check_distributions.check_id
        AND necessary.distribution = check_distributions.name
    LEFT JOIN recovered
        ON recovered.check_id = check_distributions.check_id
            AND recovered.distribution = check_distributions.name
LEFT JOIN shared
    ON shared.check_id = check_distributions.check_id
        AND shared.distribution = check_distributions.name
WHERE check_distributions.check_id = chosen_check(getvariable('check_id'))
ORDER BY check_distributions.ordinal, check_distributions.name;
