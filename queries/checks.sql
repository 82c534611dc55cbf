-- Title:      Checks and their verdicts
-- Question:   which circuits were checked off the prompts they were found on, and what is the
--             verdict?
-- Grain:      one row per check
-- Key:        check_id
-- Parameters: check_id (default '')
-- Reads:      checks, ledger, check_distributions, latest_check
-- Reference:  profiler.generality.evidence.verdict has the rules of each word
-- Caveat:     weights count lines that share data or technique less; they describe the ledger and
--             do not make the verdict. check_id empty shows all, the one written last first.
SET VARIABLE check_id = coalesce(getvariable('check_id')::VARCHAR, '');
SELECT checks.check_id, checks.circuit, checks.model, checks.created, checks.word, checks.sentence
    , checks.change, checks.settings, checks.seconds
    , count(ledger.finding) AS findings, count(*) FILTER (ledger.speaks = 'for') AS speak_for
    , count(*) FILTER (ledger.speaks = 'against') AS speak_against
    , count(*) FILTER (ledger.speaks = 'undecided') AS undecided
    , count(*) FILTER (ledger.speaks = 'refused') AS refused
    , sum_where(ledger.weight, ledger.speaks = 'for') AS weight_for
    , sum_where(ledger.weight, ledger.speaks = 'against') AS weight_against
    , count(*) FILTER (ledger.registered) AS registered
    , count(*) FILTER (NOT ledger.registered AND ledger.weight > 0) AS post_hoc
    , (
        SELECT count(*)
        FROM check_distributions
        WHERE check_distributions.check_id = checks.check_id
    ) AS distributions
    , (
        SELECT max(n_tokens) FROM check_distributions
        WHERE check_distributions.check_id = checks.check_id AND check_distributions.kind = 'corpus'
    ) AS corpus_tokens
    , checks.check_id = (SELECT check_id FROM latest_check) AS latest
FROM checks LEFT JOIN ledger USING (check_id)
WHERE getvariable('check_id') IN ('', checks.check_id)
GROUP BY ALL
ORDER BY checks.created DESC, checks.check_id;
