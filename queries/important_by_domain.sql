-- Title:      Most important components of each domain
-- Question:   which heads and neurons matter most in each domain, and are they the same ones?
-- Grain:      one row per domain and rank
-- Key:        domain, rank
-- Parameters: top (default 10)
-- Reads:      cell_sums, group_counts, presence_counts, components, classes
-- Reference:  delete-a-group jackknife over documents: Wolter, Introduction to Variance Estimation,
--             chapter 4
-- Caveat:     ranks are of estimates: neighbours whose intervals overlap may change places on more
--             text. share_abs_dla, which ranks are by, is of the domain's sum over all heads and
--             neurons. Of an expert's neuron n counts the positions where its expert was chosen,
--             and abs_dla is the mean over these. top 0 shows all.
SET VARIABLE top = coalesce(getvariable('top')::BIGINT, 10);
WITH sizes AS (
    SELECT domain, group_id, count(*) OVER (PARTITION BY domain) AS n_groups
    FROM group_counts WHERE axis = 'domain' GROUP BY domain, group_id
)
, present AS (
    -- positions where a component is present: all of them, but for experts
    SELECT presence, domain, group_id, sum(n) AS group_n
        , sum(sum(n)) OVER (PARTITION BY presence, domain) AS n
    FROM presence_counts WHERE axis = 'domain' GROUP BY presence, domain, group_id
)
, sums AS (
    -- 0 in a group where an expert was not chosen
    SELECT component_id, presence, group_id, sum(sum_abs_dla) AS group_abs_dla
    FROM (
        SELECT cell_sums.component_id, components.presence, cell_sums.group_id
            , cell_sums.sum_abs_dla
        FROM cell_sums
        JOIN components USING (component_id)
        JOIN classes ON classes.class_id = cell_sums.value_id AND NOT classes.special
        WHERE cell_sums.axis = 'class' AND components.unit IS NOT NULL
            AND NOT described(components.kind)
        UNION ALL
        SELECT components.component_id, components.presence, sizes.group_id, 0
        FROM components JOIN sizes ON components.presence > 0
    )
    GROUP BY component_id, presence, group_id
)
, placed AS (
    SELECT sums.component_id, sizes.domain, present.n, sizes.n_groups
        , coalesce(own.group_n, 0) AS group_n
        , sums.group_abs_dla
        , sum(sums.group_abs_dla)
            OVER (PARTITION BY sums.component_id, sizes.domain) AS domain_abs_dla
        , sum(sums.group_abs_dla) OVER (PARTITION BY sizes.domain, sizes.group_id) AS group_all
        , sum(sums.group_abs_dla) OVER (PARTITION BY sizes.domain) AS domain_all
    FROM sums
    JOIN sizes USING (group_id)
    JOIN (SELECT DISTINCT presence, domain, n FROM present) AS present
        ON present.presence = sums.presence AND present.domain = sizes.domain
    LEFT JOIN present AS own ON own.presence = sums.presence AND own.group_id = sums.group_id
)
, estimates AS (
    -- one domain alone: how its rest is weighted cancels in a ratio
    SELECT domain, component_id, n::BIGINT AS n, domain_abs_dla / n AS abs_dla
        , domain_abs_dla / nullif(domain_all, 0) AS share_abs_dla, n_groups AS groups
        , sqrt(domain_variance((domain_abs_dla - group_abs_dla) / nullif(n - group_n, 0)
            - domain_abs_dla / n, n_groups)) AS abs_dla_se
        , sqrt(domain_variance((domain_abs_dla - group_abs_dla) / nullif(domain_all - group_all, 0)
            - domain_abs_dla / nullif(domain_all, 0), n_groups)) AS share_abs_dla_se
    FROM placed GROUP BY domain, component_id, n, domain_abs_dla, domain_all, n_groups
)
SELECT domain
    , row_number() OVER (PARTITION BY domain ORDER BY abs_dla * n DESC, component_id) AS "rank"
    , component, kind, n
    , abs_dla, abs_dla_se, abs_dla - t975(groups - 1) * abs_dla_se AS abs_dla_lo
    , abs_dla + t975(groups - 1) * abs_dla_se AS abs_dla_hi
    , share_abs_dla, share_abs_dla_se, groups
FROM estimates JOIN components USING (component_id)
QUALIFY getvariable('top') = 0 OR "rank" <= getvariable('top')
ORDER BY domain, "rank";
