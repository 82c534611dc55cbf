-- The views of a run: what users write SQL against. Names and columns are stable; a column may be added, none renamed.
--
-- The block of comments above each view becomes its comment and its columns' comments in the database
-- (profiler.database.comments). Special positions are left out of every view of sums, counts, samples and extremes; the
-- views that hold single positions say which are special.
--
-- Layout, measured on 4,100 components: a filter on the label becomes a filter on component_id only where components is
-- joined before anything is grouped or windowed, so groups and partitions name the label. Common table expressions say
-- NOT MATERIALIZED, or the filter stops at them. Contexts are spelled in the outermost SELECT, for the rows that are
-- left, and the one-row vocabulary comes by LEFT JOIN, which is never reordered: a cross join may be put below the others
-- and copies the whole vocabulary into their hash tables (gigabytes, seen in DuckDB 1.2).
--
-- Standard errors: stratified delete-a-group jackknife (Wolter, Introduction to Variance Estimation, chapter 4; Rust and
-- Rao 1996). Domains are fixed, documents are what is sampled: a group g of documents is left out of its own domain d, the
-- domain's other groups are weighted up to its number of documents, and
--   se^2 = sum over d of (G_d - 1) / G_d * sum over g in d of (estimate without g - mean of those in d)^2.
-- The macros below are the only place where this is written; NULL where one group holds every position of a cell.

-- 0.975 quantile of Student's t: a table up to 12 degrees of freedom, then Fisher's expansion (off by less than 3e-6).
-- Of degrees of freedom that are not whole, the whole ones below.
CREATE MACRO t975(df) AS CASE WHEN floor(df + 1e-6) < 1 THEN NULL WHEN floor(df + 1e-6) <= 12
    THEN [12.7062047, 4.3026527, 3.1824463, 2.7764451, 2.5705818, 2.4469119, 2.3646243, 2.3060041, 2.2621572, 2.2281389, 2.2009852, 2.1788128][floor(df + 1e-6)::INTEGER]
    ELSE 1.959964 + 2.372271 / floor(df + 1e-6) + 2.822502 / floor(df + 1e-6) ** 2 + 2.555852 / floor(df + 1e-6) ** 3
        + 1.589549 / floor(df + 1e-6) ** 4 END;

-- A sum when a group is left out of its domain: `total` over all, `of_domain`, `of_group`; `part` is the group's part of the
-- domain's documents (view jackknife_groups).
CREATE MACRO without(total, of_domain, of_group, part) AS total - of_domain + (of_domain - of_group) / (1 - part);

-- What a domain adds to the variance: an aggregate over its `g` groups of `x`, the estimate without each less the estimate.
-- A domain of one group says nothing of its own documents: its group is held against the estimate itself, which is too wide
-- rather than too narrow (Lumley 2010, Complex Surveys, 'adjust' for a lonely unit).
CREATE MACRO domain_variance(x, g) AS CASE WHEN count(x) < count(*) THEN NULL WHEN any_value(g) = 1 THEN sum(x ** 2)
    ELSE (any_value(g) - 1) / any_value(g) * greatest(0, sum(x ** 2) - sum(x) ** 2 / any_value(g)) END;

-- Standard error: an aggregate over domains of `v`, their domain_variance.
CREATE MACRO jackknife_se(v) AS CASE WHEN count(v) = count(*) THEN sqrt(sum(v)) END;

-- Degrees of freedom of that error (Satterthwaite 1946): the sum of G_d - 1 where all domains add alike, fewer where one
-- adds most.
CREATE MACRO jackknife_df(v, g) AS coalesce(sum(v) ** 2 / nullif(sum(v ** 2 / greatest(g - 1, 1)), 0), sum(greatest(g - 1, 1)));

-- Whether an activation reaches an edge between bins: an edge below zero belongs to the bin under it.
CREATE MACRO reaches(activation, level) AS activation > level OR level > 0 AND activation = level;

-- The text of tokens' texts. Tokens that are bytes (<0xE6>) are joined before they are read as UTF-8; bytes that are no
-- character even then (one cut off at an end) stay as they are spelled. All as hexadecimal digits, cut into characters.
CREATE MACRO is_bytes(text) AS starts_with(text, '<0x') AND regexp_full_match(text, '(<0x[0-9A-F]{2}>)+');
CREATE MACRO digits_of(text) AS CASE WHEN is_bytes(text) THEN regexp_replace(text, '<0x|>', '', 'g') ELSE hex(encode(text)) END;
CREATE MACRO characters(digits) AS regexp_extract_all(digits, '([0-7].)+|(C[2-9A-F]|D.)[89AB].|E0[AB].[89AB].|ED[89].[89AB].'
    || '|E[1-9A-CEF]([89AB].){2}|F0[9AB].([89AB].){2}|F[1-3]([89AB].){3}|F48.([89AB].){2}|..');
CREATE MACRO character_of(digits) AS CASE WHEN len(digits) = 2 AND digits >= '80' THEN concat('<0x', digits, '>')
    ELSE decode(unhex(digits)) END;
CREATE MACRO join_texts(texts) AS CASE WHEN len([t FOR t IN texts IF is_bytes(t)]) = 0 THEN array_to_string(texts, '')
    ELSE array_to_string([character_of(c) FOR c IN characters(array_to_string([digits_of(t) FOR t IN texts], ''))], '') END;

