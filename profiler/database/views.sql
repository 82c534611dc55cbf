-- The views of a run: what users write SQL against. Names and columns are stable; a column may be
-- added, none renamed.
--
-- The block of comments above each view becomes its comment and its columns' comments in the
-- database (profiler.database.comments). Special positions are left out of every view of sums,
-- counts, samples and extremes; the views that hold single positions say which are special.
--
-- Layout, measured on 4,100 components: a filter on the label becomes a filter on component_id only
-- where components is joined before anything is grouped or windowed, so groups and partitions name
-- the label. Common table expressions say NOT MATERIALIZED, or the filter stops at them. Contexts
-- are spelled in the outermost SELECT, for the rows that are left, and the one-row vocabulary comes
-- by LEFT JOIN, which is never reordered: a cross join may be put below the others and copies the
-- whole vocabulary into their hash tables (gigabytes, seen in DuckDB 1.2).

-- View: jackknife_groups
-- One row per replicate group of documents, with what its domain's part of a standard error needs.
-- group_id: replicate group
-- domain_id: its domain
-- groups: replicate groups of the domain
-- part: its part of the domain's documents; 0 where it is the only group, so that the domain goes
--   when it is left out
CREATE VIEW jackknife_groups AS
SELECT group_id, domain_id, count(*) OVER in_domain AS groups
    , CASE WHEN count(*) OVER in_domain > 1 THEN n_documents / sum(n_documents) OVER in_domain
        ELSE 0 END AS part
FROM replicate_groups WINDOW in_domain AS (PARTITION BY domain_id);

-- Ratios sum(above) / sum(below) with standard error and t quantile: half a 95 % interval is t *
-- se. `sums` names a relation (a common table expression too) with a row per key and group: key,
-- group_id, above, below; no row stands for nothing.
CREATE MACRO jackknife_ratios(sums) AS TABLE
WITH present AS (
    SELECT key, group_id, sum(above) AS above, sum(below) AS below
    FROM query_table(sums)
    GROUP BY key, group_id
)
, cells AS (
    SELECT keys.key, jackknife_groups.domain_id, jackknife_groups.groups, jackknife_groups.part
        , coalesce(present.above, 0)::DOUBLE AS above, coalesce(present.below, 0)::DOUBLE AS below
    FROM (SELECT DISTINCT key FROM present) AS keys
    CROSS JOIN jackknife_groups
    LEFT JOIN present ON present.key = keys.key AND present.group_id = jackknife_groups.group_id
)
, left_out AS (
    SELECT key, domain_id, groups, sum(above) OVER in_cell AS above
        , sum(below) OVER in_cell AS below
        , without(sum(above) OVER in_cell, sum(above) OVER in_domain, above, part) AS above_rest
        , without(sum(below) OVER in_cell, sum(below) OVER in_domain, below, part) AS below_rest
    FROM cells WINDOW in_cell AS (PARTITION BY key), in_domain AS (PARTITION BY key, domain_id)
)
, by_domain AS (
    SELECT key, any_value(above) AS above, any_value(below) AS below, groups
        , domain_variance(CASE WHEN below_rest > 1e-12 * below
            THEN above_rest / below_rest - above / below END, groups) AS variance
    FROM left_out GROUP BY key, domain_id, groups
)
SELECT key, any_value(above) AS above, any_value(below) AS below
    , any_value(above) / nullif(any_value(below), 0) AS ratio
    , jackknife_se(variance) AS se, t975(jackknife_df(variance, groups)) AS t
FROM by_domain GROUP BY key;

-- View: positions
-- One row per kept position (one that a sample, an extreme or the uniform sample refers to).
-- position_id: doc_id * 2^32 + window number * context length + offset
-- window_id: window
-- doc_id: document
-- domain: domain of the document
-- source: the corpus's own id of the document
-- pos: index of the token in its document; NULL for a BOS put before a window
-- offset: index in windows.token_ids, from 0
-- token_id: token there
-- token: its text
-- next_token_id: token that the model must predict
-- next_token: its text
-- class: class of the token, or a special class
-- next_class: class of the next token
-- target_logit: logit of the next token, centred over the vocabulary, logits
-- loss: -ln p(next token), nats; NULL where not dense
-- rank: number of tokens with a larger logit than the next token; NULL where not dense
-- entropy: of the predicted distribution, nats; NULL where not dense
-- cap_slope: logits that the next token's logit after the model's soft cap moves for a logit before
--   it, where target_logit and DLA are; NULL where not dense, or the model has no cap
-- special: bos, first or special; NULL for an ordinary position
-- dense: true where it belongs to the uniform sample with every component's value
-- role: whose message the token is of; template for the chat template's own text, NULL for text
--   that is no conversation
CREATE VIEW positions AS
SELECT position_rows.position_id, position_rows.window_id, position_rows.doc_id, documents.domain
    , documents.source, position_rows.pos, position_rows."offset", position_rows.token_id
    , tokens.token
    , position_rows.next_token_id, next_tokens.token AS next_token, classes.class
    , next_classes.class AS next_class, position_rows.target_logit::DOUBLE AS target_logit
    , position_rows.loss
    , position_rows."rank"
    , position_rows.entropy, position_rows.cap_slope, position_rows.special, position_rows.dense
    , position_rows.role
FROM position_rows
JOIN documents USING (doc_id)
JOIN tokens ON tokens.token_id = position_rows.token_id
JOIN tokens AS next_tokens ON next_tokens.token_id = position_rows.next_token_id
JOIN classes ON classes.class_id = position_rows.class_id
JOIN classes AS next_classes ON next_classes.class_id = next_tokens.class_id;

