-- Tables and views of patching and circuits, added to a run or to a file of their own. One column a
-- line; the text after `--` becomes the comment in the database (profiler.database.comments).
--
-- Every number names its six values (Miller et al. 2024): granularity, component kind, value,
-- positions, direction, set. Shares are parts of the clean minus the corrupted metric, the logit
-- difference unless patch_experiments.metric says otherwise,
-- both averaged over pairs first. Direction `denoise` puts clean values into the corrupted run
-- (sufficiency), `noise` other values into the clean run (necessity). Writing an experiment again
-- replaces its rows.
--
-- A line SIX in a table stands for the columns of the six values, which are named here once
-- (profiler.patching.experiment_store.text):
--| granularity VARCHAR, -- first of the six values of every number: node, or edge group (one input
--|     -- of a head)
--| component_kind VARCHAR, -- second: the site patched: head, q, k, v, pattern, neuron, mlp_out,
--|     -- attn_out, resid_pre, mixer_out, mixer, per_layer, shared, expert
--| value VARCHAR, -- third: what was put in: resample, zero, mean, noise
--| positions VARCHAR, -- fourth: all, or the role of the positions patched
--| direction VARCHAR, -- fifth: denoise (clean into corrupted), noise (other into clean), or what a
--|     -- table says
--| pair_set VARCHAR -- sixth: the set of pairs: discovery, test, held_out, crossed