-- The text of token ids `ids`; `tokens` is vocabulary.tokens.
CREATE MACRO spell(tokens, ids) AS join_texts([tokens[t + 1] FOR t IN ids]);

-- View: jackknife_groups
-- One row per replicate group of documents, with what its domain's part of a standard error needs.
-- group_id: replicate group
-- domain_id: its domain
-- groups: replicate groups of the domain
-- part: its part of the domain's documents; 0 where it is the only group, so that the domain goes when it is left out
CREATE VIEW jackknife_groups AS
SELECT group_id, domain_id, count(*) OVER one AS groups
    , CASE WHEN count(*) OVER one > 1 THEN n_documents / sum(n_documents) OVER one ELSE 0 END AS part
FROM replicate_groups WINDOW one AS (PARTITION BY domain_id);

-- Ratios sum(above) / sum(below) with standard error and t quantile: half a 95 % interval is t * se. `sums` names a relation
-- (a common table expression too) with a row per key and group: key, group_id, above, below; no row stands for nothing.
CREATE MACRO jackknife_ratios(sums) AS TABLE
WITH present AS (
    SELECT key, group_id, sum(above) AS above, sum(below) AS below FROM query_table(sums) GROUP BY key, group_id
)
, cells AS (
    SELECT k.key, g.domain_id, g.groups, g.part, coalesce(p.above, 0)::DOUBLE AS above, coalesce(p.below, 0)::DOUBLE AS below
    FROM (SELECT DISTINCT key FROM present) k CROSS JOIN jackknife_groups g LEFT JOIN present p ON p.key = k.key AND p.group_id = g.group_id
)
, left_out AS (
    SELECT key, domain_id, groups, sum(above) OVER cell AS above, sum(below) OVER cell AS below
        , without(sum(above) OVER cell, sum(above) OVER here, above, part) AS above_rest
        , without(sum(below) OVER cell, sum(below) OVER here, below, part) AS below_rest
    FROM cells WINDOW cell AS (PARTITION BY key), here AS (PARTITION BY key, domain_id)
)
, by_domain AS (
    SELECT key, any_value(above) AS above, any_value(below) AS below, groups
        , domain_variance(CASE WHEN below_rest > 1e-12 * below THEN above_rest / below_rest - above / below END, groups) AS v
    FROM left_out GROUP BY key, domain_id, groups
)
SELECT key, any_value(above) AS above, any_value(below) AS below, any_value(above) / nullif(any_value(below), 0) AS ratio
    , jackknife_se(v) AS se, t975(jackknife_df(v, groups)) AS t
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
-- special: bos, first or special; NULL for an ordinary position
-- dense: true where it belongs to the uniform sample with every component's value
-- role: whose message the token is of; template for the chat template's own text, NULL for text that is no conversation
CREATE VIEW positions AS
SELECT p.position_id, p.window_id, p.doc_id, d.domain, d.source, p.pos, p."offset", p.token_id, t.token
    , p.next_token_id, nt.token AS next_token, c.class, nc.class AS next_class, p.target_logit, p.loss, p."rank"
    , p.entropy, p.special, p.dense, p.role
FROM position_rows p
JOIN documents d USING (doc_id)
JOIN tokens t ON t.token_id = p.token_id
JOIN tokens nt ON nt.token_id = p.next_token_id
JOIN classes c ON c.class_id = p.class_id
JOIN classes nc ON nc.class_id = nt.class_id;

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
-- role: whose message the token is of; template for the chat template's own text, NULL for text that is no conversation
CREATE VIEW contexts AS
SELECT p.position_id, p.doc_id, d.domain, d.source, v.tokens[p.token_id + 1] AS token
    , v.tokens[p.next_token_id + 1] AS next_token
    , spell(v.tokens, list_slice(w.token_ids, greatest(1, p."offset" - 23), p."offset")) AS context_before
    , v.tokens[p.token_id + 1] AS context_token
    , spell(v.tokens, list_slice(w.token_ids, p."offset" + 2, p."offset" + 9)) AS context_after
    , concat(context_before, '«', context_token, '»', context_after) AS context
    , p.loss, p."rank", p.entropy, p.role
FROM position_rows p
JOIN documents d USING (doc_id)
JOIN windows w USING (window_id)
LEFT JOIN vocabulary v ON true;

-- View: activations
-- One row per component x position of the uniform sample (ordinary positions only): for free-form SQL, unweighted.
-- component: label
-- position_id: position
-- activation: activation there
-- dla: DLA there, logits
CREATE VIEW activations AS
SELECT c.component, r.position_id, r.activation, r.dla
FROM dense_rows r JOIN components c USING (component_id);

-- View: recorded
-- One row per component named by --components x position, special positions too.
-- component: label
-- position_id: position
-- special: bos, first or special; NULL for an ordinary position
-- activation: activation there
-- dla: DLA there, logits
CREATE VIEW recorded AS
SELECT c.component, r.position_id, p.special, r.activation, r.dla
FROM recorded_rows r JOIN components c USING (component_id) JOIN position_rows p USING (position_id);

-- View: strata
-- One row per component x spectrum bin that holds an ordinary position: the strata that samples are drawn from. Edges are
--   those of the bin, the same for all components, and may lie beyond the values seen (moments.min, moments.max).
-- component: label
-- stratum: number of the spectrum bin
-- lo: lower edge of the activation
-- hi: upper edge of the activation
-- n: ordinary positions in it
CREATE VIEW strata AS
SELECT c.component, s.bin AS stratum, b.lo, b.hi, sum(s.n)::BIGINT AS n
FROM spectrum_counts s
JOIN components c USING (component_id)
JOIN classes k ON k.class_id = s.class_id AND NOT k.special
JOIN bins b ON b.resolution = 'spectrum' AND b.bin = s.bin
GROUP BY c.component, s.bin, b.lo, b.hi;

