-- Title:      Counter-examples
-- Question:   at which important positions is the claim wrong?
-- Grain:      one row per component, role, kind and rank
-- Key:        component, role, kind, rank
-- Parameters: check_id (default ''), component (default ''), top (default 0)
-- Reads:      counter_examples, contexts, latest_check
-- Reference:  profiler.generality.counterexamples.find
-- Caveat:     silent: the role says that it should act and it does not; stray: it acts where the
--             role says that it should not. The most important ones, so no rate can be taken from
--             them. check_id empty takes the one written last. component empty takes all.
SET VARIABLE check_id = coalesce(getvariable('check_id')::VARCHAR, '');
SET VARIABLE component = coalesce(getvariable('component')::VARCHAR, '');
SET VARIABLE top = coalesce(getvariable('top')::BIGINT, 0);
SELECT counter_examples.component, counter_examples.role, counter_examples.kind
    , counter_examples."rank", counter_examples.importance, counter_examples.activation
    , coalesce(contexts.domain, '') AS domain
    , coalesce(contexts.source, counter_examples.document) AS source
    , coalesce(contexts.context_before
        , split_part(counter_examples.context, '«', 1)) AS context_before
    , coalesce(contexts.context_token, counter_examples.token) AS context_token
    , coalesce(contexts.context_after
        , regexp_extract(counter_examples.context, '»(.*)$', 1, 's')) AS context_after
    , counter_examples.token, counter_examples.next_token, counter_examples.position_id
FROM counter_examples LEFT JOIN contexts ON contexts.position_id = counter_examples.position_id
WHERE counter_examples.check_id = chosen_check(getvariable('check_id'))
    AND getvariable('component') IN ('', counter_examples.component)
        AND (getvariable('top') = 0 OR counter_examples."rank" <= getvariable('top'))
ORDER BY counter_examples.component, counter_examples.role, counter_examples.kind
    , counter_examples."rank";
