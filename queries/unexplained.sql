-- Title:      What no behaviour explains
-- Question:   where does the component matter although none of its behaviours holds?
-- Grain:      one row per position
-- Key:        position_id
-- Parameters: component (required), behaviours (default ''), top (default 20), importance
--             (default 'direct')
-- Reads:      behaviour_marks, behaviours, component_facts, contexts, importance
-- Reference:  design rule of evidence 6: a mixture has an explicit unexplained share
-- Caveat:     the recorded positions (heads: the uniform sample; neurons: that and their strata
--             together), the largest |DLA| first; weight says how many positions of the corpus each
--             stands for. importance total takes |total effect|, where it was measured. behaviours
--             is a list separated by commas; '' takes attention behaviours of a head, and token and
--             context behaviours of a neuron, with the user's own.
SET VARIABLE component = required(getvariable('component'), 'component', 'L0H0');
SET VARIABLE behaviours = coalesce(getvariable('behaviours')::VARCHAR, '');
SET VARIABLE top = coalesce(getvariable('top')::BIGINT, 20);
SET VARIABLE importance = coalesce(getvariable('importance')::VARCHAR, 'direct');
SET VARIABLE importance = importance_asked(getvariable('importance'));
-- one list of rows: contexts are spelled for these alone, because a filter on a list goes below the
-- view and a join does not
SET VARIABLE rest = (
    WITH asked AS (
        SELECT behaviour
        FROM behaviours
        WHERE getvariable('behaviours') = '' AND priority IS NOT NULL
        UNION ALL
        SELECT trim(name)
        FROM (SELECT unnest(string_split(getvariable('behaviours'), ',')) AS name)
        WHERE getvariable('behaviours') <> ''
    )
    , explained AS (
        SELECT position_id FROM behaviour_marks
        WHERE component = getvariable('component') AND holds AND behaviour IN (
            SELECT behaviour FROM asked
        )
            AND (getvariable('behaviours') <> '' OR family IN ('attention', 'user')
                OR kind <> 'head')
    )
    , left_over AS (
        SELECT position_id, activation, dla, total, band, weight, size
            , sum(weight * size) OVER () AS importance_rest
        FROM (
            SELECT component_facts.position_id, component_facts.activation, component_facts.dla
                , component_facts.total, component_facts.band
                , weight_of(getvariable('importance'), component_facts.weight) AS weight
                , importance_at(getvariable('importance'), 1, component_facts.dla
                    , component_facts.total) AS size
            FROM component_facts ANTI JOIN explained USING (position_id)
            WHERE component_facts.component = getvariable('component')
        ) WHERE size IS NOT NULL
        ORDER BY size DESC, position_id
        LIMIT CASE WHEN getvariable('top') > 0 THEN getvariable('top') END
    )
    SELECT list(left_over) FROM left_over
);
SELECT rest.position_id, contexts.domain, contexts.source, contexts.context_before
    , contexts.context_token, contexts.context_after, contexts.token, contexts.next_token
    , rest.activation, rest.dla, rest.band, rest.weight
    , rest.weight * rest.size / nullif(rest.importance_rest, 0) AS share_of_unexplained, rest.total
FROM (SELECT unnest(getvariable('rest'), recursive := true)) AS rest
JOIN contexts USING (position_id)
WHERE list_contains([row.position_id FOR row IN getvariable('rest')], contexts.position_id)
ORDER BY rest.size DESC, rest.position_id;