-- View: contexts
-- One row per kept position, with the text around it: 24 tokens before, 8 after, inside its window.
-- position_id: position
-- doc_id: document
-- domain: domain of the document
-- source: the corpus's own id of the document
-- token: text of the token there
-- next_token: text of the token that the model must predict
-- context: the text around the position, its token between « and »
-- context_before: text of up to 24 tokens before
-- context_token: text of the token there
-- context_after: text of up to 8 tokens after; the first is the next token
-- loss: -ln p(next token), nats; NULL where not dense
-- rank: number of tokens with a larger logit than the next token; NULL where not dense
-- entropy: of the predicted distribution, nats; NULL where not dense
-- role: whose message the token is of; template for the chat template's own text, NULL for text
--   that is no conversation
CREATE VIEW contexts AS
SELECT position_rows.position_id, position_rows.doc_id, documents.domain, documents.source
    , vocabulary.tokens[position_rows.token_id + 1] AS token
    , vocabulary.tokens[position_rows.next_token_id + 1] AS next_token
    , spell(vocabulary.tokens
        , list_slice(windows.token_ids, greatest(1, position_rows."offset" - 23)
            , position_rows."offset")) AS context_before
    , vocabulary.tokens[position_rows.token_id + 1] AS context_token
    , spell(vocabulary.tokens
        , list_slice(windows.token_ids, position_rows."offset" + 2
            , position_rows."offset" + 9)) AS context_after
    , concat(context_before, '«', context_token, '»', context_after) AS context
    , position_rows.loss, position_rows."rank", position_rows.entropy
    , position_rows.role
FROM position_rows
JOIN documents USING (doc_id)
JOIN windows USING (window_id)
LEFT JOIN vocabulary ON true;

-- View: activations
-- One row per component x position of the uniform sample (ordinary positions only) where it is
--   present: for free-form SQL, unweighted.
-- component: label
-- position_id: position
-- activation: activation there
-- dla: DLA there, logits
CREATE VIEW activations AS
SELECT components.component, dense_rows.position_id, dense_rows.activation, dense_rows.dla
FROM dense_rows JOIN components USING (component_id);

-- View: recorded
-- One row per component named by --components x position, special positions too.
-- component: label
-- position_id: position
-- special: bos, first or special; NULL for an ordinary position
-- activation: activation there
-- dla: DLA there, logits
CREATE VIEW recorded AS
SELECT components.component, recorded_rows.position_id, position_rows.special
    , recorded_rows.activation, recorded_rows.dla
FROM recorded_rows JOIN components USING (component_id) JOIN position_rows USING (position_id);

-- View: strata
-- One row per component x spectrum bin that holds an ordinary position: the strata that samples are
--   drawn from. Edges are those of the bin, the same for all components, and may lie beyond the
--   values seen (moments.min, moments.max).
-- component: label
-- stratum: number of the spectrum bin
-- lo: lower edge of the activation
-- hi: upper edge of the activation
-- n: ordinary positions in it
CREATE VIEW strata AS
SELECT components.component, spectrum_counts.bin AS stratum, bins.lo, bins.hi
    , sum(spectrum_counts.n)::BIGINT AS n
FROM spectrum_counts
JOIN components USING (component_id)
JOIN classes ON classes.class_id = spectrum_counts.class_id AND NOT classes.special
JOIN bins ON bins.resolution = 'spectrum' AND bins.bin = spectrum_counts.bin
GROUP BY components.component, spectrum_counts.bin, bins.lo, bins.hi;

-- View: sample_weights
-- One row per component x stratum x sampled position, once each: the form to aggregate samples
--   from. sum(weight * x) estimates the sum of x over all ordinary positions without bias.
-- component: label
-- stratum: number of the spectrum bin
-- position_id: position
-- activation: activation there
-- dla: DLA there, logits
-- inclusion_probability: rows sampled in the stratum / ordinary positions in it
-- weight: 1 / inclusion_probability: how many positions of the corpus the row stands for
CREATE VIEW sample_weights AS
SELECT component, stratum, position_id, activation, dla, sampled / n AS inclusion_probability
    , n / sampled AS weight
FROM (
    SELECT components.component, sample_rows.bin AS stratum, sample_rows.position_id
        , sample_rows.activation, sample_rows.dla
        , count(*) OVER (PARTITION BY components.component, sample_rows.bin) AS sampled
    FROM sample_rows JOIN components USING (component_id)
) JOIN strata USING (component, stratum);

-- View: samples
-- One row per component x stratum x sampled position, with its context; once for each quantile that
--   the stratum holds, so aggregate from sample_weights, not from here.
-- component: label
-- stratum: number of the spectrum bin it was drawn from
-- stratum_lo: lower edge of the stratum's bin of activation, which may lie beyond the values seen
-- stratum_hi: upper edge of the stratum's bin of activation, which may lie beyond the values seen
-- quantile: quantile of the component's activation that lies in the stratum (0.5, 0.9, 0.99, ...);
--   NULL if none does
-- position_id: position
-- doc_id: document
-- domain: domain of the document
-- source: the corpus's own id of the document
-- token: text of the token there
-- next_token: text of the token that the model must predict
-- context: the text around the position, its token between « and »
-- context_before: text of up to 24 tokens before
-- context_token: text of the token there
-- context_after: text of up to 8 tokens after; the first is the next token
-- activation: activation there
-- dla: DLA there, logits
-- inclusion_probability: rows sampled in the stratum / ordinary positions in it
-- role: whose message the token is of; template for the chat template's own text, NULL for text
--   that is no conversation
CREATE VIEW samples AS
SELECT sample_weights.component, sample_weights.stratum, bins.lo AS stratum_lo
    , bins.hi AS stratum_hi, labelled.quantile, sample_weights.position_id, position_rows.doc_id
    , documents.domain
    , documents.source, vocabulary.tokens[position_rows.token_id + 1] AS token
    , vocabulary.tokens[position_rows.next_token_id + 1] AS next_token
    , spell(vocabulary.tokens
        , list_slice(windows.token_ids, greatest(1, position_rows."offset" - 23)
            , position_rows."offset")) AS context_before
    , vocabulary.tokens[position_rows.token_id + 1] AS context_token
    , spell(vocabulary.tokens
        , list_slice(windows.token_ids, position_rows."offset" + 2
            , position_rows."offset" + 9)) AS context_after
    , concat(context_before, '«', context_token, '»', context_after) AS context
    , sample_weights.activation, sample_weights.dla, sample_weights.inclusion_probability
    , position_rows.role
