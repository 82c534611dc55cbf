-- Title:      Edges of the circuit
-- Question:   which edges carry the effect, cut one by one?
-- Grain:      one row per circuit and edge
-- Key:        circuit, writer, reader
-- Parameters: experiment (default '')
-- Reads:      circuit_edges, patch_experiments, latest_experiment
-- Reference:  EAP-IG (Hanna et al. 2024) for the order in which edges are tried; lost is an exact
--             cut
-- Caveat:     edges between members, the input, the logits and MLPs that are always kept; of a
--             circuit by edges its own, the largest of which are cut. One that matters only
--             together with others has a small lost. experiment empty takes the one written last.
SET VARIABLE experiment = coalesce(getvariable('experiment')::VARCHAR, '');
SELECT circuit_edges.circuit, circuit_edges.writer, circuit_edges.reader, circuit_edges.estimated
    , circuit_edges.lost, circuit_edges.matters, patch_experiments.selected_by AS measured_by
FROM circuit_edges JOIN patch_experiments USING (experiment)
WHERE experiment = chosen_experiment(getvariable('experiment'))
ORDER BY circuit_edges.circuit, abs(circuit_edges.lost) DESC NULLS LAST
    , abs(circuit_edges.estimated) DESC, circuit_edges.writer, circuit_edges.reader;
