-- Title:      What no behaviour explains
-- Question:   where does the component matter although none of its behaviours holds?
-- Grain:      one row per position
-- Key:        position_id
-- Parameters: component (required), behaviours (default ''), top (default 20)
-- Reads:      behaviour_marks, behaviours, component_facts, contexts
-- Reference:  design rule of evidence 6: a mixture has an explicit unexplained share
-- Caveat:     the recorded positions (heads: the uniform sample; neurons: that and their strata
--             together), the largest |DLA| first; weight says how many positions of the corpus each
--             stands for. behaviours is a list separated by commas; '' takes attention behaviours
--             of a head, and token and context behaviours of a neuron, with the user's own.
SET VARIABLE component = required(getvariable('component'), 'component', 'L0H0');
SET VARIABLE behaviours = coalesce(getvariable('behaviours')::VARCHAR, '');
SET VARIABLE top = coalesce(getvariable('top')::BIGINT, 20);
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
        SELECT component_facts.position_id, component_facts.activation, component_facts.dla
            , component_facts.band, component_facts.weight
            , sum(weighted_importance(component_facts.weight, component_facts.dla))
                OVER () AS importance_rest
        FROM component_facts ANTI JOIN explained USING (position_id)
        WHERE component_facts.component = getvariable('component')
        ORDER BY abs(component_facts.dla) DESC, component_facts.position_id
        LIMIT CASE WHEN getvariable('top') > 0 THEN getvariable('top') END
    )
    SELECT list(left_over) FROM left_over
);
SELECT rest.position_id, contexts.domain, contexts.source, contexts.context_before
    , contexts.context_token, contexts.context_after, contexts.token, contexts.next_token
    , rest.activation, rest.dla, rest.band, rest.weight
    , weighted_importance(rest.weight, rest.dla)
        / nullif(rest.importance_rest, 0) AS share_of_unexplained
FROM (SELECT unnest(getvariable('rest'), recursive := true)) AS rest
JOIN contexts USING (position_id)
WHERE list_contains([row.position_id FOR row IN getvariable('rest')], contexts.position_id)
ORDER BY abs(rest.dla) DESC, rest.position_id;