CREATE TABLE patch_experiments ( -- experiments: one task, one corruption scheme, one model
    experiment VARCHAR, -- experiment (patch_experiments)
    task VARCHAR, -- built-in task, or name of the user's file of pairs
    scheme VARCHAR, -- corruption scheme
    created VARCHAR, -- ISO 8601, UTC
    model VARCHAR, -- the model as it was named by the user
    model_hash VARCHAR, -- blake2b of its weights
    settings VARCHAR, -- JSON: everything that changes the numbers
        -- (profiler.patching.setting.PatchSettings)
    n_pairs BIGINT, -- pairs of the discovery set
    n_dropped BIGINT, -- pairs drawn and not usable; patch_checks says why
    metric VARCHAR, -- what circuits are judged by: logit_diff, prob_diff, kl, accuracy, or a
        -- function of the user's own with its file and a hash of it
    metric_words VARCHAR, -- the metric in words
    metric_unit VARCHAR, -- unit of the metric
    selected_by VARCHAR, -- the metric of patch_effects, patch_shares and attribution, by which
        -- members are selected; logit_diff where the gradient of metric is zero almost everywhere
    metric_clean DOUBLE, -- mean metric of the clean prompts
    metric_corrupted DOUBLE, -- the same of the corrupted prompts
    neutral DOUBLE, -- share recovered by an output that knows nothing: 1/2 where the corruption is
        -- symmetric
    is_symmetric BOOLEAN, -- whether the corrupted prompt asks the same question with a distractor
        -- as its answer
    means_by_template DOUBLE, -- share of pairs whose mean values are of their own template and
        -- length
    seconds DOUBLE, -- wall time
    versions VARCHAR -- JSON: versions of the libraries
);
CREATE TABLE patch_pairs ( -- the pairs of every set, with what the model did on them
    experiment VARCHAR, -- experiment (patch_experiments)
    pair_set VARCHAR, -- discovery, test or held_out
    pair BIGINT, -- number in the set, from 0
    name VARCHAR, -- the pair's name
    scheme VARCHAR, -- corruption scheme
    template VARCHAR, -- wording
    split VARCHAR, -- whether words and wording are of training or held out from it
    clean VARCHAR, -- clean prompt, as text
    corrupted VARCHAR, -- corrupted prompt, as text
    answers VARCHAR[], -- right continuations
    distractors VARCHAR[], -- wrong continuations of the same form
    n_tokens INTEGER, -- tokens of the prompt, BOS included
    roles VARCHAR, -- JSON: role to offsets
    strata VARCHAR, -- JSON: stratum to value
    metric_clean DOUBLE, -- metric of the clean prompt (patch_experiments.metric)
    metric_corrupted DOUBLE -- of the corrupted prompt
);
CREATE TABLE patch_checks ( -- the pair linter: what the pairs control, on purpose and by accident
    experiment VARCHAR, -- experiment (patch_experiments)
    pair_set VARCHAR, -- discovery, test or held_out
    check_number INTEGER, -- order of the check
    check_name VARCHAR, -- what was checked
    finding VARCHAR, -- what was found, in words
    size DOUBLE, -- the finding as a number, where it has one
    level VARCHAR -- ok, note or warning
);
CREATE TABLE patch_effects ( -- one row per patched component, direction, value and pair: the metric
    -- panel
    experiment VARCHAR, -- experiment (patch_experiments)
    component VARCHAR, -- label: L2H3, L2H3.q, L2N17, L2_mlp_out
    layer INTEGER, -- layer
    pair BIGINT, -- number of the pair in its set
    effect DOUBLE, -- change of the metric (patch_experiments.selected_by), patched minus unpatched
        -- run
    logit_diff DOUBLE, -- mean logit of the answers minus mean logit of the distractors, patched run
    answer_logit DOUBLE, -- mean logit of the answers, centred over the vocabulary
    distractor_logit DOUBLE, -- mean logit of the distractors, centred
    log_prob DOUBLE, -- ln probability of all answers together, nats
    prob DOUBLE, -- probability of all answers together
    "rank" DOUBLE, -- tokens above the best answer
    top1 DOUBLE, -- 1 where an answer is the first choice
    entropy DOUBLE, -- of the next token, nats
    kl_from_reference DOUBLE, -- KL(clean || patched), nats, summed over the vocabulary
    kl_to_reference DOUBLE, -- KL(patched || clean), nats
    js DOUBLE, -- Jensen-Shannon divergence to the clean run, nats
    SIX
);
CREATE TABLE patch_shares ( -- one row per patched component, direction and value: what it recovered
    -- or lost
    experiment VARCHAR, -- experiment (patch_experiments)
    component VARCHAR, -- label
    layer INTEGER, -- layer
    share DOUBLE, -- recovered_denoise or lost_noise: ratio of the means over pairs
    share_lo DOUBLE, -- 95 % bootstrap bound over pairs
    share_hi DOUBLE, -- 95 % bootstrap bound over pairs
    median DOUBLE, -- median of the single pairs' shares
    quartile_lo DOUBLE, -- lower quartile of these
    quartile_hi DOUBLE, -- upper quartile of these
    excluded BIGINT, -- pairs left out of median and quartiles: tiny denominator
    n BIGINT, -- pairs
    p DOUBLE, -- two-sided, sign flips over pairs
    p_adjusted DOUBLE, -- p within site, positions, direction and value: step-down of the largest
        -- statistic over joint sign flips
    p_least DOUBLE, -- least p that these pairs and flips can give
    verdict VARCHAR, -- effect; no effect (90 % interval within 2 %); inconclusive
    neutral DOUBLE, -- share that an output that knows nothing would recover; NULL for noise
    excess DOUBLE, -- share beyond the neutral level; NULL for noise
    fix DOUBLE, -- change of the answers' centred logit, logits
    "break" DOUBLE, -- minus the change of the distractors' centred logit, logits
    SIX
);
CREATE TABLE patch_gates ( -- both directions side by side, resampled values, and the label they
    -- give
    experiment VARCHAR, -- experiment (patch_experiments)
    component VARCHAR, -- label
    layer INTEGER, -- layer
    recovered_denoise DOUBLE, -- sufficiency: share that clean values recover in the corrupted run
    lost_noise DOUBLE, -- necessity: share that corrupted values cost the clean run
    gate VARCHAR, -- sufficient and necessary, OR-like, AND-like, partial, none
    SIX
);
CREATE TABLE patch_downstream ( -- what each later component writes differently after one is ablated
    experiment VARCHAR, -- experiment (patch_experiments)
    ablated VARCHAR, -- the component taken away
    component VARCHAR, -- a component after it, itself, final_norm, or all
    part VARCHAR, -- direct (the ablated one), head, mlp, norm (closed form), total; direct + head +
        -- mlp + norm = total
    delta_dla DOUBLE, -- mean change of its direct logit attribution to the logit difference, logits
    delta_dla_lo DOUBLE, -- 95 % bootstrap bound
    delta_dla_hi DOUBLE, -- 95 % bootstrap bound
    p DOUBLE, -- two-sided, sign flips over pairs
    p_least DOUBLE, -- least p that these pairs can give
    n BIGINT, -- pairs
    SIX
);
CREATE TABLE patch_interactions ( -- two components alone and together
    experiment VARCHAR, -- experiment (patch_experiments)
    first VARCHAR, -- the earlier component
    second VARCHAR, -- the later one
    share_first DOUBLE, -- share of the first alone
    share_second DOUBLE, -- share of the second alone
    share_together DOUBLE, -- share of both patched together
    interaction DOUBLE, -- together minus the sum
    super_additivity DOUBLE, -- together over the sum
    p DOUBLE, -- two-sided, sign flips over pairs, that the interaction is 0
    p_least DOUBLE, -- least p that these pairs can give
    delta_dla DOUBLE, -- change of the second's DLA when the first is noised, logits
    relation VARCHAR, -- serial, parallel, composed, independent or inconclusive
        -- (profiler.patching.redundancy.gates); two heads of a layer cannot be serial or composed
    SIX
);
CREATE TABLE patch_saturation ( -- share recovered by sets of top components, over random orders
    experiment VARCHAR, -- experiment (patch_experiments)
    size BIGINT, -- components patched together
    share DOUBLE, -- mean share over orders
    lowest DOUBLE, -- smallest share of an order
    highest DOUBLE, -- largest share of an order
    component VARCHAR, -- a component, listed by its rank alone
    shapley DOUBLE, -- its mean gain over orders; they add up to the share of all
    orders BIGINT, -- random orders
    SIX
);
CREATE TABLE patch_attribution ( -- attribution patching beside exact patching, target by target
    experiment VARCHAR, -- experiment (patch_experiments)
    component VARCHAR, -- label
    layer INTEGER, -- layer
    method VARCHAR, -- gradient, integrated (over embeddings between the prompts), qk_fix (q and k
        -- alone), grad_drop (a size)
    estimated DOUBLE, -- estimated share
    exact DOUBLE, -- exact share
    patch_size DOUBLE, -- mean |given - live| / |live|
    size_bin VARCHAR, -- bin of patch_size
    saturated BOOLEAN, -- the activation is flat in the patched run and not in the donor
    use_exact BOOLEAN, -- the estimate is not to be believed here: flagged as saturated (not for
        -- qk_fix), a false negative, or wrong
    SIX
);
CREATE TABLE patch_reliability ( -- agreement of attribution with exact patching, cell by cell
    experiment VARCHAR, -- experiment (patch_experiments)
    method VARCHAR, -- gradient, integrated, qk_fix or grad_drop
    layer INTEGER, -- layer of the cell, NULL for all
    size_bin VARCHAR, -- patch size of the cell, NULL for all
    n BIGINT, -- targets
    pearson DOUBLE, -- correlation
    spearman DOUBLE, -- rank correlation
    sign DOUBLE, -- share of effects of at least 2 % with the right sign
    slope DOUBLE, -- of exact on estimated, through 0
    error DOUBLE, -- |estimate - exact| / |exact|
    false_negatives DOUBLE, -- share of effects of at least 2 % estimated below that
    reliable BOOLEAN, -- right signs, error at most 1/2, no false negative
    nonlinearity DOUBLE, -- largest distance of the metric from a straight line between the prompts,
        -- over its whole change
    bound DOUBLE, -- 95 % upper bound of neurons with an effect among those not patched exactly
    SIX
);
CREATE TABLE patch_recall ( -- how many of the largest effects attribution patching puts among its
    -- own largest
    experiment VARCHAR, -- experiment (patch_experiments)
    method VARCHAR, -- gradient, integrated, qk_fix, grad_drop; any (neurons: the largest by any of
        -- them)
    top BIGINT, -- exact effects asked for, largest first; NULL for all of at least 2 %
    looked_at BIGINT, -- estimates, largest first, that would be patched exactly
    wanted BIGINT, -- how many were asked for: top, or those of at least 2 % (that were patched
        -- exactly)
    hits BIGINT, -- those of them among looked_at
    recall DOUBLE, -- hits over wanted; for neurons over what a random sample of the others makes of
        -- all neurons
    recall_lo DOUBLE, -- 95 % lower bound, from the sample; recall itself where everything was
        -- patched exactly
    false_negatives_hi DOUBLE, -- 95 % upper bound of effects not among looked_at
    n BIGINT, -- targets that were patched exactly
    unpatched BIGINT, -- targets of the model that were not
    SIX
);
CREATE TABLE patch_cells ( -- corruption schemes crossed: what a component's value from each
    -- combination costs the clean run
    experiment VARCHAR, -- experiment (patch_experiments)
    component VARCHAR, -- label of a head or MLP; model for the whole model on the corrupted prompt
    layer INTEGER, -- layer, NULL for the model
    cell VARCHAR, -- the corruptions made together, such as s_only + swapped; as it is for none
    lost DOUBLE, -- mean loss of logit difference, logits
    n BIGINT, -- prompts
    n_dropped BIGINT, -- prompts left out because some combination of theirs cannot be asked
    SIX
);
CREATE TABLE patch_factors ( -- main effects and interactions of the corruptions, component by
        -- component (profiler.patching.factorial)
    experiment VARCHAR, -- experiment (patch_experiments)
    component VARCHAR, -- label of a head or MLP; model for the whole model on the corrupted prompt
    layer INTEGER, -- layer, NULL for the model
    axis VARCHAR, -- a corruption; two of them, a x b, for their interaction; higher for the rest
        -- together
    changes BIGINT, -- corruptions named by axis: 1 main effect, 2 interaction, 3 the rest
    effect DOUBLE, -- main effect: loss with it minus without it, over all levels of the others;
        -- interaction: by how much the one's effect differs with the other, logits
    effect_lo DOUBLE, -- 95 % bootstrap bound over prompts
    effect_hi DOUBLE, -- 95 % bootstrap bound over prompts
    part DOUBLE, -- share of the sum of squares over combinations; a component's parts add up to 1
    p DOUBLE, -- two-sided, sign flips over prompts
    p_adjusted DOUBLE, -- p over components, for each axis: step-down of the largest statistic over
        -- joint sign flips; for the model p itself
    p_least DOUBLE, -- least p that these prompts and flips can give
    n BIGINT, -- prompts
    n_dropped BIGINT, -- prompts left out because some combination of theirs cannot be asked
    SIX
);
CREATE TABLE patch_paths ( -- what a path carries, and the same path from other senders
    experiment VARCHAR, -- name of an experiment of these settings, which need not be in the run
    path VARCHAR, -- components from the sender on, with : between them
    sender VARCHAR, -- its first component, or another that is put in its stead
    is_control BOOLEAN, -- whether the sender is another one
    share DOUBLE, -- share of the clean minus the corrupted metric that is lost
    share_lo DOUBLE, -- 95 % bootstrap bound over pairs; NULL for controls
    share_hi DOUBLE, -- 95 % bootstrap bound over pairs; NULL for controls
    p DOUBLE, -- share of senders that lose at least as much, the path's own counted; NULL for
        -- controls
    p_least DOUBLE, -- least p that so many other senders can give; NULL for controls
    n BIGINT, -- pairs
    measured_by VARCHAR, -- the metric
    created VARCHAR, -- ISO 8601, UTC
    SIX
);
CREATE TABLE circuits ( -- circuits that were found or read, with their scope
    experiment VARCHAR, -- experiment (patch_experiments)
    circuit VARCHAR, -- name
    model VARCHAR, -- model
    task VARCHAR, -- family of the pairs
    prompts VARCHAR, -- pairs it was found on
    schemes VARCHAR[], -- corruption schemes tried
    controlled VARCHAR[], -- held fixed on purpose
    accidental VARCHAR[], -- held fixed without anybody having asked
    outside VARCHAR, -- what is put in outside the circuit
    intact VARCHAR, -- what is never taken away
    metric VARCHAR, -- what was measured
    found_by VARCHAR, -- how it was chosen
    granularity VARCHAR, -- node: members write to everybody; edge: only its edges are live
    yaml VARCHAR -- the circuit as a file
);
CREATE TABLE circuit_members ( -- members of circuits
    experiment VARCHAR, -- experiment (patch_experiments)
    circuit VARCHAR, -- name
    component VARCHAR, -- label
    role VARCHAR, -- what it is claimed to do, or where it reads
    gate VARCHAR, -- its label (patch_gates)
    schemes VARCHAR[], -- corruption schemes under which it has an effect
    frequency DOUBLE, -- how often it is chosen when pairs are resampled and the circuit is chosen
        -- anew; NULL in a circuit that was given
    removal_cost DOUBLE, -- minimality: largest share that removing it costs
    p DOUBLE, -- against random members of inflated circuits
    p_adjusted DOUBLE, -- p family-wise over the members, by the largest of as many random ones
    p_least DOUBLE, -- least p_adjusted that the null can give
    SIX
);
CREATE TABLE circuit_edges ( -- edges between members, cut one by one
    experiment VARCHAR, -- experiment (patch_experiments)
    circuit VARCHAR, -- name
    writer VARCHAR, -- who writes
    reader VARCHAR, -- who reads: a head's q, k or v, an MLP, or logits
    estimated DOUBLE, -- share lost by EAP-IG
    lost DOUBLE, -- share lost when the edge alone is cut, exactly; NULL where it was not cut
    matters BOOLEAN, -- lost is at least 1 %
    SIX
);
CREATE TABLE circuit_scores ( -- faithfulness, completeness, minimality, stability: a row per score
    experiment VARCHAR, -- experiment (patch_experiments)
    circuit VARCHAR, -- name
    metric VARCHAR, -- name of the score (profiler.circuits.scoring.scores)
    score DOUBLE, -- value; shares are of F(all nodes) - F(no node)
    low DOUBLE, -- lower bound or quantile, NULL where there is none
    high DOUBLE, -- upper bound or quantile
    n BIGINT, -- pairs, sets or draws behind it
    SIX
);
CREATE TABLE circuit_curve ( -- faithfulness of the k best nodes
    experiment VARCHAR, -- experiment (patch_experiments)
    circuit VARCHAR, -- name
    size BIGINT, -- k
    node_share DOUBLE, -- k over all nodes
    faithfulness DOUBLE, -- normalised
    component VARCHAR, -- the node added at k
    SIX
);
CREATE TABLE circuit_fractions ( -- faithfulness of the best edges and nodes at MIB's fractions
    experiment VARCHAR, -- experiment (patch_experiments)
    circuit VARCHAR, -- name of the experiment's circuit; the sets are of the model, not of it
    level VARCHAR, -- edge or node
    ranking VARCHAR, -- signed: the largest scores, of which CPR is; absolute: the largest sizes, of
        -- which CMD is
    fraction DOUBLE, -- of all edges or nodes
    size BIGINT, -- how many these are, rounded down
    items BIGINT, -- all of them
    faithfulness DOUBLE, -- normalised, ratio of means
    SIX
);
CREATE TABLE circuit_random ( -- random circuits of the same size
    experiment VARCHAR, -- experiment (patch_experiments)
    circuit VARCHAR, -- name
    draw BIGINT, -- number
    faithfulness DOUBLE, -- normalised
    SIX
);

