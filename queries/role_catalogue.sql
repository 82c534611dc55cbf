-- Title:      The role catalogue
-- Question:   which roles of components were measured, in which circuits, and how sure is it?
-- Grain:      one row per circuit, component, role and distribution
-- Key:        circuit, component, role, distribution
-- Parameters: component (default '')
-- Reads:      role_catalogue
-- Reference:  Merullo et al. 2024: heads that return in other circuits
-- Caveat:     of one model's components; roles are told by their words. component empty takes all.
SET VARIABLE component = coalesce(getvariable('component')::VARCHAR, '');
SELECT circuit, component, role, distribution, coverage, lo AS coverage_lo, hi AS coverage_hi
    , null_mean AS scrambled, n, unit, speaks, created
FROM role_catalogue
WHERE getvariable('component') IN ('', component)
QUALIFY row_number()
    OVER (PARTITION BY circuit, component, role, distribution ORDER BY n DESC, coverage) = 1
ORDER BY component, role, circuit, distribution;
