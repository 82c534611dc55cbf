-- Title:      Most important components of each domain
-- Question:   which heads and neurons matter most in each domain, and are they the same ones?
-- Grain:      one row per domain and rank
-- Key:        domain, rank
-- Parameters: top (default 10)
-- Reads:      cell_sums, group_counts, components, classes
-- Reference:  delete-a-group jackknife over documents: Wolter, Introduction to Variance Estimation, chapter 4
-- Caveat:     ranks are of estimates: neighbours whose intervals overlap may change places on more text. share_abs_dla is
--             of the domain's sum over all heads and neurons. top 0 shows all.
SET VARIABLE top = coalesce(getvariable('top')::BIGINT, 10);
WITH sizes AS (
    SELECT domain, group_id, sum(n) AS n_g, sum(sum(n)) OVER (PARTITION BY domain) AS n, count(*) OVER (PARTITION BY domain) AS g
    FROM group_counts WHERE axis = 'domain' GROUP BY domain, group_id
)
, sums AS (
    SELECT s.component_id, s.group_id, sum(s.sum_abs_dla) AS m_g
    FROM cell_sums s
    JOIN components c USING (component_id)
    JOIN classes k ON k.class_id = s.value_id AND NOT k.special
    WHERE s.axis = 'class' AND c.kind IN ('head', 'neuron')
    GROUP BY s.component_id, s.group_id
)
, placed AS (
    SELECT s.component_id, z.domain, z.n, z.g, z.n_g, s.m_g, sum(s.m_g) OVER (PARTITION BY s.component_id, z.domain) AS m
        , sum(s.m_g) OVER (PARTITION BY z.domain, z.group_id) AS all_g, sum(s.m_g) OVER (PARTITION BY z.domain) AS all_m
    FROM sums s JOIN sizes z USING (group_id)
)
, estimates AS (
    SELECT domain, component_id, n::BIGINT AS n, m / n AS abs_dla, m / nullif(all_m, 0) AS share_abs_dla, g AS groups
        , sqrt(domain_variance((m - m_g) / nullif(n - n_g, 0) - m / n, g)) AS abs_dla_se
        , sqrt(domain_variance((m - m_g) / nullif(all_m - all_g, 0) - m / nullif(all_m, 0), g)) AS share_abs_dla_se
    FROM placed GROUP BY domain, component_id, n, m, all_m, g
)
SELECT domain, row_number() OVER (PARTITION BY domain ORDER BY abs_dla DESC, component_id) AS "rank", component, kind, n
    , abs_dla, abs_dla_se, abs_dla - t975(groups - 1) * abs_dla_se AS abs_dla_lo, abs_dla + t975(groups - 1) * abs_dla_se AS abs_dla_hi
    , share_abs_dla, share_abs_dla_se, groups
FROM estimates JOIN components USING (component_id)
QUALIFY getvariable('top') = 0 OR "rank" <= getvariable('top')
ORDER BY domain, "rank";