-- View: sample_weights
-- One row per component x stratum x sampled position, once each: the form to aggregate samples from.
--   sum(weight * x) estimates the sum of x over all ordinary positions without bias.
-- component: label
-- stratum: number of the spectrum bin
-- position_id: position
-- activation: activation there
-- dla: DLA there, logits
-- inclusion_probability: rows sampled in the stratum / ordinary positions in it
-- weight: 1 / inclusion_probability: how many positions of the corpus the row stands for
CREATE VIEW sample_weights AS
SELECT component, stratum, position_id, activation, dla, sampled / n AS inclusion_probability, n / sampled AS weight
FROM (
    SELECT c.component, r.bin AS stratum, r.position_id, r.activation, r.dla
        , count(*) OVER (PARTITION BY c.component, r.bin) AS sampled
    FROM sample_rows r JOIN components c USING (component_id)
) JOIN strata USING (component, stratum);

-- View: samples
-- One row per component x stratum x sampled position, with its context; once for each quantile that the stratum holds,
--   so aggregate from sample_weights, not from here.
-- component: label
-- stratum: number of the spectrum bin it was drawn from
-- stratum_lo: lower edge of the stratum's bin of activation, which may lie beyond the values seen
-- stratum_hi: upper edge of the stratum's bin of activation, which may lie beyond the values seen
-- quantile: quantile of the component's activation that lies in the stratum (0.5, 0.9, 0.99, ...); NULL if none does
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
-- role: whose message the token is of; template for the chat template's own text, NULL for text that is no conversation
CREATE VIEW samples AS
SELECT s.component, s.stratum, b.lo AS stratum_lo, b.hi AS stratum_hi, q.quantile, s.position_id, p.doc_id, d.domain
    , d.source, v.tokens[p.token_id + 1] AS token
    , v.tokens[p.next_token_id + 1] AS next_token
    , spell(v.tokens, list_slice(w.token_ids, greatest(1, p."offset" - 23), p."offset")) AS context_before
    , v.tokens[p.token_id + 1] AS context_token
    , spell(v.tokens, list_slice(w.token_ids, p."offset" + 2, p."offset" + 9)) AS context_after
    , concat(context_before, '«', context_token, '»', context_after) AS context
    , s.activation, s.dla, s.inclusion_probability, p.role
FROM sample_weights s
JOIN bins b ON b.resolution = 'spectrum' AND b.bin = s.stratum
LEFT JOIN (SELECT c.component, q.bin, q.quantile FROM quantiles q JOIN components c USING (component_id)) q
    ON q.component = s.component AND q.bin = s.stratum
JOIN position_rows p USING (position_id)
JOIN documents d USING (doc_id)
JOIN windows w USING (window_id)
LEFT JOIN vocabulary v ON true;

-- View: extremes
-- One row per component x measure x side x rank: the largest and smallest values over ordinary positions.
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
-- role: whose message the token is of; template for the chat template's own text, NULL for text that is no conversation
CREATE VIEW extremes AS
SELECT c.component, e.measure, e.side, e."rank", e.position_id, p.doc_id, d.domain, d.source
    , v.tokens[p.token_id + 1] AS token
    , v.tokens[p.next_token_id + 1] AS next_token
    , spell(v.tokens, list_slice(w.token_ids, greatest(1, p."offset" - 23), p."offset")) AS context_before
    , v.tokens[p.token_id + 1] AS context_token
    , spell(v.tokens, list_slice(w.token_ids, p."offset" + 2, p."offset" + 9)) AS context_after
    , concat(context_before, '«', context_token, '»', context_after) AS context
    , e.activation, e.dla, p.role
FROM extreme_rows e
JOIN components c USING (component_id)
JOIN position_rows p USING (position_id)
JOIN documents d USING (doc_id)
JOIN windows w USING (window_id)
LEFT JOIN vocabulary v ON true;

-- View: spectrum
-- One row per component x class x spectrum bin that holds a position; special classes left out. Edges are those of the
--   bin, the same for all components, and may lie beyond the values seen (moments.min, moments.max).
-- component: label
-- class: class of the token
-- bin: number of the spectrum bin, ascending with the activation
-- lo: lower edge of the activation
-- hi: upper edge of the activation
-- n: positions
-- sum_dla: sum of DLA, logits
-- sum_abs_dla: sum of |DLA|, logits: importance
CREATE VIEW spectrum AS
SELECT c.component, k.class, s.bin, b.lo, b.hi, s.n, s.sum_dla, s.sum_abs_dla
FROM spectrum_counts s
JOIN components c USING (component_id)
JOIN classes k ON k.class_id = s.class_id AND NOT k.special
JOIN bins b ON b.resolution = 'spectrum' AND b.bin = s.bin;

-- View: density
-- One row per component x density bin (16 an octave) that holds an ordinary position. Edges are those of the bin and may
--   lie beyond the values seen (moments.min, moments.max).
-- component: label
-- bin: number of the density bin, ascending with the activation
-- lo: lower edge of the activation
-- hi: upper edge of the activation
-- n: positions
CREATE VIEW density AS
SELECT c.component, d.bin, b.lo, b.hi, d.n
FROM density_counts d
JOIN components c USING (component_id)
JOIN bins b ON b.resolution = 'density' AND b.bin = d.bin;

