-- Title:      Do the values put in agree?
-- Question:   would zeros, means or noise have ranked the components as resampled values do?
-- Grain:      one row per two values
-- Key:        first, second
-- Parameters: experiment (default '')
-- Reads:      patch_shares, latest_experiment
-- Reference:  rank correlations between ablations: Li and Janson 2024, Optimal ablation
-- Caveat:     heads and MLPs at all positions, noising direction; rank correlation of their lost shares. A low one
--             means that which components matter depends on what is put in. experiment empty takes the one written
--             last.
SET VARIABLE experiment = coalesce(getvariable('experiment')::VARCHAR, '');
WITH shares AS (
    SELECT component, value, rank() OVER (PARTITION BY value ORDER BY share) AS place, share
    FROM patch_shares
    WHERE experiment = coalesce(nullif(getvariable('experiment'), ''), (SELECT experiment FROM latest_experiment)) AND direction = 'noise' AND positions = 'all' AND component_kind IN ('head', 'mlp_out')
)
SELECT a.value AS first, b.value AS second, count(*) AS n, corr(a.place, b.place) AS rank_correlation
    , avg(abs(a.share - b.share)) AS mean_difference
FROM shares a JOIN shares b USING (component)
WHERE a.value < b.value
GROUP BY a.value, b.value
ORDER BY a.value, b.value;
