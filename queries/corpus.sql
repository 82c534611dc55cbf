-- Title:      Corpus
-- Question:   what was read of each domain?
-- Grain:      one row per domain
-- Key:        domain
-- Parameters: none
-- Reads:      documents, group_counts
-- Reference:  design, rules of evidence: nothing is thrown away in silence
-- Caveat:     n counts ordinary positions; special ones (BOS, first of a window, special tokens)
--             and last tokens of windows are not in it.
SELECT domain, count(*) AS n_documents, sum(n_tokens)::BIGINT AS n_tokens
    , sum(n_dropped)::BIGINT AS n_dropped
    , coalesce(any_value(positions.n), 0)::BIGINT AS n, count(DISTINCT group_id) AS groups
FROM documents
LEFT JOIN (
    SELECT domain, sum(n) AS n FROM group_counts WHERE axis = 'domain' GROUP BY domain
) AS positions USING (domain)
GROUP BY domain
ORDER BY domain;
