-- The tables of a run. One column a line; the text after `--` becomes the column's comment in the
-- database, and the text after a table's opening bracket the table's
-- (profiler.recording.write.comment_statements).
--
-- A `position` is one predicted token of one document. Its id is doc_id * 2^32 + window number *
-- context length + offset, so it says where it is; window_id is doc_id * 2^20 + window number in
-- the document. Special positions (BOS, first of a window without BOS, special tokens inside the
-- text) stand under classes of their own (classes.special): the tables hold them, the stable views
-- of views.sql leave them out. Tables of sums, counts and rows are laid out as size and speed ask;
-- users write SQL against the views.

CREATE TABLE runs ( -- one row: everything needed to repeat the run, and what was measured of it
    run_id VARCHAR, -- hash of the settings that change numbers, of the weights, of the tokenizer
        -- and of the text that was read
    created VARCHAR, -- when the pass began, ISO 8601, UTC
    model VARCHAR, -- the model as it was named by the user
    model_hash VARCHAR, -- blake2b of the weights in their order and dtype
    tokenizer_hash VARCHAR, -- blake2b of the vocabulary and of which of its tokens are special
    architecture VARCHAR, -- Hugging Face class name
    n_layers INTEGER, -- layers
    n_heads INTEGER, -- query heads of the layer that has most
    d_mlp INTEGER, -- neurons of the layer that has most, those of its experts too; 0 where the
        -- model has no MLP
    blocks VARCHAR, -- JSON: layer, kind, units and group of each block of units, in the order of
        -- component ids
    dictionaries VARCHAR, -- JSON: block, form, sites, source and digest of each dictionary, in the
        -- order of component ids
    d_model INTEGER, -- width of the residual stream
    n_vocab INTEGER, -- rows of the unembedding
    config VARCHAR, -- JSON: the settings of the pass (profiler.config.RunConfig)
    versions VARCHAR, -- JSON: versions of the libraries, of Python and of the profiler, the device
    model_card VARCHAR, -- the model directory's card.md, where there is one
    model_notes VARCHAR[], -- what is to be said of how its weights were read: rounded, not tied,
        -- fields of its settings that nothing declares
    n_streamed BIGINT, -- documents streamed, those of other shards too
    corpus_digest VARCHAR, -- digest of their places and texts in order: the same in all shards of
        -- one corpus
    n_documents BIGINT, -- documents read
    n_tokens BIGINT, -- tokens of those documents that the model read, BOS not counted
    n_positions BIGINT, -- positions counted, special ones left out
    n_special BIGINT, -- special positions
    seconds DOUBLE, -- wall time of the pass, seconds
    tokens_per_second DOUBLE, -- n_tokens / seconds
    closure_residual DOUBLE, -- largest |sum of all DLA - centred target logit|, logits
    closure_scale DOUBLE, -- largest |centred target logit|, logits: the residual is judged against
        -- it
    logit_residual DOUBLE, -- largest |centred target logit of the final residual stream - the
        -- model's own|, logits
    recorded_logit_sum DOUBLE, -- sum of DLA of all recorded components * centred target logit
    squared_logit_sum DOUBLE, -- sum of its square: their ratio is the part of the logit that the
        -- recorded components carry, 1 where all are recorded
    norm_scale_sum DOUBLE, -- sum of the final norm's denominator over ordinary positions
    norm_scale_n BIGINT, -- how many those are
    block_scale_sums DOUBLE[], -- of each block, the sum of the denominator of the norm of its own
        -- over the same positions; NULL for a block without one
    peak_memory_bytes BIGINT, -- largest resident size of the process
    complete BOOLEAN -- true once the pass has ended and all was written
);
CREATE TABLE components ( -- every head, neuron, embedding and bias that is recorded, and every unit
    -- of a dictionary
    component_id INTEGER, -- dense, in the order of blocks: heads, then neurons of each layer, then
        -- embeddings and biases, then units of dictionaries, their errors and biases
    component VARCHAR, -- label: L5H3, L5N1024, L5E3N17, embed, pos_embed, L5_attn_bias,
        -- L5_mlp_bias, final_bias, L5D12, L5.mlp_out:D12, L5Derror, L5Dbias
    kind VARCHAR, -- head, neuron, mixer (channel of a state-space or other mixer), per_layer (unit
        -- of a per-layer projection), or an embedding or bias: embed, pos_embed, attn_bias,
        -- mlp_bias, mixer_bias, per_layer_bias, final_bias; of a dictionary feature, direction or
        -- subspace, and what its reconstruction leaves over (dictionary_error) or has without any
        -- unit (dictionary_bias). Those of dictionaries describe again what others write: they are
        -- not in the sum that is the logit
    layer INTEGER, -- layer, NULL where it has none
    block_group VARCHAR, -- E3: neuron of expert 3, S0: of a shared expert, .mlp_out: of a
        -- dictionary that shares its layer with another; NULL elsewhere
    unit INTEGER, -- number in its block, NULL for embeddings, biases and errors
    presence INTEGER -- 0: it has a value at every position. Else the number of its expert among all
        -- experts, from 1: it is absent where the expert was not chosen, and everything about it is
        -- of the positions where it is present
);
CREATE TABLE dictionaries ( -- dictionaries whose units are recorded, and how well they reconstruct
    dictionary_id INTEGER, -- dense, in the order of component ids
    units VARCHAR, -- what the labels of its units begin with: L5D, L5.mlp_out:D
    kind VARCHAR, -- of its units: feature, direction, subspace
    form VARCHAR, -- what its file was read as
    reads VARCHAR, -- site that its encoder reads
    writes VARCHAR, -- site that its decoder writes
    n_units INTEGER, -- units it has, recorded or not
    names VARCHAR[], -- names that its file gives its units
    source VARCHAR, -- file or folder it was read from
    digest VARCHAR, -- hash of its site and its files
    n BIGINT, -- ordinary positions that the sums are over; NULL where it reconstructs nothing
    error_squares DOUBLE, -- sum of |written - reconstruction|^2
    whole_squares DOUBLE, -- sum of |written|^2
    whole_sums DOUBLE[], -- sum of what is written, by dimension
    active_units DOUBLE -- sum over positions of the number of units that are not 0
);
CREATE TABLE spliced_windows ( -- the model's loss with a dictionary's reconstruction put in, at a
    -- random sample of windows
    dictionary_id INTEGER, -- dictionary
    "key" BIGINT, -- sampling key of the window: the smallest are kept
    n BIGINT, -- ordinary positions of the window
    loss DOUBLE, -- summed over them, nats, of the model as it is
    spliced DOUBLE, -- with the reconstruction in the place of what is written at ordinary
        -- positions; NULL where nothing can be put in
    ablated DOUBLE -- with 0 in its place
);
CREATE TABLE classes ( -- the partition of tokens by static class; each token has exactly one
    class_id INTEGER, -- dense
    class VARCHAR, -- name
    description VARCHAR, -- what belongs to it
    special BOOLEAN -- true for bos, first, special: left out of the views
);
CREATE TABLE tokens ( -- the tokenizer's vocabulary
    token_id INTEGER, -- id
    token VARCHAR, -- text; bytes that are no UTF-8 alone stand as <0xE2>
    class_id INTEGER -- static class
);
CREATE TABLE vocabulary ( -- the same texts as one list, so that views can spell contexts without a
    -- join
    tokens VARCHAR[] -- tokens[token_id + 1] is the text
);
CREATE TABLE domains ( -- named parts of the corpus
    domain_id INTEGER, -- dense, in order of appearance
    domain VARCHAR -- name
);
CREATE TABLE replicate_groups ( -- documents hashed into groups inside their domain, for clustered
    -- standard errors
    group_id INTEGER, -- dense; groups without a document are absent
    domain_id INTEGER, -- the domain all its documents belong to
    n_documents BIGINT -- documents in it
);
CREATE TABLE position_buckets ( -- offsets in the window, doubling
    bucket_id INTEGER, -- dense
    bucket VARCHAR, -- label, such as 16-31
    lo INTEGER, -- first offset
    hi INTEGER -- last offset
);
CREATE TABLE bins ( -- edges of the log-linear bins; the same for every component and run
    resolution VARCHAR, -- spectrum (2 bins an octave) or density (16 bins an octave)
    bin INTEGER, -- number, ascending with the value
    lo DOUBLE, -- lower edge: in the bin where it is positive, below it where it is negative
    hi DOUBLE -- upper edge: above the bin where it is positive, in it where it is negative
);
CREATE TABLE documents ( -- documents read
    doc_id BIGINT, -- number in the seeded order of the corpus
    domain VARCHAR, -- domain
    source VARCHAR, -- the corpus's own id of it: a path, or file and row
    place VARCHAR, -- where it stands: corpus, file and row; unique, and what its sampling keys are
        -- made from
    text_hash BIGINT, -- hash of its text
    group_id INTEGER, -- replicate group
    n_tokens BIGINT, -- tokens read
    n_dropped BIGINT -- tokens cut off and not read
);
CREATE TABLE windows ( -- windows that a kept row refers to: enough to recompute it from the weights
    -- alone
    window_id BIGINT, -- doc_id * 2^20 + number in the document
    doc_id BIGINT, -- document
    start BIGINT, -- index in the document of the first token that is not the BOS put before it
    token_ids INTEGER[] -- what the model read, BOS included, padding not
);
CREATE TABLE position_rows ( -- kept positions: those some sample, extreme or dense row refers to
    position_id BIGINT, -- doc_id * 2^32 + window number * context length + offset
    window_id BIGINT, -- window
    doc_id BIGINT, -- document
    pos BIGINT, -- index of the token in its document; NULL for a BOS put before a window
    "offset" INTEGER, -- index in windows.token_ids, from 0
    token_id INTEGER, -- token there
    next_token_id INTEGER, -- token it must predict
    class_id INTEGER, -- class of the token, or a special class
    target_logit FLOAT, -- logit of the next token, centred over the vocabulary, logits
    loss DOUBLE, -- -ln p(next token), nats; NULL where not dense
    rank INTEGER, -- number of tokens with a larger logit than the next token; NULL where not dense
    entropy DOUBLE, -- of the predicted distribution, nats; NULL where not dense
    cap_slope DOUBLE, -- logits that the next token's logit after the model's soft cap moves for a
        -- logit before it, 1 - (capped / c)^2; target_logit and DLA are before the cap; NULL where
        -- not dense, or the model has no cap
    special VARCHAR, -- bos, first or special; NULL for an ordinary position
    role VARCHAR, -- whose message the token is of: system, user, assistant, tool ... as the corpus
        -- says; template for what the chat template writes around messages; NULL for text that is
        -- no conversation
    previous_token_id INTEGER, -- token before; NULL at the start of a window
    distance INTEGER, -- tokens back to the last copy of this token in the window; NULL if there is
        -- none
    prefix_match INTEGER, -- longest stretch of tokens ending here that ends at an earlier place
        -- too, at most 8
    bracket_depth INTEGER, -- brackets opened and not closed in the document up to here; a blank
        -- line closes all
    in_quotes BOOLEAN, -- whether a quote of " or """ is open in the document before this token; a
        -- line end closes one of "
    dense BOOLEAN -- true where it belongs to the uniform sample with every component's value
);
CREATE TABLE cell_counts ( -- positions per value of an axis and replicate group; the same for every
    -- component of a presence
    presence INTEGER, -- as in components; 0 counts every position
    axis VARCHAR, -- class, next_class or position; next_class and position leave special positions
        -- out
    value_id INTEGER, -- class_id, class_id of the next token, or bucket_id
    group_id INTEGER, -- replicate group
    n BIGINT -- positions
);
CREATE TABLE cell_sums ( -- sums per component, value of an axis and replicate group; no row where n
    -- is 0. Added up in float64, rounded to FLOAT (6e-8 of the sum) when they are written
    component_id INTEGER, -- component
    axis VARCHAR, -- as in cell_counts
    value_id INTEGER, -- as in cell_counts
    group_id INTEGER, -- replicate group
    sum_activation FLOAT, -- sum of activations
    sum_dla FLOAT, -- sum of DLA, logits
    sum_abs_dla FLOAT -- sum of |DLA|, logits: importance
);
CREATE TABLE group_importance ( -- importance of all recorded heads and neurons together, per
    -- replicate group: what one's share is taken of
    group_id INTEGER, -- replicate group
    sum_abs_dla DOUBLE -- sum of |DLA| over heads, neurons and ordinary positions, logits
);
CREATE TABLE power_sums ( -- moments per component, class and domain, in sums that merge
    -- (profiler.recording.accumulators.central); no row where n is 0
    component_id INTEGER, -- component
    class_id INTEGER, -- class, special classes too
    domain_id INTEGER, -- domain
    n BIGINT, -- positions
    a_mean DOUBLE, -- mean activation
    a_m2 DOUBLE, -- sum of (activation - mean)^2
    a_m3 DOUBLE, -- sum of its cubes
    a_m4 DOUBLE, -- sum of its fourth powers
    a_abs DOUBLE, -- sum of |activation|
    a_min DOUBLE, -- smallest activation
    a_max DOUBLE, -- largest activation
    d_mean DOUBLE, -- mean DLA, logits
    d_m2 DOUBLE, -- sum of (DLA - mean)^2
    d_m3 DOUBLE, -- sum of its cubes
    d_m4 DOUBLE, -- sum of its fourth powers
    d_abs DOUBLE, -- sum of |DLA|
    d_min DOUBLE, -- smallest DLA
    d_max DOUBLE -- largest DLA
);
CREATE TABLE component_importance ( -- importance of each head, neuron and unit of a dictionary
    -- over all ordinary positions
    component_id INTEGER, -- component
    sum_abs_dla DOUBLE -- sum of |DLA|, logits
);
CREATE TABLE spectrum_counts ( -- activation spectrum split by class; no row where n is 0. Sums are
    -- added up in float64, rounded to FLOAT (6e-8 of the sum) when they are written
    component_id INTEGER, -- component
    class_id INTEGER, -- class, special classes too
    bin INTEGER, -- bin of the activation, resolution spectrum
    n BIGINT, -- positions
    sum_dla FLOAT, -- sum of DLA, logits
    sum_abs_dla FLOAT -- sum of |DLA|, logits
);
CREATE TABLE density_counts ( -- activation spectrum over all ordinary positions, fine; no row where
    -- n is 0
    component_id INTEGER, -- component
    bin INTEGER, -- bin of the activation, resolution density
    n BIGINT -- positions
);
CREATE TABLE quantiles ( -- token-level quantiles of each component's activation, from
    -- density_counts
    component_id INTEGER, -- component
    quantile DOUBLE, -- 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999
    value DOUBLE, -- middle of the density bin that holds it, within the values seen: off by at most
        -- half a bin (1/32 of the value)
    bin INTEGER, -- spectrum bin that holds it: the stratum its samples are drawn from
    level DOUBLE, -- edge of a density bin nearest to the quantile: bands begin there; NULL where
        -- ties leave none near
    reached DOUBLE -- share of ordinary positions whose activation reaches the level, counted; NULL
        -- where level is
);
CREATE TABLE sample_rows ( -- for each component and spectrum bin a simple random sample of its
    -- ordinary positions
    component_id INTEGER, -- component
    bin INTEGER, -- stratum: spectrum bin of the activation
    position_id BIGINT, -- position
    activation FLOAT, -- activation there
    dla FLOAT -- DLA there, logits
);
CREATE TABLE extreme_rows ( -- largest and smallest values of each component over ordinary positions
    component_id INTEGER, -- component
    measure VARCHAR, -- activation or dla
    side VARCHAR, -- top or bottom
    rank INTEGER, -- 1 is the most extreme
    position_id BIGINT, -- position
    activation FLOAT, -- activation there
    dla FLOAT, -- DLA there, logits
    "key" DOUBLE -- the value it is ranked by, negated at the top, where FLOAT cannot hold it (runs
        -- in float64), else NULL
);
CREATE TABLE dense_rows ( -- every component at a uniform random sample of ordinary positions; no
    -- row where the component is absent
    component_id INTEGER, -- component
    position_id BIGINT, -- position
    activation FLOAT, -- activation there
    dla FLOAT, -- DLA there, logits
    bin SMALLINT -- spectrum bin of the activation: the stratum that sample_rows draws from
);
CREATE TABLE pooled_strata ( -- how many positions each stratum holds and how many of them are kept,
    -- dense or sampled
    component_id INTEGER, -- component
    bin INTEGER, -- stratum: spectrum bin of the activation
    n BIGINT, -- ordinary positions in it
    kept BIGINT -- of those, positions in dense_rows or sample_rows, each once
);
CREATE TABLE recorded_rows ( -- the components named by --components at every position, special ones
    -- too
    component_id INTEGER, -- component
    position_id BIGINT, -- position
    activation FLOAT, -- activation there
    dla FLOAT -- DLA there, logits
);
CREATE TABLE head_attention_rows ( -- where each head attends from each dense position
    component_id INTEGER, -- head
    position_id BIGINT, -- query position
    previous_token FLOAT, -- attention to the token before
    two_back FLOAT, -- attention to the token before that
    first_token FLOAT, -- attention to offset 0 of the window (the BOS, where one is put there)
    self FLOAT, -- attention to the position itself
    induction FLOAT, -- attention to tokens before this position that follow an earlier copy of its
        -- token
    prefix_induction FLOAT, -- part of induction: where the token before that copy is this token's
        -- token before, too
    duplicate FLOAT, -- attention to earlier copies of this token
    newline FLOAT, -- attention to tokens of class newline
    delimiter FLOAT, -- attention to punctuation, brackets, quotes and operators
    entropy FLOAT, -- of the attention to tokens, nats
    top_offset INTEGER, -- how many tokens back the most attended position is; 0 is the position
        -- itself
    top_weight FLOAT, -- attention to it
    sink FLOAT, -- attention to a learned sink of the head's own, which is no token (gpt-oss); 0
        -- where there is none, or less than rounding
    dla_to_attended FLOAT -- logit the head adds directly to the most attended token itself,
        -- centred: > 0 copies, < 0 suppresses
);
CREATE TABLE logit_effects ( -- tokens that the write direction of a neuron or of a dictionary's
    -- unit boosts and suppresses most, from the weights
    component_id INTEGER, -- neuron, feature or direction
    side VARCHAR, -- boosted or suppressed
    rank INTEGER, -- 1 is the strongest
    token_id INTEGER, -- token
    effect FLOAT, -- centred logit per unit of activation, at the corpus's mean final norm scale; of
        -- an expert's neuron at a router weight of 1, of a gated shared expert's at a gate of 1
    product DOUBLE -- the same before it is divided by that scale
);
CREATE TABLE properties ( -- static properties of tokens, any number per token: the library's and
    -- the user's classes
    property VARCHAR, -- name
    description VARCHAR, -- what has it
    condition VARCHAR, -- SQL over the columns of view token_texts
    "user" BOOLEAN -- true where a user added it
);
CREATE TABLE token_property_lists ( -- the properties of each token, beside its text and class so
    -- that one join gives all three
    token_id INTEGER, -- token
    properties VARCHAR[], -- names; empty for special tokens and for those without any
    token VARCHAR, -- its text, as in tokens
    class VARCHAR -- its static class
);
CREATE TABLE behaviours ( -- claims about a component at a position, evaluated by view
    -- behaviour_rows
    behaviour_id INTEGER, -- number
    behaviour VARCHAR, -- name
    family VARCHAR, -- attention, effect, context, token, next or user
    kind VARCHAR, -- head, neuron or both: which components it can be about
    condition VARCHAR, -- SQL over the columns of view head_facts or neuron_facts
    description VARCHAR, -- what it says
    priority INTEGER, -- order in which a mixture hands out positions, smallest first; NULL takes no
        -- part unless asked for
    "user" BOOLEAN -- true where a user added it
);
CREATE TABLE uniform_marks ( -- which behaviours hold at the uniform sample's positions, of those
    -- that are about the position alone
    position_id BIGINT, -- position
    doc_id BIGINT, -- its document
    group_id INTEGER, -- replicate group of the document
    domain VARCHAR, -- domain of the document
    marks INTEGER[] -- 3 * behaviour_id + 1 of each that holds, + 2 of each that cannot be told
);
CREATE TABLE layer_coverages ( -- what behaviours cover of the components that others of their kind
    -- and layer are compared with
    component_id INTEGER, -- every head, and 17 neurons of each layer, chosen by hash
    behaviour_id INTEGER, -- behaviour; no row where it cannot be told of any position
    coverage DOUBLE -- share of the component's sum of |DLA| where it holds; NULL for a component
        -- that wrote nothing
);
CREATE TABLE token_counts ( -- ordinary positions of each token; no row where there is none
    presence INTEGER, -- as in components; 0 counts every position, others where token_sums has one
    token_id INTEGER, -- token
    n BIGINT -- positions
);
CREATE TABLE token_sums ( -- sums per component and token over ordinary positions, of heads and
    -- --components, or of all
    component_id INTEGER, -- component
    token_id INTEGER, -- token at the position
    sum_activation DOUBLE, -- sum of activations
    sum_dla DOUBLE, -- sum of DLA, logits
    sum_abs_dla DOUBLE -- sum of |DLA|, logits: importance
);
CREATE TABLE closure ( -- how well all DLA add up to the centred target logit, per chunk of windows
    chunk BIGINT, -- number of the chunk in this run
    block INTEGER, -- block of 256 documents that it is cut from
    part INTEGER, -- number of the chunk in its block
    n BIGINT, -- positions checked, special ones too
    residual DOUBLE, -- largest |sum of all DLA - centred target logit|, logits
    logit_residual DOUBLE, -- largest |centred target logit of the final residual stream - the
        -- model's own|, logits
    scale DOUBLE -- largest |centred target logit|, logits
);
CREATE TABLE drops ( -- what was dropped, cut or excluded, and why; nothing is thrown away in
    -- silence
    reason VARCHAR, -- short name
    n BIGINT, -- how many
    unit VARCHAR, -- of what: documents, tokens, positions, characters, rows
    note VARCHAR -- what it means and what to do about it
);