-- View: patches
-- One row per: experiment x component x six values, the metric panel averaged over pairs
-- task: of the experiment
-- scheme: of the experiment
-- n: pairs
CREATE VIEW patches AS
SELECT patch_effects.experiment, patch_experiments.task, patch_experiments.scheme
    , patch_effects.component, patch_effects.layer, patch_effects.granularity
    , patch_effects.component_kind, patch_effects.value, patch_effects.positions
    , patch_effects.direction, patch_effects.pair_set
    , count(*) AS n, avg(patch_effects.effect) AS effect
    , avg(patch_effects.logit_diff) AS logit_diff, avg(patch_effects.answer_logit) AS answer_logit
    , avg(patch_effects.distractor_logit) AS distractor_logit
    , avg(patch_effects.log_prob) AS log_prob, avg(patch_effects.prob) AS prob
    , avg(patch_effects."rank") AS "rank"
    , avg(patch_effects.top1) AS top1, avg(patch_effects.entropy) AS entropy
    , avg(patch_effects.kl_from_reference) AS kl_from_reference
    , avg(patch_effects.kl_to_reference) AS kl_to_reference, avg(patch_effects.js) AS js
FROM patch_effects JOIN patch_experiments USING (experiment)
GROUP BY ALL;
-- View: latest_experiment
-- One row per: file: the experiment written last
-- experiment: its name
CREATE VIEW latest_experiment AS
SELECT experiment FROM patch_experiments ORDER BY created DESC, experiment LIMIT 1;
-- The experiment asked for; the one written last where none is named.
CREATE MACRO chosen_experiment(given) AS
    coalesce(nullif(given, ''), (SELECT experiment FROM latest_experiment));
