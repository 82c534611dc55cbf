-- Title:      Passes of total effects
-- Question:   what were total effects measured on, how, and at what cost?
-- Grain:      one row per method
-- Key:        method
-- Parameters: none
-- Reads:      effect_passes
-- Reference:  Nanda 2023, Attribution patching
-- Caveat:     windows are chosen by hash; n_special positions (BOS, first of a window, special
--             tokens) are left out of all means. cost is time per token over that of a bare forward
--             pass on the same machine. settings is JSON.
SELECT method, n_tokens, n_positions, n_special, n_documents, n_corpus, note, left_out, seconds
    , cost, created, settings
FROM effect_passes
ORDER BY method;
