-- Fills layer_coverages: what each behaviour covers of the components that others of their kind and
-- layer are held against (query behaviours): every head, and 17 neurons (features, directions) a
-- layer chosen by hash, so the same ones every time.
--
-- Behaviours that have rows are left alone, but for a user's own: their condition may name a class
-- that was added or taken out since. Sums are added in the order of positions: their last bit
-- depends on it, and merged runs have the same as a whole. Cost: one pass over the rows of those
-- components, 0.03 s each.
DELETE FROM layer_coverages WHERE behaviour_id NOT IN (
    SELECT behaviour_id FROM behaviours WHERE NOT "user"
);
-- lists, because a filter on a list goes below the views and a join does not
SET VARIABLE compared = (
    SELECT list(component) FROM (
        SELECT component, kind
            , row_number() OVER (PARTITION BY kind, layer ORDER BY md5(component)) AS ordinal
        FROM components WHERE kind IN ('head', 'neuron', 'feature', 'direction', 'subspace')
    ) WHERE kind = 'head' OR ordinal <= 17
);
SET VARIABLE behaviour_ids = (
    SELECT list(behaviour_id)
    FROM behaviours
    WHERE behaviour_id NOT IN (SELECT behaviour_id FROM layer_coverages)
);
INSERT INTO layer_coverages
WITH facts AS MATERIALIZED (
    SELECT component, any_value(kind) AS kind, count(*) AS n
        , sum(weight * abs(dla)::DOUBLE ORDER BY position_id) AS importance
    FROM component_facts WHERE list_contains(getvariable('compared'), component)
    GROUP BY component
)
, marks AS MATERIALIZED (
    SELECT component, behaviour_id
        , coalesce(sum(weight * abs(dla)::DOUBLE ORDER BY position_id) FILTER (holds)
            , 0) AS importance_held
        , count(*) FILTER (holds IS NULL) AS n_untold
        , coalesce(sum(weight * abs(dla)::DOUBLE ORDER BY position_id) FILTER (holds IS NULL)
            , 0) AS importance_untold
    FROM behaviour_marks
    -- a filter on behaviour_id too ended in an internal error of DuckDB 2.0.0; 2.0.1 takes it
    WHERE list_contains(getvariable('compared'), component)
    GROUP BY component, behaviour_id
)
SELECT components.component_id, behaviours.behaviour_id
    , coalesce(marks.importance_held, 0)
        / nullif(facts.importance - coalesce(marks.importance_untold, 0), 0)
FROM facts
JOIN components USING (component)
JOIN behaviours
    ON behaviours.kind IN ('both', behaves_as(facts.kind))
        AND list_contains(getvariable('behaviour_ids'), behaviours.behaviour_id)
LEFT JOIN marks
    ON marks.component = facts.component AND marks.behaviour_id = behaviours.behaviour_id
WHERE facts.n > coalesce(marks.n_untold, 0)
ORDER BY components.component_id, behaviours.behaviour_id;
RESET VARIABLE compared;
RESET VARIABLE behaviour_ids;