FROM sample_weights
JOIN bins ON bins.resolution = 'spectrum' AND bins.bin = sample_weights.stratum
LEFT JOIN (
    SELECT components.component, quantiles.bin, quantiles.quantile
    FROM quantiles JOIN components USING (component_id)
) AS labelled
    ON labelled.component = sample_weights.component AND labelled.bin = sample_weights.stratum
JOIN position_rows USING (position_id)
JOIN documents USING (doc_id)
JOIN windows USING (window_id)
LEFT JOIN vocabulary ON true;

-- View: extremes
-- One row per component x measure x side x rank: the largest and smallest values over ordinary
--   positions.
-- component: label
-- measure: activation or dla: what it is extreme in
-- side: top or bottom
-- rank: 1 is the most extreme
-- position_id: position
-- doc_id: document
-- domain: domain of the document
-- source: the corpus's own id of the document
-- token: text of the token there
-- next_token: text of the token that the model must predict
-- context: the text around the position, its token between « and »
-- context_before: text of up to 24 tokens before
-- context_token: text of the token there
-- context_after: text of up to 8 tokens after; the first is the next token
-- activation: activation there
-- dla: DLA there, logits
-- role: whose message the token is of; template for the chat template's own text, NULL for text
--   that is no conversation
CREATE VIEW extremes AS
SELECT components.component, extreme_rows.measure, extreme_rows.side, extreme_rows."rank"
    , extreme_rows.position_id, position_rows.doc_id, documents.domain, documents.source
    , vocabulary.tokens[position_rows.token_id + 1] AS token
    , vocabulary.tokens[position_rows.next_token_id + 1] AS next_token
    , spell(vocabulary.tokens
        , list_slice(windows.token_ids, greatest(1, position_rows."offset" - 23)
            , position_rows."offset")) AS context_before
    , vocabulary.tokens[position_rows.token_id + 1] AS context_token
    , spell(vocabulary.tokens
        , list_slice(windows.token_ids, position_rows."offset" + 2
            , position_rows."offset" + 9)) AS context_after
    , concat(context_before, '«', context_token, '»', context_after) AS context
    , extreme_rows.activation, extreme_rows.dla, position_rows.role
FROM extreme_rows
JOIN components USING (component_id)
JOIN position_rows USING (position_id)
JOIN documents USING (doc_id)
JOIN windows USING (window_id)
LEFT JOIN vocabulary ON true;

-- View: spectrum
-- One row per component x class x spectrum bin that holds a position; special classes left out.
--   Edges are those of the bin, the same for all components, and may lie beyond the values seen
--   (moments.min, moments.max).
-- component: label
-- class: class of the token
-- bin: number of the spectrum bin, ascending with the activation
-- lo: lower edge of the activation
-- hi: upper edge of the activation
-- n: positions
-- sum_dla: sum of DLA, logits
-- sum_abs_dla: sum of |DLA|, logits: importance
CREATE VIEW spectrum AS
SELECT components.component, classes.class, spectrum_counts.bin, bins.lo, bins.hi, spectrum_counts.n
    , spectrum_counts.sum_dla::DOUBLE AS sum_dla, spectrum_counts.sum_abs_dla::DOUBLE AS sum_abs_dla
FROM spectrum_counts
JOIN components USING (component_id)
JOIN classes ON classes.class_id = spectrum_counts.class_id AND NOT classes.special
JOIN bins ON bins.resolution = 'spectrum' AND bins.bin = spectrum_counts.bin;

-- View: density
-- One row per component x density bin (16 an octave) that holds an ordinary position. Edges are
--   those of the bin and may lie beyond the values seen (moments.min, moments.max).
-- component: label
-- bin: number of the density bin, ascending with the activation
-- lo: lower edge of the activation
-- hi: upper edge of the activation
-- n: positions
CREATE VIEW density AS
SELECT components.component, density_counts.bin, bins.lo, bins.hi, density_counts.n
FROM density_counts
JOIN components USING (component_id)
JOIN bins ON bins.resolution = 'density' AND bins.bin = density_counts.bin;

-- View: presence_counts
-- One row per presence x axis x value x replicate group that holds an ordinary position.
-- presence: 0: every position, for components that have a value at each. Else those where one
--   expert was chosen (table components says which component has which)
-- axis: class, next_class, position or domain
-- value: name of the class, position bucket or domain
-- value_id: its number: the order to show values in
-- group_id: replicate group
-- domain: domain of the group
-- n: ordinary positions
CREATE VIEW presence_counts AS
WITH cells AS NOT MATERIALIZED (
    SELECT presence, axis, value_id, group_id, n FROM cell_counts
    WHERE NOT (axis = 'class' AND value_id IN (SELECT class_id FROM classes WHERE special))
)
, named AS NOT MATERIALIZED (
    SELECT presence, axis, classes.class AS value, value_id, group_id, n
    FROM cells JOIN classes ON classes.class_id = value_id WHERE axis IN ('class', 'next_class')
    UNION ALL
    SELECT presence, axis, position_buckets.bucket, value_id, group_id, n
    FROM cells
    JOIN position_buckets ON position_buckets.bucket_id = value_id
    WHERE axis = 'position'
    UNION ALL
    SELECT presence, 'domain', domains.domain, domains.domain_id, group_id, sum(n)::BIGINT
    FROM cells
    JOIN replicate_groups USING (group_id)
    JOIN domains USING (domain_id)
    WHERE axis = 'class'
    GROUP BY presence, domains.domain, domains.domain_id, group_id
)
SELECT presence, axis, value, value_id, group_id, domains.domain, n
FROM named JOIN replicate_groups USING (group_id) JOIN domains USING (domain_id);

