-- Title:      Drops
-- Question:   what was dropped, cut or left out, how much, and why?
-- Grain:      one row per reason
-- Key:        reason
-- Parameters: none
-- Reads:      drops
-- Reference:  design, rules of evidence: nothing is thrown away in silence
-- Caveat:     counts are of the unit in the row: they cannot be added up.
SELECT reason, n, unit, note FROM drops ORDER BY reason;