-- View: group_counts
-- One row per axis x value x replicate group: ordinary positions, the same for every component.
-- axis: class, next_class, position or domain
-- value: name of the class, position bucket or domain
-- value_id: its number: the order to show values in
-- group_id: replicate group
-- domain: domain of the group
-- n: ordinary positions
CREATE VIEW group_counts AS
WITH cells AS NOT MATERIALIZED (
    SELECT axis, value_id, group_id, n FROM cell_counts
    WHERE NOT (axis = 'class' AND value_id IN (SELECT class_id FROM classes WHERE special))
)
, named AS NOT MATERIALIZED (
    SELECT axis, k.class AS value, value_id, group_id, n
    FROM cells JOIN classes k ON k.class_id = value_id WHERE axis IN ('class', 'next_class')
    UNION ALL
    SELECT axis, b.bucket, value_id, group_id, n
    FROM cells JOIN position_buckets b ON b.bucket_id = value_id WHERE axis = 'position'
    UNION ALL
    SELECT 'domain', d.domain, d.domain_id, group_id, sum(n)::BIGINT
    FROM cells JOIN replicate_groups USING (group_id) JOIN domains d USING (domain_id) WHERE axis = 'class'
    GROUP BY d.domain, d.domain_id, group_id
)
SELECT axis, value, value_id, group_id, d.domain, n
FROM named JOIN replicate_groups g USING (group_id) JOIN domains d USING (domain_id);

-- View: group_sums
-- One row per component x axis x value x replicate group that holds an ordinary position: sums to build estimates and
--   jackknife standard errors from.
-- component: label
-- axis: class, next_class, position or domain
-- value: name of the class, position bucket or domain
-- value_id: its number: the order to show values in
-- group_id: replicate group
-- n: ordinary positions
-- sum_activation: sum of activations
-- sum_dla: sum of DLA, logits
-- sum_abs_dla: sum of |DLA|, logits: importance
CREATE VIEW group_sums AS
SELECT c.component, n.axis, n.value, n.value_id, n.group_id, n.n, s.sum_activation, s.sum_dla, s.sum_abs_dla
FROM cell_sums s
JOIN components c USING (component_id)
JOIN group_counts n ON n.axis = s.axis AND n.value_id = s.value_id AND n.group_id = s.group_id
WHERE s.axis <> 'domain'
UNION ALL
SELECT component, 'domain', n.value, n.value_id, n.group_id, n.n, s.sum_activation, s.sum_dla, s.sum_abs_dla
FROM (
    SELECT c.component, s.group_id, sum(s.sum_activation) AS sum_activation, sum(s.sum_dla) AS sum_dla
        , sum(s.sum_abs_dla) AS sum_abs_dla
    FROM cell_sums s
    JOIN components c USING (component_id)
    JOIN classes k ON k.class_id = s.value_id AND NOT k.special
    WHERE s.axis = 'class'
    GROUP BY c.component, s.group_id
) s JOIN group_counts n ON n.axis = 'domain' AND n.group_id = s.group_id;

