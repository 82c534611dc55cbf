-- Title:      Checks and their verdicts
-- Question:   which circuits were checked off the prompts they were found on, and what is the verdict?
-- Grain:      one row per check
-- Key:        check_id
-- Parameters: check_id (default '')
-- Reads:      checks, ledger, check_distributions, latest_check
-- Reference:  profiler.generality.evidence.verdict has the rules of each word
-- Caveat:     weights count lines that share data or technique less; they describe the ledger and do not make the
--             verdict. check_id empty shows all, the one written last first.
SET VARIABLE check_id = coalesce(getvariable('check_id')::VARCHAR, '');
SELECT c.check_id, c.circuit, c.model, c.created, c.word, c.sentence, c.change, c.settings, c.seconds
    , count(l.finding) AS findings, count(*) FILTER (l.speaks = 'for') AS speak_for, count(*) FILTER (l.speaks = 'against') AS speak_against
    , count(*) FILTER (l.speaks = 'undecided') AS undecided, count(*) FILTER (l.speaks = 'refused') AS refused
    , coalesce(sum(l.weight) FILTER (l.speaks = 'for'), 0) AS weight_for, coalesce(sum(l.weight) FILTER (l.speaks = 'against'), 0) AS weight_against
    , count(*) FILTER (l.registered) AS registered, count(*) FILTER (NOT l.registered AND l.weight > 0) AS post_hoc
    , (SELECT count(*) FROM check_distributions r WHERE r.check_id = c.check_id) AS distributions
    , (SELECT max(n_tokens) FROM check_distributions r WHERE r.check_id = c.check_id AND r.kind = 'corpus') AS corpus_tokens
    , c.check_id = (SELECT check_id FROM latest_check) AS latest
FROM checks c LEFT JOIN ledger l USING (check_id)
WHERE getvariable('check_id') IN ('', c.check_id)
GROUP BY ALL
ORDER BY c.created DESC, c.check_id;
