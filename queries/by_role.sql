-- Title:      A component by role in a conversation
-- Question:   does it act on what the system, the user, the assistant or a tool says, or on the
--             chat template around it?
-- Grain:      one row per role that a kept position has
-- Key:        role
-- Parameters: component (required)
-- Reads:      pooled_rows, position_rows, documents, jackknife_groups
-- Reference:  delete-a-group jackknife over documents: Wolter, Introduction to Variance Estimation,
--             chapter 4
-- Caveat:     estimated from the component's sampled positions (n of them), each weighted by how
--             many positions it stands for; by_class and by_domain are exact. role is that of the
--             token at the position, not of the next one. template is what the chat template writes
--             around messages; its special tokens are left out, as everywhere. none is text that is
--             no conversation, or one whose roles cannot be told (no_roles in drops). Shares follow
--             the length of what is said: compare share_abs_dla with share_n, or abs_dla between
--             roles.
SET VARIABLE component = required(getvariable('component'), 'component', 'L0H0');
WITH sampled AS MATERIALIZED (
    SELECT coalesce(position_rows.role, 'none') AS role, documents.group_id, pooled_rows.weight
        , pooled_rows.activation::DOUBLE AS activation, pooled_rows.dla::DOUBLE AS dla
    FROM pooled_rows
    JOIN position_rows USING (position_id)
    JOIN documents USING (doc_id)
    WHERE pooled_rows.component = getvariable('component')
)
, roles AS (
    SELECT role, count(*) AS n, count(DISTINCT group_id) AS groups FROM sampled GROUP BY role
)
, of_group AS (
    SELECT group_id, sum(weight) AS n_group, sum(weight * abs(dla)) AS abs_dla_group
    FROM sampled GROUP BY group_id
)
, of_role AS (
    -- every role in every group, whether it stands there or not
    SELECT cell.role, cell.group_id, n_group, abs_dla_group, coalesce(sum(weight), 0) AS n
        , coalesce(sum(weight * activation), 0) AS activation
        , coalesce(sum(weight * dla), 0) AS dla
        , coalesce(sum(weight * abs(dla)), 0) AS abs_dla
    FROM (SELECT role, group_id, n_group, abs_dla_group FROM roles CROSS JOIN of_group) AS cell
    LEFT JOIN sampled ON sampled.role = cell.role AND sampled.group_id = cell.group_id
    GROUP BY cell.role, cell.group_id, n_group, abs_dla_group
)
, ratios AS (
    SELECT {'role': role, 'measure': part.measure} AS key, group_id, part.above, part.below
    FROM (
        SELECT role, group_id, unnest([
            {'measure': 'share_n', 'above': n, 'below': n_group}
            , {'measure': 'activation', 'above': activation, 'below': n}
            , {'measure': 'dla', 'above': dla, 'below': n}
            , {'measure': 'abs_dla', 'above': abs_dla, 'below': n}
            , {'measure': 'share_abs_dla', 'above': abs_dla, 'below': abs_dla_group}
        ]) AS part FROM of_role
    )
)
, estimates AS (
    -- a share ends at 0 and at 1
    SELECT key.role AS role, key.measure AS measure, ratio, se
        , CASE WHEN key.measure = 'share_abs_dla' THEN greatest(0, ratio - t * se)
            ELSE ratio - t * se END AS lo
        , CASE WHEN key.measure = 'share_abs_dla' THEN least(1, ratio + t * se)
            ELSE ratio + t * se END AS hi
        , se IS NOT NULL AS told
    FROM jackknife_ratios('ratios')
)
SELECT role, roles.n, max(ratio) FILTER (measure = 'share_n') AS share_n
    , max(ratio) FILTER (measure = 'activation') AS activation
    , max(se) FILTER (measure = 'activation') AS activation_se
    , max(lo) FILTER (measure = 'activation') AS activation_lo
    , max(hi) FILTER (measure = 'activation') AS activation_hi
    , max(ratio) FILTER (measure = 'dla') AS dla
    , max(se) FILTER (measure = 'dla') AS dla_se
    , max(lo) FILTER (measure = 'dla') AS dla_lo
    , max(hi) FILTER (measure = 'dla') AS dla_hi
    , max(ratio) FILTER (measure = 'abs_dla') AS abs_dla
    , max(se) FILTER (measure = 'abs_dla') AS abs_dla_se
    , max(lo) FILTER (measure = 'abs_dla') AS abs_dla_lo
    , max(hi) FILTER (measure = 'abs_dla') AS abs_dla_hi
    , max(ratio) FILTER (measure = 'share_abs_dla') AS share_abs_dla
    , max(se) FILTER (measure = 'share_abs_dla') AS share_abs_dla_se
    -- greatest and least pass over a NULL: without an error there is no interval
    , max(lo) FILTER (measure = 'share_abs_dla' AND told) AS share_abs_dla_lo
    , max(hi) FILTER (measure = 'share_abs_dla' AND told) AS share_abs_dla_hi
    , roles.groups
FROM estimates JOIN roles USING (role)
GROUP BY role, roles.n, roles.groups
ORDER BY role = 'none', role = 'template', share_n DESC, role;