-- View: breakdown
-- One row per component x axis x value: means with document-clustered standard errors and 95 % intervals, and the share
--   of the component's importance.
-- component: label
-- axis: class, next_class, position or domain
-- value: name of the class, position bucket or domain
-- value_id: its number: the order to show values in
-- n: ordinary positions
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
    -- the component's importance in each group, over all values of the axis
    SELECT component, axis, group_id, sum(sum_abs_dla) AS total_g
    FROM group_sums GROUP BY component, axis, group_id
)
, whole AS NOT MATERIALIZED (
    SELECT component, axis, value, value_id, sum(n) AS n, sum(sum_activation) AS a, sum(sum_dla) AS d, sum(sum_abs_dla) AS m
    FROM group_sums GROUP BY component, axis, value, value_id
)
, cells AS NOT MATERIALIZED (
    -- every value beside every group, whether the group holds it or not
    SELECT w.component, w.axis, w.value, w.value_id, w.n, w.a, w.d, w.m, t.total_g, g.domain_id, g.groups, g.part
        , coalesce(s.n, 0) AS n_g, coalesce(s.sum_activation, 0) AS a_g, coalesce(s.sum_dla, 0) AS d_g, coalesce(s.sum_abs_dla, 0) AS m_g
        , w.axis <> 'domain' OR s.n IS NOT NULL AS counts
    FROM whole w
    JOIN total t ON t.component = w.component AND t.axis = w.axis
    JOIN jackknife_groups g ON g.group_id = t.group_id
    LEFT JOIN group_sums s ON s.component = w.component AND s.axis = w.axis AND s.value_id = w.value_id AND s.group_id = t.group_id
)
, left_out AS NOT MATERIALIZED (
    SELECT component, axis, value, value_id, n, a, d, m, domain_id, groups, counts, sum(total_g) OVER cell AS total
        , without(n, sum(n_g) OVER here, n_g, part) AS n_rest, without(a, sum(a_g) OVER here, a_g, part) AS a_rest
        , without(d, sum(d_g) OVER here, d_g, part) AS d_rest, without(m, sum(m_g) OVER here, m_g, part) AS m_rest
        , without(sum(total_g) OVER cell, sum(total_g) OVER here, total_g, part) AS total_rest
    FROM cells WINDOW cell AS (PARTITION BY component, axis, value_id), here AS (PARTITION BY component, axis, value_id, domain_id)
)
, by_domain AS NOT MATERIALIZED (
    SELECT component, axis, value, value_id, n, a, d, m, total, groups, count(*) FILTER (counts) AS n_groups
        , domain_variance(a_rest / nullif(n_rest, 0) - a / n, groups) AS a_v
        , domain_variance(d_rest / nullif(n_rest, 0) - d / n, groups) AS d_v
        , domain_variance(m_rest / nullif(n_rest, 0) - m / n, groups) AS m_v
        , domain_variance(m_rest / nullif(total_rest, 0) - m / nullif(total, 0), groups) AS share_v
    FROM left_out GROUP BY component, axis, value, value_id, n, a, d, m, total, domain_id, groups
)
, errors AS NOT MATERIALIZED (
    SELECT component, axis, value, value_id, n::BIGINT AS n, a / n AS activation, d / n AS dla, m / n AS abs_dla
        , m / nullif(total, 0) AS share_abs_dla, sum(n_groups)::BIGINT AS groups
        , jackknife_se(a_v) AS activation_se, jackknife_se(d_v) AS dla_se, jackknife_se(m_v) AS abs_dla_se
        , jackknife_se(share_v) AS share_abs_dla_se
        , t975(jackknife_df(a_v, groups)) AS a_t, t975(jackknife_df(d_v, groups)) AS d_t, t975(jackknife_df(m_v, groups)) AS m_t
        , t975(jackknife_df(share_v, groups)) AS share_t
    FROM by_domain GROUP BY component, axis, value, value_id, n, a, d, m, total
)
SELECT component, axis, value, value_id, n
    , activation, activation_se, activation - a_t * activation_se AS activation_lo, activation + a_t * activation_se AS activation_hi
    , dla, dla_se, dla - d_t * dla_se AS dla_lo, dla + d_t * dla_se AS dla_hi
    , abs_dla, abs_dla_se, abs_dla - m_t * abs_dla_se AS abs_dla_lo, abs_dla + m_t * abs_dla_se AS abs_dla_hi
    , share_abs_dla, share_abs_dla_se
    , CASE WHEN share_abs_dla_se IS NOT NULL THEN greatest(0, share_abs_dla - share_t * share_abs_dla_se) END AS share_abs_dla_lo
    , CASE WHEN share_abs_dla_se IS NOT NULL THEN least(1, share_abs_dla + share_t * share_abs_dla_se) END AS share_abs_dla_hi
    , groups
FROM errors;

-- View: moments
-- One row per component x class x domain that holds a position; special classes left out. Standard errors rest on the
--   replicate groups of the domain.
-- component: label
-- class: class of the token
-- domain: domain
-- n: positions
-- mean: mean activation
-- mean_se: its document-clustered standard error
-- sd: standard deviation of the activation, divisor n
-- skew: third standardised moment of the activation; NULL where it does not vary
-- kurtosis: fourth standardised moment of the activation, 3 for a normal; NULL where it does not vary
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
    SELECT c.component, k.class, d.domain, g.groups, n.n, s.sum_activation AS a, s.sum_dla AS d, s.sum_abs_dla AS m
        , sum(n.n) OVER cell AS n_all, sum(s.sum_activation) OVER cell AS a_all, sum(s.sum_dla) OVER cell AS d_all
        , sum(s.sum_abs_dla) OVER cell AS m_all
    FROM cell_sums s
    JOIN components c USING (component_id)
    JOIN classes k ON k.class_id = s.value_id AND NOT k.special
    JOIN jackknife_groups g USING (group_id)
    JOIN domains d USING (domain_id)
    JOIN cell_counts n ON n.axis = s.axis AND n.value_id = s.value_id AND n.group_id = s.group_id
    WHERE s.axis = 'class'
    WINDOW cell AS (PARTITION BY c.component, k.class, d.domain)
)
, errors AS NOT MATERIALIZED (
    -- one domain: how its rest is weighted cancels in a mean
    SELECT component, class, domain, sqrt(domain_variance((a_all - a) / nullif(n_all - n, 0) - a_all / n_all, groups)) AS a_se
        , sqrt(domain_variance((d_all - d) / nullif(n_all - n, 0) - d_all / n_all, groups)) AS d_se
        , sqrt(domain_variance((m_all - m) / nullif(n_all - n, 0) - m_all / n_all, groups)) AS m_se
    FROM cells GROUP BY component, class, domain
)
, central AS NOT MATERIALIZED (
    -- a standard deviation below what float32 tells apart at the size of the mean counts as none
    SELECT c.component, k.class, d.domain, p.*
        , CASE WHEN a_m2 / n > 1e-14 * a_mean ** 2 THEN a_m2 / n ELSE 0 END AS av
        , CASE WHEN d_m2 / n > 1e-14 * d_mean ** 2 THEN d_m2 / n ELSE 0 END AS dv
    FROM power_sums p
    JOIN components c USING (component_id)
    JOIN classes k ON k.class_id = p.class_id AND NOT k.special
    JOIN domains d USING (domain_id)
)
SELECT m.component, m.class, m.domain, m.n
    , m.a_mean AS mean, e.a_se AS mean_se, sqrt(m.av) AS sd
    , m.a_m3 / m.n / nullif(m.av, 0) ** 1.5 AS skew, m.a_m4 / m.n / nullif(m.av, 0) ** 2 AS kurtosis
    , m.a_min AS min, m.a_max AS max, m.a_abs / m.n AS mean_abs
    , m.d_mean AS dla_mean, e.d_se AS dla_mean_se, sqrt(m.dv) AS dla_sd
    , m.d_m3 / m.n / nullif(m.dv, 0) ** 1.5 AS dla_skew, m.d_m4 / m.n / nullif(m.dv, 0) ** 2 AS dla_kurtosis
    , m.d_min AS dla_min, m.d_max AS dla_max
    , m.d_abs / m.n AS abs_dla_mean, e.m_se AS abs_dla_mean_se
