-- Title:      What no behaviour explains
-- Question:   where does the component matter although none of its behaviours holds?
-- Grain:      one row per position
-- Key:        position_id
-- Parameters: component (required), behaviours (default ''), top (default 20)
-- Reads:      behaviour_marks, behaviours, component_facts, contexts
-- Reference:  design rule of evidence 6: a mixture has an explicit unexplained share
-- Caveat:     the kept positions (heads: the uniform sample; neurons: that and their strata together), the largest |DLA|
--             first; weight says how many positions of the corpus each stands for. behaviours is a list separated by commas;
--             '' takes attention behaviours of a head, and token and context behaviours of a neuron, with the user's own.
SET VARIABLE component = coalesce(getvariable('component')::VARCHAR, error('set the component first: SET VARIABLE component = ''L0H0'';'));
SET VARIABLE behaviours = coalesce(getvariable('behaviours')::VARCHAR, '');
SET VARIABLE top = coalesce(getvariable('top')::BIGINT, 20);
-- one list of rows: contexts are spelled for these alone, because a filter on a list goes below the view and a join does not
SET VARIABLE rest = (
    WITH asked AS (
        SELECT behaviour FROM behaviours WHERE getvariable('behaviours') = '' AND priority IS NOT NULL
        UNION ALL
        SELECT trim(name) FROM (SELECT unnest(string_split(getvariable('behaviours'), ',')) AS name) WHERE getvariable('behaviours') <> ''
    )
    , explained AS (
        SELECT position_id FROM behaviour_marks
        WHERE component = getvariable('component') AND holds AND behaviour IN (SELECT behaviour FROM asked)
            AND (getvariable('behaviours') <> '' OR family IN ('attention', 'user') OR kind = 'neuron')
    )
    , left_over AS (
        SELECT f.position_id, f.activation, f.dla, f.band, f.weight, sum(f.weight * abs(f.dla)::DOUBLE) OVER () AS m_rest
        FROM component_facts f ANTI JOIN explained e USING (position_id)
        WHERE f.component = getvariable('component')
        ORDER BY abs(f.dla) DESC, f.position_id
        LIMIT CASE WHEN getvariable('top') > 0 THEN getvariable('top') END
    )
    SELECT list(left_over) FROM left_over
);
SELECT r.position_id, c.domain, c.source, c.context_before, c.context_token, c.context_after, c.token, c.next_token
    , r.activation, r.dla, r.band, r.weight, r.weight * abs(r.dla)::DOUBLE / nullif(r.m_rest, 0) AS share_of_unexplained
FROM (SELECT unnest(getvariable('rest'), recursive := true)) r
JOIN contexts c USING (position_id)
WHERE list_contains([x.position_id FOR x IN getvariable('rest')], c.position_id)
ORDER BY abs(r.dla) DESC, r.position_id;