-- View: group_counts
-- One row per axis x value x replicate group: ordinary positions, the same for every component but
--   those of experts (view presence_counts).
-- axis: class, next_class, position or domain
-- value: name of the class, position bucket or domain
-- value_id: its number: the order to show values in
-- group_id: replicate group
-- domain: domain of the group
-- n: ordinary positions
CREATE VIEW group_counts AS
SELECT axis, value, value_id, group_id, domain, n FROM presence_counts WHERE presence = 0;

-- View: group_sums
-- One row per component x axis x value x replicate group that holds an ordinary position where the
--   component is present: sums to build estimates and jackknife standard errors from.
-- component: label
-- axis: class, next_class, position or domain
-- value: name of the class, position bucket or domain
-- value_id: its number: the order to show values in
-- group_id: replicate group
-- n: ordinary positions where the component is present
-- sum_activation: sum of activations
-- sum_dla: sum of DLA, logits
-- sum_abs_dla: sum of |DLA|, logits: importance
CREATE VIEW group_sums AS
SELECT components.component, counted.axis, counted.value, counted.value_id
    , counted.group_id, counted.n, cell_sums.sum_activation::DOUBLE AS sum_activation
    , cell_sums.sum_dla::DOUBLE AS sum_dla, cell_sums.sum_abs_dla::DOUBLE AS sum_abs_dla
FROM cell_sums
JOIN components USING (component_id)
JOIN presence_counts AS counted
    ON counted.presence = components.presence AND counted.axis = cell_sums.axis
        AND counted.value_id = cell_sums.value_id AND counted.group_id = cell_sums.group_id
WHERE cell_sums.axis <> 'domain'
UNION ALL
SELECT component, 'domain', counted.value, counted.value_id, counted.group_id
    , counted.n, by_component.sum_activation, by_component.sum_dla, by_component.sum_abs_dla
FROM (
    SELECT components.component, components.presence, cell_sums.group_id
        , sum(cell_sums.sum_activation) AS sum_activation
        , sum(cell_sums.sum_dla) AS sum_dla
        , sum(cell_sums.sum_abs_dla) AS sum_abs_dla
    FROM cell_sums
    JOIN components USING (component_id)
    JOIN classes ON classes.class_id = cell_sums.value_id AND NOT classes.special
    WHERE cell_sums.axis = 'class'
    GROUP BY components.component, components.presence, cell_sums.group_id
) AS by_component JOIN presence_counts AS counted
    ON counted.presence = by_component.presence AND counted.axis = 'domain'
        AND counted.group_id = by_component.group_id;