FROM central m
JOIN errors e ON e.component = m.component AND e.class = m.class AND e.domain = m.domain;

-- View: importance
-- One row per head and neuron: its importance over all ordinary positions.
-- component_id: number
-- component: label
-- kind: head or neuron
-- layer: layer
-- sum_abs_dla: sum of |DLA|, logits
CREATE VIEW importance AS
SELECT c.component_id, c.component, c.kind, c.layer, i.sum_abs_dla
FROM component_importance i JOIN components c USING (component_id);
INSERT INTO component_importance -- in an order of its own: the last bit of a sum depends on it
SELECT p.component_id, sum(p.d_abs ORDER BY p.class_id, p.domain_id)
FROM power_sums p
JOIN components c USING (component_id)
JOIN classes k ON k.class_id = p.class_id AND NOT k.special
WHERE c.kind IN ('head', 'neuron')
GROUP BY p.component_id
ORDER BY p.component_id;

-- View: head_attention
-- One row per head x position of the uniform sample: where the head attends from there.
-- component: label of the head
-- position_id: query position
-- previous: attention to the token before
-- two_back: attention to the token before the one before
-- first: attention to offset 0 of the window (the BOS, where one is put there)
-- self: attention to the position itself
-- induction: attention to tokens before this position that follow an earlier copy of its token
-- prefix_induction: part of induction: where the token before that copy is this token's token before, too
-- duplicate: attention to earlier copies of this token
-- newline: attention to tokens of class newline
-- delimiter: attention to punctuation, brackets, quotes and operators
-- entropy: of the attention row, nats
-- top_offset: how many tokens back the most attended position is; 0 is the position itself
-- top_weight: attention to it
-- dla_to_attended: logit the head adds directly to the most attended token itself, centred: > 0 copies, < 0 suppresses
-- activation: the head's activation there (norm of its output)
-- dla: the head's DLA there, logits
CREATE VIEW head_attention AS
SELECT c.component, h.position_id, h.previous, h.two_back, h.first, h.self, h.induction, h.prefix_induction
    , h.duplicate, h.newline, h.delimiter, h.entropy, h.top_offset, h.top_weight, h.dla_to_attended, r.activation, r.dla
FROM head_attention_rows h
JOIN components c USING (component_id)
LEFT JOIN dense_rows r ON r.component_id = c.component_id AND r.position_id = h.position_id;

-- 95 % interval of a share, on the logit scale so that it stays between 0 and 1 (delta method); where the share is 0 or 1,
-- or all of it lies in one group, the rule of three with `n` the effective number of documents (Kish).
CREATE MACRO share_lo(p, se, t, n) AS CASE WHEN p < 1e-12 THEN 0 WHEN p > 1 - 1e-12 THEN greatest(0, 1 - 3 / nullif(n, 0))
    ELSE 1 / (1 + exp(-(ln(p / (1 - p)) - t * se / (p * (1 - p))))) END;
CREATE MACRO share_hi(p, se, t, n) AS CASE WHEN p > 1 - 1e-12 THEN 1 WHEN p < 1e-12 THEN least(1, 3 / nullif(n, 0))
    ELSE 1 / (1 + exp(-(ln(p / (1 - p)) + t * se / (p * (1 - p))))) END;

-- Two-sided p of a t statistic: Wallace's normal approximation (1959; within 3 % of p for df >= 4), then erfc as in
-- Numerical Recipes (relative error below 1.2e-7).
CREATE MACRO erfc_nr(z, u) AS u * exp(-z * z - 1.26551223 + u * (1.00002368 + u * (0.37409196 + u * (0.09678418 + u * (-0.18628806
    + u * (0.27886807 + u * (-1.13520398 + u * (1.48851587 + u * (-0.82215223 + u * 0.17087277)))))))));
CREATE MACRO normal_p(z) AS erfc_nr(z / sqrt(2), 1 / (1 + 0.5 * z / sqrt(2)));
CREATE MACRO t_p(t, df) AS normal_p(sqrt(df * ln(1 + t * t / df)) * (8 * df + 1) / (8 * df + 3));

