-- Title:      Dictionaries
-- Question:   how well do the dictionaries of this run reconstruct what the model writes, and what
--             do they leave over?
-- Grain:      one row per dictionary
-- Key:        units
-- Parameters: none
-- Reads:      dictionaries, spliced_windows, components, power_sums, classes
-- Reference:  loss recovered: Gao et al. 2024, Scaling and evaluating sparse autoencoders
-- Caveat:     variance_explained is 1 - sum |error|^2 / sum |written - its mean|^2 over all
--             ordinary positions; below 0 the mean alone would do better. The losses are means over
--             the n_spliced positions of a random sample of windows, of the model as it is, with
--             the reconstruction put in at ordinary positions, and with 0; loss_added is what the
--             dictionary costs, in nats, and loss_recovered the part of what 0 costs that it saves
--             (unlike loss_added it flatters where 0 costs much). error_share is the mean |DLA| of
--             the error over the sum of that of the recorded units, bias and error, which do not
--             cancel. dead: recorded units that were never above 0 (directions and subspaces have
--             both signs, and none). NULL where nothing is reconstructed.
WITH spliced AS (
    SELECT dictionary_id, sum(n) AS n_spliced, count(*) AS n_windows, sum(loss) / sum(n) AS loss
        , sum(spliced) / sum(n) AS loss_spliced, sum(ablated) / sum(n) AS loss_ablated
    FROM spliced_windows GROUP BY dictionary_id
)
, sizes AS (
    SELECT components.component_id, components.kind
        , regexp_extract(components.component, '^(L\d+(\.\w+:)?D)', 1) AS units
        , sum(power_sums.d_abs) AS abs_dla, max(power_sums.a_max) AS activation_max
    FROM power_sums
    JOIN components USING (component_id)
    JOIN classes ON classes.class_id = power_sums.class_id AND NOT classes.special
    WHERE described(components.kind)
    GROUP BY components.component_id, components.kind, components.component
)
, summed AS (
    SELECT units, count(*) FILTER (kind NOT LIKE 'dictionary%') AS n_recorded
        , count(*) FILTER (kind = 'feature' AND activation_max <= 0) AS dead
        , sum_where(abs_dla, kind = 'dictionary_error') AS error_abs_dla
        , sum(abs_dla) AS all_abs_dla
    FROM sizes GROUP BY units
)
SELECT dictionaries.units, dictionaries.kind, dictionaries.form, dictionaries.reads
    , dictionaries.writes, dictionaries.n_units, coalesce(summed.n_recorded, 0) AS n_recorded
    , summed.dead
    , 1 - dictionaries.error_squares / nullif(dictionaries.whole_squares
        - list_sum([total * total FOR total IN dictionaries.whole_sums])
            / dictionaries.n, 0) AS variance_explained
    , dictionaries.active_units / dictionaries.n AS active_units
    , CASE WHEN dictionaries.n IS NOT NULL
        THEN summed.error_abs_dla / nullif(summed.all_abs_dla, 0) END AS error_share
    , spliced.loss, spliced.loss_spliced, spliced.loss_ablated
    , spliced.loss_spliced - spliced.loss AS loss_added
    , (spliced.loss_ablated - spliced.loss_spliced)
        / nullif(spliced.loss_ablated - spliced.loss, 0) AS loss_recovered
    , spliced.n_spliced::BIGINT AS n_spliced, spliced.n_windows, dictionaries.source
FROM dictionaries
LEFT JOIN summed USING (units)
LEFT JOIN spliced USING (dictionary_id)
ORDER BY dictionaries.dictionary_id;