-- View: breakdown
-- One row per component x axis x value: means with document-clustered standard errors and 95 %
--   intervals, and the share of the component's importance.
-- component: label
-- axis: class, next_class, position or domain
-- value: name of the class, position bucket or domain
-- value_id: its number: the order to show values in
-- n: ordinary positions where the component is present; means are per such position
-- activation: mean activation
-- activation_se: its standard error
-- activation_lo: lower end of its 95 % interval
-- activation_hi: upper end of its 95 % interval
-- dla: mean DLA, logits
-- dla_se: its standard error
-- dla_lo: lower end of its 95 % interval
-- dla_hi: upper end of its 95 % interval
-- abs_dla: mean |DLA|, logits: importance
-- abs_dla_se: its standard error
-- abs_dla_lo: lower end of its 95 % interval
-- abs_dla_hi: upper end of its 95 % interval
-- share_abs_dla: share of the component's sum of |DLA|
-- share_abs_dla_se: its standard error
-- share_abs_dla_lo: lower end of its 95 % interval, not below 0
-- share_abs_dla_hi: upper end of its 95 % interval, not above 1
-- groups: replicate groups that the means' standard errors rest on
CREATE VIEW breakdown AS
WITH total AS NOT MATERIALIZED (
    -- the component's importance in each group, over all values of the axis; 0 in groups where an
    -- expert was not chosen
    SELECT component, axis, group_id, sum(sum_abs_dla) AS group_total
    FROM (
        SELECT component, axis, group_id, sum_abs_dla FROM group_sums
        UNION ALL
        SELECT components.component, held.axis, held.group_id, 0
        FROM components
        JOIN (SELECT DISTINCT axis, group_id FROM group_counts) AS held ON components.presence > 0
    )
    GROUP BY component, axis, group_id
)
, whole AS NOT MATERIALIZED (
    SELECT component, axis, value, value_id, sum(n) AS n, sum(sum_activation) AS sum_activation
        , sum(sum_dla) AS sum_dla, sum(sum_abs_dla) AS sum_abs_dla
    FROM group_sums GROUP BY component, axis, value, value_id
)
, cells AS NOT MATERIALIZED (
    -- every value beside every group, whether the group holds it or not
    SELECT whole.component, whole.axis, whole.value, whole.value_id, whole.n, whole.sum_activation
        , whole.sum_dla, whole.sum_abs_dla, total.group_total, jackknife_groups.domain_id
        , jackknife_groups.groups, jackknife_groups.part
        , coalesce(group_sums.n, 0) AS group_n
        , coalesce(group_sums.sum_activation, 0) AS group_activation
        , coalesce(group_sums.sum_dla, 0) AS group_dla
        , coalesce(group_sums.sum_abs_dla, 0) AS group_abs_dla
        , whole.axis <> 'domain' OR group_sums.n IS NOT NULL AS counts
    FROM whole
    JOIN total ON total.component = whole.component AND total.axis = whole.axis
    JOIN jackknife_groups ON jackknife_groups.group_id = total.group_id
    LEFT JOIN group_sums
        ON group_sums.component = whole.component AND group_sums.axis = whole.axis
            AND group_sums.value_id = whole.value_id AND group_sums.group_id = total.group_id
)
, left_out AS NOT MATERIALIZED (
    SELECT component, axis, value, value_id, n, sum_activation, sum_dla, sum_abs_dla, domain_id
        , groups, counts, sum(group_total) OVER in_cell AS total
        , without(n, sum(group_n) OVER in_domain, group_n, part) AS n_rest
        , without(sum_activation, sum(group_activation) OVER in_domain, group_activation
            , part) AS activation_rest
        , without(sum_dla, sum(group_dla) OVER in_domain, group_dla, part) AS dla_rest
        , without(sum_abs_dla, sum(group_abs_dla) OVER in_domain, group_abs_dla
            , part) AS abs_dla_rest
        , without(sum(group_total) OVER in_cell, sum(group_total) OVER in_domain, group_total
            , part) AS total_rest
    FROM cells
    WINDOW in_cell AS (PARTITION BY component, axis, value_id)
        , in_domain AS (PARTITION BY component, axis, value_id, domain_id)
)
, by_domain AS NOT MATERIALIZED (
    SELECT component, axis, value, value_id, n, sum_activation, sum_dla, sum_abs_dla, total, groups
        , count(*) FILTER (counts) AS n_groups
        , domain_variance(activation_rest / nullif(n_rest, 0) - sum_activation / n
            , groups) AS activation_variance
        , domain_variance(dla_rest / nullif(n_rest, 0) - sum_dla / n, groups) AS dla_variance
        , domain_variance(abs_dla_rest / nullif(n_rest, 0) - sum_abs_dla / n
            , groups) AS abs_dla_variance
        , domain_variance(abs_dla_rest / nullif(total_rest, 0) - sum_abs_dla / nullif(total, 0)
            , groups) AS share_variance
    FROM left_out
    GROUP BY component, axis, value, value_id, n, sum_activation, sum_dla, sum_abs_dla, total
        , domain_id, groups
)
, errors AS NOT MATERIALIZED (
    SELECT component, axis, value, value_id, n::BIGINT AS n, sum_activation / n AS activation
        , sum_dla / n AS dla, sum_abs_dla / n AS abs_dla
        , sum_abs_dla / nullif(total, 0) AS share_abs_dla, sum(n_groups)::BIGINT AS groups
        , jackknife_se(activation_variance) AS activation_se, jackknife_se(dla_variance) AS dla_se
        , jackknife_se(abs_dla_variance) AS abs_dla_se
        , jackknife_se(share_variance) AS share_abs_dla_se
        , t975(jackknife_df(activation_variance, groups)) AS activation_t
        , t975(jackknife_df(dla_variance, groups)) AS dla_t
        , t975(jackknife_df(abs_dla_variance, groups)) AS abs_dla_t
        , t975(jackknife_df(share_variance, groups)) AS share_t
    FROM by_domain
    GROUP BY component, axis, value, value_id, n, sum_activation, sum_dla, sum_abs_dla, total
)
SELECT component, axis, value, value_id, n
    , activation, activation_se, activation - activation_t * activation_se AS activation_lo
    , activation + activation_t * activation_se AS activation_hi
    , dla, dla_se, dla - dla_t * dla_se AS dla_lo, dla + dla_t * dla_se AS dla_hi
    , abs_dla, abs_dla_se, abs_dla - abs_dla_t * abs_dla_se AS abs_dla_lo
    , abs_dla + abs_dla_t * abs_dla_se AS abs_dla_hi
    , share_abs_dla, share_abs_dla_se
    , CASE WHEN share_abs_dla_se IS NOT NULL
        THEN greatest(0, share_abs_dla - share_t * share_abs_dla_se) END AS share_abs_dla_lo
    , CASE WHEN share_abs_dla_se IS NOT NULL
        THEN least(1, share_abs_dla + share_t * share_abs_dla_se) END AS share_abs_dla_hi
    , groups
FROM errors;

-- View: moments
-- One row per component x class x domain that holds a position; special classes left out. Standard
--   errors rest on the replicate groups of the domain.
-- component: label
-- class: class of the token
-- domain: domain
-- n: positions
-- mean: mean activation
-- mean_se: its document-clustered standard error
-- sd: standard deviation of the activation, divisor n
-- skew: third standardised moment of the activation; NULL where it does not vary
-- kurtosis: fourth standardised moment of the activation, 3 for a normal; NULL where it does not
--   vary
-- min: smallest activation
-- max: largest activation
-- mean_abs: mean |activation|
-- dla_mean: mean DLA, logits
-- dla_mean_se: its document-clustered standard error
-- dla_sd: standard deviation of the DLA, divisor n
-- dla_skew: third standardised moment of the DLA; NULL where it does not vary
-- dla_kurtosis: fourth standardised moment of the DLA, 3 for a normal; NULL where it does not vary
-- dla_min: smallest DLA
-- dla_max: largest DLA
-- abs_dla_mean: mean |DLA|, logits: importance
-- abs_dla_mean_se: its document-clustered standard error
CREATE VIEW moments AS
WITH cells AS NOT MATERIALIZED (
    SELECT components.component, classes.class, domains.domain, jackknife_groups.groups
        , cell_counts.n, cell_sums.sum_activation::DOUBLE AS sum_activation
        , cell_sums.sum_dla::DOUBLE AS sum_dla, cell_sums.sum_abs_dla::DOUBLE AS sum_abs_dla
        , sum(cell_counts.n) OVER in_cell AS n_all
        , sum(cell_sums.sum_activation) OVER in_cell AS all_activation
        , sum(cell_sums.sum_dla) OVER in_cell AS all_dla
        , sum(cell_sums.sum_abs_dla) OVER in_cell AS all_abs_dla
    FROM cell_sums
    JOIN components USING (component_id)
    JOIN classes ON classes.class_id = cell_sums.value_id AND NOT classes.special
    JOIN jackknife_groups USING (group_id)
    JOIN domains USING (domain_id)
    JOIN cell_counts
        ON cell_counts.presence = components.presence AND cell_counts.axis = cell_sums.axis
            AND cell_counts.value_id = cell_sums.value_id
            AND cell_counts.group_id = cell_sums.group_id
    WHERE cell_sums.axis = 'class'
    WINDOW in_cell AS (PARTITION BY components.component, classes.class, domains.domain)
)
, errors AS NOT MATERIALIZED (
    -- one domain: how its rest is weighted cancels in a mean
    SELECT component, class, domain
        , sqrt(domain_variance((all_activation - sum_activation) / nullif(n_all - n, 0)
            - all_activation / n_all, groups)) AS activation_se
        , sqrt(domain_variance((all_dla - sum_dla) / nullif(n_all - n, 0) - all_dla / n_all
            , groups)) AS dla_se
        , sqrt(domain_variance((all_abs_dla - sum_abs_dla) / nullif(n_all - n, 0)
            - all_abs_dla / n_all, groups)) AS abs_dla_se
    FROM cells GROUP BY component, class, domain
)
, central AS NOT MATERIALIZED (
    -- a standard deviation below what float32 tells apart at the size of the mean counts as none
    SELECT components.component, classes.class, domains.domain, power_sums.*
        , CASE WHEN a_m2 / n > 1e-14 * a_mean ** 2 THEN a_m2 / n ELSE 0 END AS activation_variance
        , CASE WHEN d_m2 / n > 1e-14 * d_mean ** 2 THEN d_m2 / n ELSE 0 END AS dla_variance
    FROM power_sums
    JOIN components USING (component_id)
    JOIN classes ON classes.class_id = power_sums.class_id AND NOT classes.special
    JOIN domains USING (domain_id)
)
SELECT central.component, central.class, central.domain, central.n
    , central.a_mean AS mean, errors.activation_se AS mean_se
    , sqrt(central.activation_variance) AS sd
    , central.a_m3 / central.n / nullif(central.activation_variance, 0) ** 1.5 AS skew
    , central.a_m4 / central.n / nullif(central.activation_variance, 0) ** 2 AS kurtosis
    , central.a_min AS min, central.a_max AS max, central.a_abs / central.n AS mean_abs
    , central.d_mean AS dla_mean, errors.dla_se AS dla_mean_se, sqrt(central.dla_variance) AS dla_sd
    , central.d_m3 / central.n / nullif(central.dla_variance, 0) ** 1.5 AS dla_skew
    , central.d_m4 / central.n / nullif(central.dla_variance, 0) ** 2 AS dla_kurtosis
    , central.d_min AS dla_min, central.d_max AS dla_max
    , central.d_abs / central.n AS abs_dla_mean, errors.abs_dla_se AS abs_dla_mean_se
