-- Title:      Specific to general, incomplete to complete
-- Question:   how general and how complete is what is known of the circuit and of each member?
-- Grain:      one row per claim (subject and role)
-- Key:        subject, role
-- Parameters: check_id (default '')
-- Reads:      ledger, checks, latest_check
-- Reference:  the two axes of understanding in How to think about activation patching (2023)
-- Caveat:     circuit: generality is the mean over wider distributions of 1 - |1 - faithfulness|,
--             over that of the discovery prompts; completeness the mean necessity. Component:
--             generality is its role's smallest coverage off the discovery prompts, completeness
--             the effect explained when the role replaces the component, or its coverage on most
--             examples where it was not replaced. A general form is what a role that names
--             positions of prompts would be if it were claimed of every position. Both cut to 0..1.
--             check_id empty takes the one written last.
SET VARIABLE check_id = coalesce(getvariable('check_id')::VARCHAR, '');
WITH own AS (
    -- findings with a number
    SELECT ledger.*, checks.circuit FROM ledger JOIN checks USING (check_id)
    WHERE ledger.check_id = chosen_check(getvariable('check_id'))
        AND ledger.value IS NOT NULL
)
, circuit AS (
    -- ordinal 0 is the discovery prompts, larger ordinals are wider distributions
    SELECT subject, role, avg(1 - abs(1 - value)) FILTER (technique <> 'necessity' AND ordinal > 0)
            / nullif(any_value(1 - abs(1 - value)) FILTER (technique <> 'necessity' AND ordinal = 0)
                , 0) AS generality
        , avg(value) FILTER (technique = 'necessity') AS completeness
        , 'necessity' AS completeness_by
        , count(*) FILTER (technique <> 'necessity' AND ordinal > 0) AS distributions
    FROM own WHERE subject = circuit AND statistic IN ('faithfulness', 'necessity')
        AND technique IN ('faithfulness', 'corpus faithfulness', 'necessity')
    GROUP BY subject, role
)
, component AS (
    SELECT subject, role
        , CASE WHEN general_form_of = '' THEN 'component' ELSE 'general form' END AS kind
        , min(value) FILTER (technique = 'coverage' AND coalesce(ordinal, 1) > 0) AS generality
        , coalesce(arg_max(value, n) FILTER (technique = 'replacement')
            , arg_max(value, n)
                FILTER (technique = 'coverage' AND coalesce(ordinal, 1) > 0)) AS completeness
        , CASE WHEN bool_or(technique = 'replacement') THEN 'replacement'
            ELSE 'coverage' END AS completeness_by
        , count(*) FILTER (technique = 'coverage' AND coalesce(ordinal, 1) > 0) AS distributions
    FROM own WHERE subject <> circuit AND role <> ''
        AND ((technique = 'coverage' AND statistic = 'coverage')
            OR (technique = 'replacement' AND statistic = 'explained'))
    GROUP BY subject, role, general_form_of
)
SELECT subject, role, greatest(0, least(1, generality)) AS generality
    , greatest(0, least(1, completeness)) AS completeness, completeness_by, distributions, kind
FROM (SELECT *, 'circuit' AS kind FROM circuit UNION ALL BY NAME FROM component)
ORDER BY kind, subject, role;