-- How much a component cares for a behaviour, apart from how common it is in a text: the importance ratio is mean |DLA| where
-- the behaviour holds over mean |DLA| elsewhere, each domain held against itself (Mantel and Haenszel 1959): the sum over
-- domains of held_part over the sum of rest_part. It is above 1 exactly where coverage is above the scrambled claim, it is 1
-- for a component that does not look, and it does not change with the share of positions `w_held / w` at which the behaviour
-- holds, as coverage and coverage less scrambled do. `m` is a sum of weight * |DLA|, `w` one of weights.
CREATE MACRO held_part(m_held, w_held, w) AS m_held * (1 - w_held / nullif(w, 0));
CREATE MACRO rest_part(m, m_held, w_held, w) AS (m - m_held) * w_held / nullif(w, 0);
-- Its logarithm, drawn to 0 by `prior` on both sides (half a document's part under chance: Haldane 1956), so that it is finite;
-- NULL for a behaviour that holds nowhere or everywhere.
CREATE MACRO log_ratio(held, rest, prior) AS ln((held + nullif(prior, 0)) / (rest + nullif(prior, 0)));
-- Degrees of freedom of a difference of two estimates with variances `va` and `vb` (Welch 1947).
CREATE MACRO welch_df(va, dfa, vb, dfb) AS (va + vb) ** 2 / nullif(va ** 2 / dfa + vb ** 2 / dfb, 0);

-- View: token_texts
-- One row per token of the vocabulary: the columns that the condition of a token class is written over.
-- token_id: token
-- text: its text, leading blank kept; bytes that are no UTF-8 alone stand as <0xE2>
-- body: its text without blanks at its ends
-- class: its class in the partition
-- special: true for special tokens, which have no properties
CREATE VIEW token_texts AS
SELECT t.token_id, t.token AS text, trim(t.token, ' ') AS body, c.class, c.special
FROM tokens t JOIN classes c USING (class_id);

-- View: token_properties
-- One row per token x property that it has.
-- token_id: token
-- token: its text
-- property: name
CREATE VIEW token_properties AS
SELECT l.token_id, t.token, unnest(l.properties) AS property
FROM token_property_lists l JOIN tokens t USING (token_id);

-- View: token_splits
-- One row per component with token sums x property x side: exact sums over all ordinary positions, for any class of
--   tokens, those defined after the run too.
-- component: label
-- property: name
-- inside: true for tokens that have the property, false for all others
-- n: ordinary positions
-- sum_activation: sum of activations
-- sum_dla: sum of DLA, logits
-- sum_abs_dla: sum of |DLA|, logits: importance
CREATE VIEW token_splits AS
SELECT c.component, p.property, list_contains(l.properties, p.property) AS inside, sum(n.n)::BIGINT AS n
    , sum(s.sum_activation) AS sum_activation, sum(s.sum_dla) AS sum_dla, sum(s.sum_abs_dla) AS sum_abs_dla
FROM token_sums s
JOIN components c USING (component_id)
JOIN token_counts n USING (token_id)
JOIN token_property_lists l USING (token_id)
CROSS JOIN properties p
GROUP BY c.component, p.property, inside;

-- View: position_facts
-- One row per kept ordinary position: the columns that the condition of a behaviour is written over.
-- position_id: position
-- doc_id: document
-- group_id: replicate group of the document
-- domain: domain of the document
-- pos: index of the token in its document
-- offset: index in the window, from 0 (the BOS, where one is put there)
-- token: text of the token there
-- class: its class
-- properties: its properties
-- previous_token: text of the token before
-- previous_class: its class
-- previous_properties: its properties
-- next_token: text of the token that the model must predict
-- next_class: its class
-- next_properties: its properties
-- repeated: whether the token stood earlier in the window
-- distance: tokens back to its last copy in the window; NULL if there is none
-- prefix_match: longest stretch of tokens ending here that ends at an earlier place too, at most 8
-- bracket_depth: brackets opened and not closed in the document up to here; a blank line closes all
-- in_quotes: whether a quote of " or """ is open in the document before this token; a line end closes one of "
-- target_logit: logit of the next token, centred over the vocabulary, logits
-- loss: -ln p(next token), nats; NULL where not dense
-- rank: number of tokens with a larger logit than the next token; NULL where not dense
-- entropy: of the predicted distribution, nats; NULL where not dense
-- dense: true where it belongs to the uniform sample with every component's value
-- role: whose message the token is of; template for the chat template's own text, NULL for text that is no conversation
CREATE VIEW position_facts AS
SELECT p.position_id, p.doc_id, d.group_id, d.domain, p.pos, p."offset"
    , t.token, t.class, t.properties, b.token AS previous_token, b.class AS previous_class, b.properties AS previous_properties
    , n.token AS next_token, n.class AS next_class, n.properties AS next_properties
    , p.distance IS NOT NULL AS repeated, p.distance, p.prefix_match, p.bracket_depth, p.in_quotes
    , p.target_logit, p.loss, p."rank", p.entropy, p.dense, p.role
FROM position_rows p
JOIN documents d USING (doc_id)
JOIN token_property_lists t ON t.token_id = p.token_id
JOIN token_property_lists n ON n.token_id = p.next_token_id
LEFT JOIN token_property_lists b ON b.token_id = p.previous_token_id
WHERE p.special IS NULL;

-- View: head_facts
-- One row per head x position of the uniform sample: what is known of it there, as columns for conditions.
-- component: label
-- kind: head
-- layer: layer
-- weight: how many positions of the corpus the row stands for
-- activation: activation there (norm of the head's output)
-- dla: DLA there, logits
-- previous: attention to the token before
-- two_back: attention to the token before the one before
-- first: attention to offset 0 of the window (the BOS, where one is put there)
-- self: attention to the position itself
-- induction: attention to tokens before this position that follow an earlier copy of its token
-- prefix_induction: part of induction: where the token before that copy is this token's token before, too
-- duplicate: attention to earlier copies of this token
-- newline: attention to tokens of class newline
-- delimiter: attention to punctuation, brackets, quotes and operators
-- attention_entropy: of the attention row, nats
-- top_offset: how many tokens back the most attended position is; 0 is the position itself
-- top_weight: attention to it
-- dla_to_attended: logit the head adds directly to the most attended token itself, centred
CREATE VIEW head_facts AS
SELECT c.component, c.kind, c.layer, size.weight, r.activation, r.dla, h.previous, h.two_back, h.first, h.self, h.induction
    , h.prefix_induction, h.duplicate, h.newline, h.delimiter, h.entropy AS attention_entropy, h.top_offset, h.top_weight
    , h.dla_to_attended, p.*
FROM head_attention_rows h
JOIN components c USING (component_id)
JOIN dense_rows r ON r.component_id = c.component_id AND r.position_id = h.position_id
JOIN position_facts p ON p.position_id = h.position_id
CROSS JOIN (
    SELECT (SELECT n_positions FROM runs) / nullif((SELECT count(*) FROM uniform_marks), 0) AS weight
) size;

-- View: pooled_rows
-- One row per component x kept position of its own: the stratified samples and the uniform sample together, each position
--   once. In a stratum both are simple random samples of the same positions, and so is their union; the stratum's size is
--   known exactly. sum(weight * x) estimates the sum of x over all ordinary positions, with less noise than either alone.
-- component: label
-- stratum: number of the spectrum bin
-- position_id: position
-- activation: activation there
-- dla: DLA there, logits
-- weight: ordinary positions in the stratum / rows of it here
-- kind: head or neuron, or of closing term
-- layer: layer
-- uniform: true where it is of the uniform sample, false where of the stratified samples alone
CREATE VIEW pooled_rows AS
WITH rows AS NOT MATERIALIZED (
    SELECT component_id, bin, position_id, activation, dla, true AS uniform FROM dense_rows
    UNION ALL
    SELECT component_id, bin, position_id, r.activation, r.dla, false
    FROM sample_rows r ANTI JOIN uniform_marks USING (position_id)
)
SELECT c.component, r.bin AS stratum, r.position_id, r.activation, r.dla, s.n / s.kept AS weight, c.kind, c.layer, r.uniform
FROM rows r JOIN components c USING (component_id) JOIN pooled_strata s USING (component_id, bin);

-- View: uniform_rows
-- One row per head or neuron x position of the uniform sample: its weight in pooled_rows (neurons) or head_facts (heads).
-- component: label
-- kind: head or neuron
-- layer: layer
-- position_id: position
-- activation: activation there
-- dla: DLA there, logits
-- weight: how many positions of the corpus the row stands for
CREATE VIEW uniform_rows AS
SELECT c.component, c.kind, c.layer, r.position_id, r.activation, r.dla
    , CASE c.kind WHEN 'head' THEN size.weight ELSE s.n / s.kept END AS weight
FROM dense_rows r
JOIN components c USING (component_id)
JOIN pooled_strata s ON s.component_id = r.component_id AND s.bin = r.bin
CROSS JOIN (
    SELECT (SELECT n_positions FROM runs) / nullif((SELECT count(*) FROM uniform_marks), 0) AS weight
) size
WHERE c.kind IN ('head', 'neuron');

-- View: neuron_facts
-- One row per neuron x kept position of its own: what is known of it there, as columns for conditions.
-- component: label
-- kind: neuron
-- layer: layer
-- weight: how many positions of the corpus the row stands for (pooled_rows)
-- uniform: true where it is of the uniform sample, false where of the stratified samples alone
-- activation: activation there
-- dla: DLA there, logits
CREATE VIEW neuron_facts AS
SELECT s.component, s.kind, s.layer, s.weight, s.uniform, s.activation, s.dla, p.*
FROM pooled_rows s JOIN position_facts p ON p.position_id = s.position_id
WHERE s.kind = 'neuron';

-- View: component_facts
-- One row per head or neuron x kept position of its own: what mixtures and curves are built from.
-- component: label
-- kind: head or neuron
-- position_id: position
-- doc_id: document
-- group_id: replicate group of the document
-- domain: domain of the document
-- weight: how many positions of the corpus the row stands for
-- activation: activation there
-- dla: DLA there, logits
-- band: the largest of the quantiles 0, 0.5, 0.75, 0.9, 0.95, 0.99 of the component's activation whose level it reaches;
--   those that ties leave no level near to (table quantiles) are no bands
-- layer: layer
CREATE VIEW component_facts AS
WITH levels AS NOT MATERIALIZED (
    SELECT c.component, list({'quantile': q.quantile, 'level': q.level} ORDER BY q.quantile) AS levels
    FROM quantiles q JOIN components c USING (component_id)
    WHERE q.quantile IN (0.5, 0.75, 0.9, 0.95, 0.99) AND q.level IS NOT NULL
    GROUP BY c.component
)
SELECT r.component, r.kind, r.position_id, d.doc_id, d.group_id, d.domain
    , CASE r.kind WHEN 'head' THEN size.weight ELSE r.weight END AS weight, r.activation, r.dla
    , coalesce(list_max([l.quantile FOR l IN levels.levels IF reaches(r.activation, l.level)]), 0) AS band, r.layer
FROM pooled_rows r
JOIN documents d ON d.doc_id = r.position_id >> 32
CROSS JOIN (
    SELECT (SELECT n_positions FROM runs) / nullif((SELECT count(*) FROM uniform_marks), 0) AS weight
) size
LEFT JOIN levels ON levels.component = r.component
WHERE r.kind = 'neuron' OR r.kind = 'head' AND r.uniform;