FROM central
JOIN errors
    ON errors.component = central.component AND errors.class = central.class
        AND errors.domain = central.domain;

-- View: importance
-- One row per head, neuron and unit of a dictionary: its importance over all ordinary positions.
-- component_id: number
-- component: label
-- kind: head, neuron, feature, direction ...
-- layer: layer
-- sum_abs_dla: sum of |DLA|, logits
CREATE VIEW importance AS
SELECT components.component_id, components.component, components.kind, components.layer
    , component_importance.sum_abs_dla
FROM component_importance JOIN components USING (component_id);
INSERT INTO component_importance -- in an order of its own: the last bit of a sum depends on it
SELECT component_id, coalesce(sums.sum_abs_dla, 0) -- 0 where an expert was never chosen
FROM components
LEFT JOIN (
    SELECT power_sums.component_id
        , sum(power_sums.d_abs ORDER BY power_sums.class_id, power_sums.domain_id) AS sum_abs_dla
    FROM power_sums
    JOIN classes ON classes.class_id = power_sums.class_id AND NOT classes.special
    GROUP BY power_sums.component_id
) AS sums USING (component_id)
WHERE components.unit IS NOT NULL
ORDER BY component_id;

-- Labels of the `most` most important heads or neurons, most important first, 0 for all; or `label`
-- alone where it is not empty. A list, because a filter on a list goes below a view and a join does
-- not.
CREATE MACRO chosen_components(of_kind, label, most) AS (
    SELECT list(component ORDER BY ordinal) FROM (
        SELECT component, row_number() OVER (ORDER BY sum_abs_dla DESC, component_id) AS ordinal
        FROM importance
        WHERE CASE label WHEN '' THEN kind = of_kind ELSE component = label END
    ) WHERE label <> '' OR most = 0 OR ordinal <= most
);

-- View: head_attention
-- One row per head x position of the uniform sample: where the head attends from there.
-- component: label of the head
-- position_id: query position
-- previous_token: attention to the token before
-- two_back: attention to the token before the one before
-- first_token: attention to offset 0 of the window (the BOS, where one is put there)
-- self: attention to the position itself
-- induction: attention to tokens before this position that follow an earlier copy of its token
-- prefix_induction: part of induction: where the token before that copy is this token's token
--   before, too
-- duplicate: attention to earlier copies of this token
-- newline: attention to tokens of class newline
-- delimiter: attention to punctuation, brackets, quotes and operators
-- entropy: of the attention row, nats
-- top_offset: how many tokens back the most attended position is; 0 is the position itself
-- top_weight: attention to it
-- dla_to_attended: logit the head adds directly to the most attended token itself, centred: > 0
--   copies, < 0 suppresses
-- activation: the head's activation there (norm of its output)
-- dla: the head's DLA there, logits
-- sink: attention to a learned sink of the head's own, which is no token; 0 where there is none
CREATE VIEW head_attention AS
SELECT components.component, head_attention_rows.position_id, head_attention_rows.previous_token
    , head_attention_rows.two_back, head_attention_rows.first_token, head_attention_rows.self
    , head_attention_rows.induction, head_attention_rows.prefix_induction
    , head_attention_rows.duplicate, head_attention_rows.newline, head_attention_rows.delimiter
    , head_attention_rows.entropy, head_attention_rows.top_offset, head_attention_rows.top_weight
    , head_attention_rows.dla_to_attended, dense_rows.activation, dense_rows.dla
    , head_attention_rows.sink
FROM head_attention_rows
JOIN components USING (component_id)
LEFT JOIN dense_rows
    ON dense_rows.component_id = components.component_id
        AND dense_rows.position_id = head_attention_rows.position_id;

