-- Title:      Members of the circuit
-- Question:   who belongs to the circuit, how sure is that, and what does removing each member
--             cost?
-- Grain:      one row per circuit, set of pairs, component and positions
-- Key:        circuit, pair_set, component, positions
-- Parameters: experiment (default '')
-- Reads:      circuit_members, circuits, latest_experiment
-- Reference:  minimality against inflated circuits: Shi et al. 2024; p_adjusted by a step-down of
--             the largest of as many random members: Westfall and Young 1993
-- Caveat:     role is read off the attention where nobody claimed one. frequency is how often the
--             node is chosen when pairs are resampled, NULL in a circuit that was given. schemes
--             are the corruptions under which it has an effect of its own. positions is all, or
--             the role of the pairs at which alone the component belongs to the circuit. experiment
--             empty takes the one written last. p_least is the least p_adjusted that the null can
--             give: where it is not below 0.05, no member can be shown to be needed.
SET VARIABLE experiment = coalesce(getvariable('experiment')::VARCHAR, '');
SELECT circuit_members.circuit, circuit_members.pair_set, circuit_members.component
    , circuit_members.positions, circuit_members.role, circuit_members.gate
    , len(circuit_members.schemes) AS n_schemes, len(circuits.schemes) AS of_schemes
    , array_to_string(circuit_members.schemes, ', ') AS schemes, circuit_members.frequency
    , circuit_members.removal_cost, circuit_members.p, circuit_members.p_adjusted
    , circuit_members.p_least, circuits.metric AS measured_by
FROM circuit_members JOIN circuits USING (experiment, circuit)
WHERE experiment = chosen_experiment(getvariable('experiment'))
ORDER BY circuit_members.circuit, circuit_members.pair_set
    , circuit_members.removal_cost DESC NULLS LAST
    , circuit_members.component, circuit_members.positions;
