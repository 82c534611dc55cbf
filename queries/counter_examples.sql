-- Title:      Counter-examples
-- Question:   at which important positions is the claim wrong?
-- Grain:      one row per component, role, kind and rank
-- Key:        component, role, kind, rank
-- Parameters: check_id (default ''), component (default ''), top (default 0)
-- Reads:      counter_examples, contexts, latest_check
-- Reference:  profiler.generality.counterexamples.find
-- Caveat:     silent: the role says that it should act and it does not; stray: it acts where the role says that it
--             should not. The most important ones, so no rate can be taken from them. check_id empty takes the one
--             written last. component empty takes all.
SET VARIABLE check_id = coalesce(getvariable('check_id')::VARCHAR, '');
SET VARIABLE component = coalesce(getvariable('component')::VARCHAR, '');
SET VARIABLE top = coalesce(getvariable('top')::BIGINT, 0);
SELECT e.component, e.role, e.kind, e."rank", e.importance, e.activation, coalesce(c.domain, '') AS domain, coalesce(c.source, e.document) AS source
    , coalesce(c.context_before, split_part(e.context, '«', 1)) AS context_before, coalesce(c.context_token, e.token) AS context_token
    , coalesce(c.context_after, regexp_extract(e.context, '»(.*)$', 1, 's')) AS context_after, e.token, e.next_token, e.position_id
FROM counter_examples e LEFT JOIN contexts c ON c.position_id = e.position_id
WHERE e.check_id = coalesce(nullif(getvariable('check_id'), ''), (SELECT check_id FROM latest_check))
    AND getvariable('component') IN ('', e.component) AND (getvariable('top') = 0 OR e."rank" <= getvariable('top'))
ORDER BY e.component, e.role, e.kind, e."rank";