-- View: token_texts
-- One row per token of the vocabulary: the columns that the condition of a token class is written
--   over.
-- token_id: token
-- text: its text, leading blank kept; bytes that are no UTF-8 alone stand as <0xE2>
-- body: its text without blanks at its ends
-- class: its class in the partition
-- special: true for special tokens, which have no properties
CREATE VIEW token_texts AS
SELECT tokens.token_id, tokens.token AS text, trim(tokens.token, ' ') AS body, classes.class
    , classes.special
FROM tokens JOIN classes USING (class_id);

-- View: token_properties
-- One row per token x property that it has.
-- token_id: token
-- token: its text
-- property: name
CREATE VIEW token_properties AS
SELECT token_property_lists.token_id, tokens.token
    , unnest(token_property_lists.properties) AS property
FROM token_property_lists JOIN tokens USING (token_id);

-- View: token_splits
-- One row per component with token sums x property x side: exact sums over all ordinary positions,
--   for any class of tokens, those defined after the run too.
-- component: label
-- property: name
-- inside: true for tokens that have the property, false for all others
-- n: ordinary positions
-- sum_activation: sum of activations
-- sum_dla: sum of DLA, logits
-- sum_abs_dla: sum of |DLA|, logits: importance
CREATE VIEW token_splits AS
SELECT components.component, properties.property
    , list_contains(token_property_lists.properties, properties.property) AS inside
    , sum(token_counts.n)::BIGINT AS n
    , sum(token_sums.sum_activation) AS sum_activation, sum(token_sums.sum_dla) AS sum_dla
    , sum(token_sums.sum_abs_dla) AS sum_abs_dla
FROM token_sums
JOIN components USING (component_id)
JOIN token_counts
    ON token_counts.presence = components.presence AND token_counts.token_id = token_sums.token_id
JOIN token_property_lists ON token_property_lists.token_id = token_sums.token_id
CROSS JOIN properties
GROUP BY components.component, properties.property, inside;

-- View: position_facts
-- One row per kept ordinary position: the columns that the condition of a behaviour is written
--   over.
-- position_id: position
-- doc_id: document
-- group_id: replicate group of the document
-- domain: domain of the document
-- pos: index of the token in its document
-- offset: index in the window, from 0 (the BOS, where one is put there)
-- token: text of the token there
-- class: its class
-- properties: its properties
-- token_before: text of the token before
-- class_before: its class
-- properties_before: its properties
-- next_token: text of the token that the model must predict
-- next_class: its class
-- next_properties: its properties
-- repeated: whether the token stood earlier in the window
-- distance: tokens back to its last copy in the window; NULL if there is none
-- prefix_match: longest stretch of tokens ending here that ends at an earlier place too, at most 8
-- bracket_depth: brackets opened and not closed in the document up to here; a blank line closes all
-- in_quotes: whether a quote of " or """ is open in the document before this token; a line end
--   closes one of "
-- target_logit: logit of the next token, centred over the vocabulary, logits
-- loss: -ln p(next token), nats; NULL where not dense
-- rank: number of tokens with a larger logit than the next token; NULL where not dense
-- entropy: of the predicted distribution, nats; NULL where not dense
-- dense: true where it belongs to the uniform sample with every component's value
-- role: whose message the token is of; template for the chat template's own text, NULL for text
--   that is no conversation
CREATE VIEW position_facts AS
SELECT position_rows.position_id, position_rows.doc_id, documents.group_id, documents.domain
    , position_rows.pos, position_rows."offset"
    , own.token, own.class, own.properties, preceding.token AS token_before
    , preceding.class AS class_before, preceding.properties AS properties_before
    , following.token AS next_token, following.class AS next_class
    , following.properties AS next_properties
    , position_rows.distance IS NOT NULL AS repeated, position_rows.distance
    , position_rows.prefix_match, position_rows.bracket_depth, position_rows.in_quotes
    , position_rows.target_logit::DOUBLE AS target_logit, position_rows.loss, position_rows."rank"
    , position_rows.entropy, position_rows.dense, position_rows.role
FROM position_rows
JOIN documents USING (doc_id)
JOIN token_property_lists AS own ON own.token_id = position_rows.token_id
JOIN token_property_lists AS following ON following.token_id = position_rows.next_token_id
LEFT JOIN token_property_lists AS preceding ON preceding.token_id = position_rows.previous_token_id
WHERE position_rows.special IS NULL;

