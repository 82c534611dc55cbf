-- Title:      Attribution closure
-- Question:   does the DLA of all components add up to the centred logit of the next token?
-- Grain:      one row per chunk of windows
-- Key:        chunk
-- Parameters: none
-- Reads:      closure
-- Reference:  the residual stream is a sum: Elhage et al. 2021, A Mathematical Framework for
--             Transformer Circuits
-- Caveat:     residual is between the sum and the target logit of the final residual stream,
--             logit_residual between that and the model's own logit; relative is the larger over
--             scale. float32 leaves about 1e-6 to 1e-4, a missing term far more. It says that
--             nothing was forgotten, not that DLA is a component's whole effect.
SELECT chunk, n, residual, logit_residual, scale
    , greatest(residual, logit_residual) / nullif(scale, 0) AS relative
FROM closure
ORDER BY chunk;
