-- Title:      Both directions of patching
-- Question:   is a component sufficient, necessary, both, or neither?
-- Grain:      one row per component and positions
-- Key:        component, positions
-- Parameters: experiment (default ''), kind (default ''), least (default 0.0)
-- Reads:      patch_gates, patch_shares, latest_experiment
-- Reference:  Heimersheim and Nanda 2024, How to use and interpret activation patching; gates: the essay on patching
--             in both directions
-- Caveat:     resampled values only. A gate label is of these pairs: in a symmetric corruption a part of
--             recovered_denoise is had by knowing nothing, see excess. kind is a site (head, neuron, q, ...), all if
--             empty; least leaves out components whose shares are both smaller. experiment empty takes the one
--             written last.
SET VARIABLE experiment = coalesce(getvariable('experiment')::VARCHAR, '');
SET VARIABLE kind = coalesce(getvariable('kind')::VARCHAR, '');
SET VARIABLE least = coalesce(getvariable('least')::DOUBLE, 0.0);
WITH shares AS (
    SELECT component, component_kind, positions, direction, share_lo, share_hi, excess, p_holm
    FROM patch_shares WHERE experiment = coalesce(nullif(getvariable('experiment'), ''), (SELECT experiment FROM latest_experiment)) AND value = 'resample'
)
SELECT g.component, g.component_kind, g.layer, g.positions, g.recovered_denoise, d.share_lo AS recovered_denoise_lo
    , d.share_hi AS recovered_denoise_hi, d.excess, d.p_holm AS p_denoise, g.lost_noise, n.share_lo AS lost_noise_lo
    , n.share_hi AS lost_noise_hi, n.p_holm AS p_noise, g.gate
FROM patch_gates g
JOIN shares d ON d.component = g.component AND d.positions = g.positions AND d.direction = 'denoise'
JOIN shares n ON n.component = g.component AND n.positions = g.positions AND n.direction = 'noise'
WHERE experiment = coalesce(nullif(getvariable('experiment'), ''), (SELECT experiment FROM latest_experiment)) AND getvariable('kind') IN ('', g.component_kind)
    AND greatest(abs(g.recovered_denoise), abs(g.lost_noise)) >= getvariable('least')
ORDER BY greatest(abs(g.recovered_denoise), abs(g.lost_noise)) DESC, g.component, g.positions;