-- View: head_facts
-- One row per head x position of the uniform sample: what is known of it there, as columns for
--   conditions.
-- component: label
-- kind: head
-- layer: layer
-- weight: how many positions of the corpus the row stands for
-- activation: activation there (norm of the head's output)
-- dla: DLA there, logits
-- previous_token: attention to the token before
-- two_back: attention to the token before the one before
-- first_token: attention to offset 0 of the window (the BOS, where one is put there)
-- self: attention to the position itself
-- induction: attention to tokens before this position that follow an earlier copy of its token
-- prefix_induction: part of induction: where the token before that copy is this token's token
--   before, too
-- duplicate: attention to earlier copies of this token
-- newline: attention to tokens of class newline
-- delimiter: attention to punctuation, brackets, quotes and operators
-- attention_entropy: of the attention row, nats
-- top_offset: how many tokens back the most attended position is; 0 is the position itself
-- top_weight: attention to it
-- dla_to_attended: logit the head adds directly to the most attended token itself, centred
-- sink: attention to a learned sink of the head's own, which is no token; 0 where there is none
CREATE VIEW head_facts AS
SELECT components.component, components.kind, components.layer, size.weight, dense_rows.activation
    , dense_rows.dla, head_attention_rows.previous_token, head_attention_rows.two_back
    , head_attention_rows.first_token, head_attention_rows.self, head_attention_rows.induction
    , head_attention_rows.prefix_induction, head_attention_rows.duplicate
    , head_attention_rows.newline, head_attention_rows.delimiter
    , head_attention_rows.entropy AS attention_entropy, head_attention_rows.top_offset
    , head_attention_rows.top_weight
    , head_attention_rows.dla_to_attended, head_attention_rows.sink, position_facts.*
FROM head_attention_rows
JOIN components USING (component_id)
JOIN dense_rows
    ON dense_rows.component_id = components.component_id
        AND dense_rows.position_id = head_attention_rows.position_id
JOIN position_facts ON position_facts.position_id = head_attention_rows.position_id
CROSS JOIN (
    SELECT (SELECT n_positions FROM runs)
        / nullif((SELECT count(*) FROM uniform_marks), 0) AS weight
) AS size;

-- View: pooled_rows
-- One row per component x kept position of its own: the stratified samples and the uniform sample
--   together, each position once. In a stratum both are simple random samples of the same
--   positions, and so is their union; the stratum's size is known exactly. sum(weight * x)
--   estimates the sum of x over all ordinary positions, with less noise than either alone.
-- component: label
-- stratum: number of the spectrum bin
-- position_id: position
-- activation: activation there
-- dla: DLA there, logits
-- weight: ordinary positions in the stratum / rows of it here
-- kind: head or neuron, or that of an embedding or bias
-- layer: layer
-- uniform: true where it is of the uniform sample, false where of the stratified samples alone
CREATE VIEW pooled_rows AS
WITH rows AS NOT MATERIALIZED (
    SELECT component_id, bin, position_id, activation, dla, true AS uniform FROM dense_rows
    UNION ALL
    SELECT component_id, bin, position_id, sample_rows.activation, sample_rows.dla, false
    FROM sample_rows ANTI JOIN uniform_marks USING (position_id)
)
SELECT components.component, rows.bin AS stratum, rows.position_id, rows.activation, rows.dla
    , pooled_strata.n / pooled_strata.kept AS weight, components.kind, components.layer
    , rows.uniform
FROM rows JOIN components USING (component_id) JOIN pooled_strata USING (component_id, bin);

-- View: uniform_rows
-- One row per head or neuron x position of the uniform sample: its weight in pooled_rows (neurons)
--   or head_facts (heads).
-- component: label
-- kind: head or neuron
-- layer: layer
-- position_id: position
-- activation: activation there
-- dla: DLA there, logits
-- weight: how many positions of the corpus the row stands for
CREATE VIEW uniform_rows AS
SELECT components.component, components.kind, components.layer, dense_rows.position_id
    , dense_rows.activation, dense_rows.dla
    , CASE components.kind WHEN 'head' THEN size.weight
        ELSE pooled_strata.n / pooled_strata.kept END AS weight
FROM dense_rows
JOIN components USING (component_id)
JOIN pooled_strata
    ON pooled_strata.component_id = dense_rows.component_id AND pooled_strata.bin = dense_rows.bin
CROSS JOIN (
    SELECT (SELECT n_positions FROM runs)
        / nullif((SELECT count(*) FROM uniform_marks), 0) AS weight
) AS size
WHERE components.unit IS NOT NULL;

-- View: neuron_facts
-- One row per neuron or unit of a dictionary x kept position of its own: what is known of it there,
--   as columns for conditions.
-- component: label
-- kind: neuron, feature, direction or subspace
-- layer: layer
-- weight: how many positions of the corpus the row stands for (pooled_rows)
-- uniform: true where it is of the uniform sample, false where of the stratified samples alone
-- activation: activation there
-- dla: DLA there, logits
CREATE VIEW neuron_facts AS
SELECT pooled_rows.component, pooled_rows.kind, pooled_rows.layer, pooled_rows.weight
    , pooled_rows.uniform, pooled_rows.activation, pooled_rows.dla, position_facts.*
FROM pooled_rows JOIN position_facts ON position_facts.position_id = pooled_rows.position_id
WHERE pooled_rows.kind IN ('neuron', 'feature', 'direction', 'subspace');

-- View: component_facts
-- One row per head, neuron or unit of a dictionary x kept position of its own: what mixtures and
--   curves are built from.
-- component: label
-- kind: head, neuron, feature, direction or subspace
-- position_id: position
-- doc_id: document
-- group_id: replicate group of the document
-- domain: domain of the document
-- weight: how many positions of the corpus the row stands for
-- activation: activation there
-- dla: DLA there, logits
-- band: the largest of the quantiles 0, 0.5, 0.75, 0.9, 0.95, 0.99 of the component's activation
--   whose level it reaches; those that ties leave no level near to (table quantiles) are no bands
-- layer: layer
CREATE VIEW component_facts AS
WITH levels AS NOT MATERIALIZED (
    SELECT components.component
        , list({'quantile': quantiles.quantile, 'level': quantiles.level}
            ORDER BY quantiles.quantile) AS levels
    FROM quantiles JOIN components USING (component_id)
    WHERE quantiles.quantile IN (0.5, 0.75, 0.9, 0.95, 0.99) AND quantiles.level IS NOT NULL
    GROUP BY components.component
)
SELECT pooled_rows.component, pooled_rows.kind, pooled_rows.position_id, documents.doc_id
    , documents.group_id, documents.domain
    , CASE pooled_rows.kind WHEN 'head' THEN size.weight ELSE pooled_rows.weight END AS weight
    , pooled_rows.activation, pooled_rows.dla
    , coalesce(list_max([
        step.quantile FOR step IN levels.levels IF reaches(pooled_rows.activation, step.level)])
            , 0) AS band, pooled_rows.layer
FROM pooled_rows
JOIN documents ON documents.doc_id = pooled_rows.position_id >> 32
CROSS JOIN (
    SELECT (SELECT n_positions FROM runs)
        / nullif((SELECT count(*) FROM uniform_marks), 0) AS weight
) AS size
LEFT JOIN levels ON levels.component = pooled_rows.component
WHERE pooled_rows.kind IN ('neuron', 'feature', 'direction', 'subspace')
    OR pooled_rows.kind = 'head' AND pooled_rows.uniform;
