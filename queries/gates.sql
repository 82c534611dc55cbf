-- Title:      Both directions of patching
-- Question:   is a component sufficient, necessary, both, or neither?
-- Grain:      one row per component and positions
-- Key:        component, positions
-- Parameters: experiment (default ''), kind (default ''), least (default 0.0)
-- Reads:      patch_gates, patch_shares, patch_experiments, latest_experiment
-- Reference:  Heimersheim and Nanda 2024, How to use and interpret activation patching; gates: the
--             essay on patching in both directions
-- Caveat:     resampled values only. A gate label is of these pairs: in a symmetric corruption a
--             part of recovered_denoise is had by knowing nothing, see excess. kind is a site
--             (head, neuron, q, ...), all if empty; least leaves out components whose shares are
--             both smaller. p_denoise and p_noise are family-wise over all components of the site;
--             p_least is the least that the pairs can give. experiment empty takes the one written
--             last.
SET VARIABLE experiment = coalesce(getvariable('experiment')::VARCHAR, '');
SET VARIABLE kind = coalesce(getvariable('kind')::VARCHAR, '');
SET VARIABLE least = coalesce(getvariable('least')::DOUBLE, 0.0);
-- A gate joins the two directions of the same component and positions, a row each in patch_shares.
WITH shares AS (
    SELECT component, component_kind, positions, direction, share_lo, share_hi, excess, p_adjusted
        , p_least
    FROM patch_shares
    WHERE experiment = chosen_experiment(getvariable('experiment')) AND value = 'resample'
)
SELECT patch_gates.component, patch_gates.component_kind, patch_gates.layer, patch_gates.positions
    , patch_gates.recovered_denoise, denoise.share_lo AS recovered_denoise_lo
    , denoise.share_hi AS recovered_denoise_hi, denoise.excess, denoise.p_adjusted AS p_denoise
    , patch_gates.lost_noise, noise.share_lo AS lost_noise_lo
    , noise.share_hi AS lost_noise_hi, noise.p_adjusted AS p_noise
    , denoise.p_least, patch_gates.gate, patch_experiments.selected_by AS measured_by
FROM patch_gates
JOIN patch_experiments USING (experiment)
JOIN shares AS denoise
    ON denoise.component = patch_gates.component AND denoise.positions = patch_gates.positions
        AND denoise.direction = 'denoise'
JOIN shares AS noise
    ON noise.component = patch_gates.component AND noise.positions = patch_gates.positions
        AND noise.direction = 'noise'
WHERE experiment = chosen_experiment(getvariable('experiment'))
    AND getvariable('kind') IN ('', patch_gates.component_kind)
    AND greatest(abs(patch_gates.recovered_denoise), abs(patch_gates.lost_noise))
        >= getvariable('least')
ORDER BY greatest(abs(patch_gates.recovered_denoise), abs(patch_gates.lost_noise)) DESC
    , patch_gates.component, patch_gates.positions;
