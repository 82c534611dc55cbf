-- Title:      Extremes of a component
-- Question:   where are its largest and smallest activations and DLA?
-- Grain:      one row per measure, side and rank
-- Key:        measure, side, rank
-- Parameters: component (required), top (default 0)
-- Reads:      extremes
-- Reference:  the usual maximally activating dataset examples
-- Caveat:     the tail says what drives a component hardest, not what it does as a rule: read it
--             beside quantile_samples. top 0 shows all that are stored. Values that tie are ordered
--             by position.
SET VARIABLE component = required(getvariable('component'), 'component', 'L0H0');
SET VARIABLE top = coalesce(getvariable('top')::BIGINT, 0);
SELECT measure, side, "rank", position_id, domain, source, context_before, context_token
    , context_after
    , token, next_token, activation, dla
FROM extremes
WHERE component = getvariable('component')
    AND (getvariable('top') = 0 OR "rank" <= getvariable('top'))
ORDER BY measure, side DESC, "rank";
