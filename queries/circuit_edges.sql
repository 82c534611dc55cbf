-- Title:      Edges of the circuit
-- Question:   which edges carry the effect, cut one by one?
-- Grain:      one row per circuit and edge
-- Key:        circuit, writer, reader
-- Parameters: experiment (default '')
-- Reads:      circuit_edges, latest_experiment
-- Reference:  Syed et al. 2023 for the order in which edges are tried; every row is an exact cut
-- Caveat:     edges between members, the input, the logits and MLPs that are always kept; one that
--             matters only together with others has a small lost. experiment empty takes the one
--             written last.
SET VARIABLE experiment = coalesce(getvariable('experiment')::VARCHAR, '');
SELECT circuit, writer, reader, estimated, lost, matters
FROM circuit_edges
WHERE experiment = chosen_experiment(getvariable('experiment'))
ORDER BY circuit, abs(lost) DESC, writer, reader;
