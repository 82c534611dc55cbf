-- Title:      Mixture of behaviours
-- Question:   how does the component's importance divide among behaviours, and how much is left
--             unexplained?
-- Grain:      one row per slice (all, each domain, each band of activation) and behaviour;
--             unexplained is one of them
-- Key:        slice, value, behaviour
-- Parameters: component (required), behaviours (default ''), rule (default 'priority'), min_lift
--             (default 2.0)
-- Reads:      behaviour_marks, behaviours, component_facts, jackknife_groups
-- Reference:  delete-a-group jackknife over documents, interval on the logit scale; an explicit
--             unexplained share: design rule of evidence 6
-- Caveat:     shares of the sum of |DLA|; in a slice they add up to 1. Overlaps: rule priority
--             gives a position to the behaviour of the smallest priority that holds there (table
--             behaviours), rule equal divides it among all that hold. behaviours is a list
--             separated by commas, in the order of their priority; '' takes the attention
--             behaviours of a head and the token and context behaviours of a neuron, with the
--             user's own; of token and context behaviours only those with coverage of at least
--             min_lift times their rate among all positions, chosen on the same rows: a choice to
--             confirm on another run. A band is named by the quantile that it begins at; share_n is
--             the share of positions that are really in the slice, and quantiles that ties leave no
--             level near to are no bands. scrambled: the share that the behaviour would have were
--             its places permuted among the positions of each domain: compare slices by share above
--             it.
SET VARIABLE component = required(getvariable('component'), 'component', 'L0H0');
SET VARIABLE behaviours = coalesce(getvariable('behaviours')::VARCHAR, '');
SET VARIABLE rule = coalesce(getvariable('rule')::VARCHAR, 'priority');
SET VARIABLE min_lift = coalesce(getvariable('min_lift')::DOUBLE, 2.0);
WITH asked AS (
    SELECT behaviour, priority
    FROM behaviours
    WHERE getvariable('behaviours') = '' AND priority IS NOT NULL
    UNION ALL
    SELECT trim(given.name), given.ordinal FROM (
        SELECT unnest(string_split(getvariable('behaviours'), ',')) AS name
            , generate_subscripts(string_split(getvariable('behaviours'), ','), 1) AS ordinal
    ) AS given WHERE getvariable('behaviours') <> ''
)
, facts AS MATERIALIZED (
    SELECT position_id, group_id, doc_id, domain, band, weight
        , weighted_importance(weight, dla) AS importance
    FROM component_facts
    WHERE component = getvariable('component')
)
, total AS (
    SELECT sum(weight) AS weights, sum(importance) AS importance FROM facts
)
, marks AS MATERIALIZED (
    SELECT position_id, behaviour, family, kind, weight AS weights
        , weighted_importance(weight, dla) AS importance, holds
    FROM behaviour_marks
    WHERE component = getvariable('component') AND behaviour IN (SELECT behaviour FROM asked)
)
, taking_part AS (
    -- a token or context behaviour must cover min_lift times more than its rate
    SELECT behaviour FROM marks GROUP BY behaviour, family, kind
    HAVING getvariable('behaviours') <> '' OR family IN ('attention', 'user') OR kind <> 'head'
        AND sum(importance) FILTER (holds) / nullif((
            SELECT importance FROM total
        ) - sum_where(importance, holds IS NULL), 0)
            >= getvariable('min_lift') * sum(weights) FILTER (holds) / ((
                SELECT weights FROM total
            ) - sum_where(weights, holds IS NULL))
)
, holding AS (
    -- who gets a position where several behaviours hold
    SELECT position_id, behaviour
        , CASE WHEN getvariable('rule') = 'equal' THEN 1 / count(*) OVER at_position
            ELSE (row_number()
                OVER (at_position ORDER BY priority, behaviour) = 1)::INTEGER END::DOUBLE AS part
    FROM marks SEMI JOIN taking_part USING (behaviour) JOIN asked USING (behaviour)
    WHERE holds WINDOW at_position AS (PARTITION BY position_id)
)
, parts AS (
    SELECT position_id, behaviour, part FROM holding WHERE part > 0
    UNION ALL
    SELECT facts.position_id, 'unexplained', 1 FROM facts ANTI JOIN holding USING (position_id)
)
, slices AS (
    -- each row stands in three slices: all, its domain, its band
    SELECT facts.*, named.slice, named.value FROM facts CROSS JOIN LATERAL (
        SELECT unnest(['all', 'domain', 'quantile']) AS slice
            , unnest(['all', facts.domain, format('{:g}', facts.band)]) AS value
    ) AS named
)
, whole AS (
    SELECT slice, value, sum(importance) AS importance, sum(weight) AS weights, count(*) AS n_slice
    FROM slices
    GROUP BY slice, value
)
, groups AS (
    SELECT slice, value, group_id, sum(importance) AS group_importance
        , sum(document_importance ** 2) AS group_importance_squared
    FROM (
        SELECT slice, value, group_id, doc_id, sum(importance) AS importance
            , sum(importance) AS document_importance
        FROM slices
        GROUP BY slice, value, group_id, doc_id
    ) GROUP BY slice, value, group_id
)
, documents AS (
    SELECT slice, value
        , sum(group_importance) ** 2 / nullif(sum(group_importance_squared), 0) AS documents
    FROM groups
    GROUP BY slice, value
)
, cells AS (
    SELECT slice, value, behaviour, group_id, sum(part * importance) AS group_cell_importance
        , count(*) AS group_n
    FROM slices JOIN parts USING (position_id) GROUP BY slice, value, behaviour, group_id
)
, sums AS (
    SELECT slice, value, behaviour, sum(group_cell_importance) AS cell_importance, sum(group_n) AS n
    FROM cells
    GROUP BY slice, value, behaviour
    UNION ALL
    SELECT whole.slice, whole.value, 'unexplained', 0, 0 FROM whole
    WHERE NOT EXISTS (
        SELECT 1
        FROM cells
        WHERE cells.slice = whole.slice AND cells.value = whole.value
            AND cells.behaviour = 'unexplained'
    )
)
, ratios AS (
    -- every behaviour in every group of a slice, whether it holds there or not
    SELECT {'slice': sums.slice, 'value': sums.value, 'behaviour': sums.behaviour} AS key
        , groups.group_id, coalesce(cells.group_cell_importance, 0) AS above
        , groups.group_importance AS below
    FROM sums
    JOIN groups ON groups.slice = sums.slice AND groups.value = sums.value
    LEFT JOIN cells
        ON cells.slice = sums.slice AND cells.value = sums.value
            AND cells.behaviour = sums.behaviour AND cells.group_id = groups.group_id
)
, rates AS (
    -- how often each behaviour is given a position of a domain, whatever the component writes there
    SELECT facts.domain, parts.behaviour
        , sum(parts.part * facts.weight) / any_value(totals.weights) AS rate
    FROM facts
    JOIN parts USING (position_id)
    JOIN (SELECT domain, sum(weight) AS weights FROM facts GROUP BY domain) AS totals USING (domain)
    GROUP BY facts.domain, parts.behaviour
)
, scrambled AS (
    SELECT by_slice.slice, by_slice.value, rates.behaviour
        , sum(by_slice.importance * rates.rate) AS cell_importance
    FROM (
        SELECT slice, value, domain, sum(importance) AS importance
        FROM slices
        GROUP BY slice, value, domain
    ) AS by_slice
    JOIN rates USING (domain)
    GROUP BY by_slice.slice, by_slice.value, rates.behaviour
)
, errors AS (
    SELECT sums.slice, sums.value, sums.behaviour, sums.cell_importance, sums.n, whole.importance
        , whole.weights, whole.n_slice, jackknifed.se, jackknifed.t
    FROM jackknife_ratios('ratios') AS jackknifed
    JOIN sums
        ON sums.slice = jackknifed.key.slice AND sums.value = jackknifed.key.value
            AND sums.behaviour = jackknifed.key.behaviour
    JOIN whole ON whole.slice = sums.slice AND whole.value = sums.value
    WHERE whole.importance > 0
)
SELECT errors.slice, errors.value, errors.behaviour
    , errors.cell_importance / errors.importance AS share, errors.se AS share_se
    , share_lo(least(1, errors.cell_importance / errors.importance), errors.se, errors.t
        , documents.documents) AS share_lo
    , share_hi(least(1, errors.cell_importance / errors.importance), errors.se, errors.t
        , documents.documents) AS share_hi
    , coalesce(scrambled.cell_importance, 0) / errors.importance AS scrambled, errors.n::BIGINT AS n
    , errors.n_slice::BIGINT AS n_slice, errors.weights / (
        SELECT weights FROM total
    ) AS share_n
    , errors.importance / (SELECT importance FROM whole WHERE slice = 'all') AS importance_share
FROM errors
JOIN documents ON documents.slice = errors.slice AND documents.value = errors.value
LEFT JOIN scrambled
    ON scrambled.slice = errors.slice AND scrambled.value = errors.value
        AND scrambled.behaviour = errors.behaviour
ORDER BY errors.slice, errors.value, errors.behaviour = 'unexplained', round(share, 9) DESC
    , errors.behaviour;
