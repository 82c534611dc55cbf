-- Title:      Quantile samples of a component
-- Question:   what does the text look like around the component's own 0.1 % ... 50 % ... 99.9 %
--             activation?
-- Grain:      one row per quantile and sampled position
-- Key:        quantile, position_id
-- Parameters: component (required), per_quantile (default 5)
-- Reads:      samples, quantiles, components, strata
-- Reference:  Nanda 2023, How to Think About Activation Patching: random samples from quantiles,
--             not only the top
-- Caveat:     at most per_quantile rows of each quantile, a random part of the stored ones. A
--             sample is drawn from the whole spectrum bin that holds the quantile, stratum_lo to
--             stratum_hi, so two quantiles in one bin show the same rows; stratum_share is the
--             share of positions in that bin. Of quantiles that tie in one bin (table quantiles has
--             no level for them) the lowest is shown alone. inclusion_probability is that of the
--             stored sample: aggregate from sample_weights.
SET VARIABLE component = required(getvariable('component'), 'component', 'L0H0');
SET VARIABLE per_quantile = coalesce(getvariable('per_quantile')::BIGINT, 5);
WITH shown AS (
    SELECT quantiles.quantile, strata.n / (
        SELECT sum(n) FROM strata WHERE component = getvariable('component')
    ) AS stratum_share
    FROM quantiles JOIN components USING (component_id)
    JOIN strata ON strata.component = components.component AND strata.stratum = quantiles.bin
    WHERE components.component = getvariable('component')
    QUALIFY quantiles.level IS NOT NULL
        OR row_number() OVER (PARTITION BY quantiles.bin ORDER BY quantiles.quantile) = 1
)
SELECT quantile, stratum_lo, stratum_hi, stratum_share, position_id, domain, source, context_before
    , context_token, context_after
    , token, next_token, activation, dla, inclusion_probability
FROM samples JOIN shown USING (quantile)
WHERE component = getvariable('component') AND quantile IS NOT NULL
-- md5 puts positions in an order that has nothing to do with their place in the corpus
QUALIFY row_number()
    OVER (PARTITION BY quantile ORDER BY md5(position_id::VARCHAR), position_id)
        <= getvariable('per_quantile')
ORDER BY quantile, activation, position_id;
