-- Title:      Members of the circuit
-- Question:   who belongs to the circuit, how sure is that, and what does removing each member cost?
-- Grain:      one row per circuit, set of pairs, component and positions
-- Key:        circuit, pair_set, component, positions
-- Parameters: experiment (default '')
-- Reads:      circuit_members, circuits, latest_experiment
-- Reference:  minimality against inflated circuits: Shi et al. 2024, with Holm's correction
-- Caveat:     role is read off the attention where nobody claimed one. frequency is how often the node is among the
--             best when pairs are resampled. schemes are the corruptions under which it has an effect of its own.
--             positions is all, or the role of the pairs at which alone the component belongs to the circuit.
--             experiment empty takes the one written last.
SET VARIABLE experiment = coalesce(getvariable('experiment')::VARCHAR, '');
SELECT m.circuit, m.pair_set, m.component, m.positions, m.role, m.gate, len(m.schemes) AS n_schemes, len(c.schemes) AS of_schemes
    , array_to_string(m.schemes, ', ') AS schemes, m.frequency, m.removal_cost, m.p, m.p_holm
FROM circuit_members m JOIN circuits c USING (experiment, circuit)
WHERE experiment = coalesce(nullif(getvariable('experiment'), ''), (SELECT experiment FROM latest_experiment))
ORDER BY m.circuit, m.pair_set, m.removal_cost DESC NULLS LAST, m.component, m.positions;
