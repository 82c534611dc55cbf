-- Title:      Do the values put in agree?
-- Question:   would zeros, means or noise have ranked the components as resampled values do?
-- Grain:      one row per two values
-- Key:        first, second
-- Parameters: experiment (default '')
-- Reads:      patch_shares, latest_experiment
-- Reference:  rank correlations between ablations: Li and Janson 2024, Optimal ablation
-- Caveat:     heads and MLPs at all positions, noising direction; rank correlation of their lost
--             shares. A low one means that which components matter depends on what is put in.
--             experiment empty takes the one written last.
SET VARIABLE experiment = coalesce(getvariable('experiment')::VARCHAR, '');
WITH shares AS (
    -- rank of each component among those patched with the same kind of value
    SELECT component, value, rank() OVER (PARTITION BY value ORDER BY share) AS share_rank, share
    FROM patch_shares
    WHERE experiment = chosen_experiment(getvariable('experiment')) AND direction = 'noise'
        AND positions = 'all' AND component_kind IN ('head', 'mlp_out')
)
SELECT first_value.value AS first, second_value.value AS second, count(*) AS n
    , corr(first_value.share_rank, second_value.share_rank) AS rank_correlation
    , avg(abs(first_value.share - second_value.share)) AS mean_difference
FROM shares AS first_value JOIN shares AS second_value USING (component)
WHERE first_value.value < second_value.value
GROUP BY first_value.value, second_value.value
ORDER BY first_value.value, second_value.value;
