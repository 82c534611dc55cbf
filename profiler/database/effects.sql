-- Tables and views of total effects, added to a run by `profiler effects`. One column a line; the
-- text after `--` becomes the comment in the database (profiler.database.comments). A pass replaces
-- what an earlier one wrote.
--
-- A total effect is (activation - reference) . d sum of the next tokens' centred logits over all
-- ordinary positions of the window / d activation (profiler.effects.methods). What a component does
-- at later positions belongs to the position where it wrote, and what it does through another
-- component is counted for both: total effects of components do not add up to a logit.

CREATE TABLE effect_passes ( -- one row per method of the last pass of total effects
    created VARCHAR, -- ISO 8601, UTC
    settings VARCHAR, -- JSON: everything that changes the numbers
        -- (profiler.effects.settings.EffectSettings)
    method VARCHAR, -- gradient; frozen (attention patterns and denominators of norms held);
        -- integrated (gradients averaged between the reference and what a layer's heads did)
    n_tokens BIGINT, -- tokens that the method read, in windows chosen by hash
    n_positions BIGINT, -- ordinary positions among them, which all means are over
    n_special BIGINT, -- special positions among them, which they leave out
    n_documents BIGINT, -- documents that they are of
    n_corpus BIGINT, -- tokens that the run read
    note VARCHAR, -- what of the run's text was left out, and why
    left_out BIGINT, -- units of routed experts, which have no total effect here
    seconds DOUBLE, -- wall time of the method
    cost DOUBLE -- the same per token, over that of a bare forward pass
);
CREATE TABLE effect_totals ( -- means of effects over ordinary positions, with 95 % jackknife
        -- intervals over documents
    component_id INTEGER, -- component
    method VARCHAR, -- as in effect_passes
    reference VARCHAR, -- what the activation is held against: zero, or its mean over the text
    total DOUBLE, -- mean total effect on the next tokens' logits, logits
    total_lo DOUBLE, -- lower end
    total_hi DOUBLE, -- upper end
    importance DOUBLE, -- mean size of the total effect, logits
    importance_lo DOUBLE, -- lower end
    importance_hi DOUBLE, -- upper end
    direct DOUBLE, -- mean direct effect, the final norm's denominator held, logits
    direct_lo DOUBLE, -- lower end
    direct_hi DOUBLE, -- upper end
    direct_importance DOUBLE, -- mean size of the direct effect, logits
    direct_importance_lo DOUBLE, -- lower end
    direct_importance_hi DOUBLE, -- upper end
    through_importance DOUBLE, -- mean size of total less direct: through later components and norms
    through_importance_lo DOUBLE, -- lower end
    through_importance_hi DOUBLE, -- upper end
    loss DOUBLE, -- mean total effect on the losses, nats; below 0 where the component helps
    loss_lo DOUBLE, -- lower end
    loss_hi DOUBLE, -- upper end
    loss_importance DOUBLE, -- mean size of it, nats
    loss_importance_lo DOUBLE, -- lower end
    loss_importance_hi DOUBLE, -- upper end
    special_importance DOUBLE -- mean size of the total effect at special positions, logits; NULL
        -- where there are none
);
CREATE TABLE effect_checks ( -- estimates beside the real effect: one unit ablated at one position
    component VARCHAR, -- label
    kind VARCHAR, -- head, neuron, mixer or per_layer
    layer INTEGER, -- layer
    position_id BIGINT, -- position
    value VARCHAR, -- what was put in: zero, mean, resample (its value at another position)
    method VARCHAR, -- as in effect_passes
    drawn_by VARCHAR, -- the method whose estimates the case was drawn by
    stratum INTEGER, -- 0: among the largest 1 % of these estimates of its layer and kind, 1: of the
        -- next 9 %, 2: of the rest
    weight DOUBLE, -- units at positions that it stands for
    estimated DOUBLE, -- estimated effect, logits
    exact DOUBLE -- real effect: logits of all positions, unablated minus ablated
);
CREATE TABLE effect_reliability ( -- agreement of estimates with ablations
    method VARCHAR, -- as in effect_passes
    value VARCHAR, -- as in effect_checks
    kind VARCHAR, -- kind of component
    layer INTEGER, -- layer, NULL for all
    threshold DOUBLE, -- size from which an effect counts: a tenth of the largest of its kind
    n BIGINT, -- cases
    pearson DOUBLE, -- correlation
    spearman DOUBLE, -- rank correlation
    sign DOUBLE, -- share of effects that count whose estimate has their sign
    slope DOUBLE, -- of exact on estimated, through 0
    error DOUBLE, -- |estimate - exact| / |exact|
    false_negatives DOUBLE, -- share of effects that count whose estimate is below the threshold
    reliable BOOLEAN -- right signs, error at most 1/2, no false negative
);
CREATE TABLE effect_recall ( -- how many of the real effects stand among the largest estimates
    method VARCHAR, -- as in effect_passes
    value VARCHAR, -- as in effect_checks
    kind VARCHAR, -- kind of component
    threshold DOUBLE, -- size from which an effect counts, logits
    looked_at DOUBLE, -- share of estimates looked at, largest first
    hits DOUBLE, -- effects among them, estimated from the strata
    false_negatives DOUBLE, -- effects among the others
    false_negatives_hi DOUBLE, -- 95 % upper bound of these
    recall DOUBLE, -- hits over hits and false negatives
    recall_lo DOUBLE, -- 95 % lower bound
    n BIGINT -- cases
);
CREATE TABLE effect_repair ( -- self-repair: how much of a head's direct effect comes back when the
        -- head is removed at a position
    component VARCHAR, -- head
    kind VARCHAR, -- head
    layer INTEGER, -- layer
    value VARCHAR, -- what was put in: mean
    n BIGINT, -- positions, drawn with probability as the size of the direct effect
    direct DOUBLE, -- mean size of the direct effect over all ordinary positions, logits
    repaired DOUBLE, -- share of the removed direct effect that comes back; below 0: more is lost
    repaired_lo DOUBLE, -- 95 % interval over documents
    repaired_hi DOUBLE, -- 95 % interval over documents
    by_norm DOUBLE -- the part of it that the final norm's denominator makes
);
CREATE TABLE effect_norms ( -- what a component does through the final norm's denominator alone,
        -- exact for one component removed at the end
    component_id INTEGER, -- component
    scale DOUBLE, -- mean change of the denominator when it is removed, as a part of it
    scale_lo DOUBLE, -- 95 % jackknife interval over documents
    scale_hi DOUBLE, -- 95 % jackknife interval over documents
    scale_size DOUBLE, -- mean size of that change
    scale_size_lo DOUBLE, -- 95 % jackknife interval over documents
    scale_size_hi DOUBLE, -- 95 % jackknife interval over documents
    n_shift BIGINT, -- positions of entropy and margin; NULL for components of smaller change
    entropy DOUBLE, -- mean change of the entropy that the changed denominator makes, nats
    entropy_lo DOUBLE, -- 95 % bootstrap bound over documents
    entropy_hi DOUBLE, -- 95 % bootstrap bound over documents
    margin DOUBLE, -- the same of the next token's logit less the largest other one, logits
    margin_lo DOUBLE, -- 95 % bootstrap bound over documents
    margin_hi DOUBLE -- 95 % bootstrap bound over documents
);
CREATE TABLE effect_routes ( -- through whom: a head's total effect split over what reads its output
    component VARCHAR, -- head
    through VARCHAR, -- a later head, the neurons of a later layer (L1_mlp_out), logits (direct),
        -- final_norm, or other
    input VARCHAR, -- q, k or v of a head; empty elsewhere
    effect DOUBLE, -- mean effect by this way, logits
    size DOUBLE, -- mean size of it, logits
    n BIGINT -- ordinary positions
);

-- View: component_effects
-- One row per component and reference: its direct and total importance by the method that agrees
--   best with ablations of its kind (integrated, gradient, frozen where nothing was ablated).
-- component_id: number
-- component: label
-- kind: head, neuron, mixer or per_layer
-- layer: layer
-- reference: zero or mean
-- method: gradient, frozen or integrated
-- importance: mean size of its total effect, logits
-- importance_lo: 95 % jackknife interval over documents
-- importance_hi: 95 % jackknife interval over documents
-- direct_importance: mean size of its direct effect at the same positions, logits
-- direct_importance_lo: 95 % jackknife interval over documents
-- direct_importance_hi: 95 % jackknife interval over documents
-- through_importance: mean size of total less direct, logits
-- total: mean total effect, logits
-- direct: mean direct effect, logits
-- loss: mean total effect on the losses, nats; below 0 where it helps
-- acts: direct only, through others, both, they cancel, or nothing
-- error: |estimate - ablation| / |ablation| over the cases of its layer and kind; NULL without any
-- reliable: whether estimates of its layer and kind agree with ablations; NULL without any
CREATE VIEW component_effects AS
SELECT component_id, component, kind, layer, reference, method, importance, importance_lo
    , importance_hi, direct_importance, direct_importance_lo, direct_importance_hi
    , through_importance, total, direct, loss
    , effect_words(direct_importance, through_importance, importance) AS acts, error, reliable
FROM (
    SELECT effect_totals.*, components.component, components.kind, components.layer
        , of_layer.error, of_layer.reliable
        , row_number() OVER (
            PARTITION BY effect_totals.component_id, effect_totals.reference
            ORDER BY of_kind.error NULLS LAST, effect_totals.method = 'frozen'
                , effect_totals.method = 'gradient') AS choice
    FROM effect_totals
    JOIN components USING (component_id)
    LEFT JOIN effect_reliability AS of_kind
        ON of_kind.method = effect_totals.method AND of_kind.value = effect_totals.reference
            AND of_kind.kind = components.kind AND of_kind.layer IS NULL
    LEFT JOIN effect_reliability AS of_layer
        ON of_layer.method = effect_totals.method AND of_layer.value = effect_totals.reference
            AND of_layer.kind = components.kind AND of_layer.layer = components.layer
)
WHERE choice = 1;
