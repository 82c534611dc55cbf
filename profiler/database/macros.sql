-- The macros of a run: formulas and phrases that its views and queries share, each written once.
-- (Two more need a view, and stand in views.sql below it: jackknife_ratios, chosen_components.)
--
-- Standard errors: stratified delete-a-group jackknife (Wolter, Introduction to Variance
-- Estimation, chapter 4; Rust and Rao 1996). Domains are fixed, documents are what is sampled: a
-- group g of documents is left out of its own domain d, the domain's other groups are weighted up
-- to its number of documents, and
--   se^2 = sum over d of (G_d - 1) / G_d * sum over g in d of (estimate without g - mean of those
--     in d)^2.
-- This file and the macro jackknife_ratios are the only places where this is written; NULL where
-- one group holds every position of a cell.

-- 0.975 quantile of Student's t: a table up to 12 degrees of freedom, then Fisher's expansion (off
-- by less than 3e-6). Of degrees of freedom that are not whole, the whole ones below.
CREATE MACRO t975(df) AS CASE
    WHEN floor(df + 1e-6) < 1 THEN NULL
    WHEN floor(df + 1e-6) <= 12 THEN [
        12.7062047, 4.3026527, 3.1824463, 2.7764451, 2.5705818, 2.4469119, 2.3646243, 2.3060041
        , 2.2621572, 2.2281389, 2.2009852, 2.1788128][floor(df + 1e-6)::INTEGER]
    ELSE 1.959964 + 2.372271 / floor(df + 1e-6) + 2.822502 / floor(df + 1e-6) ** 2
        + 2.555852 / floor(df + 1e-6) ** 3 + 1.589549 / floor(df + 1e-6) ** 4 END;

-- A sum when a group is left out of its domain: `total` over all, `of_domain`, `of_group`; `part`
-- is the group's part of the domain's documents (view jackknife_groups).
CREATE MACRO without(total, of_domain, of_group, part) AS
    total - of_domain + (of_domain - of_group) / (1 - part);

-- What a domain adds to the variance: an aggregate over its `n_groups` groups of `change`, the
-- estimate without each less the estimate. A domain of one group says nothing of its own documents:
-- its group is held against the estimate itself, which is too wide rather than too narrow (Lumley
-- 2010, Complex Surveys, 'adjust' for a lonely unit).
CREATE MACRO domain_variance(change, n_groups) AS CASE
    WHEN count(change) < count(*) THEN NULL
    WHEN any_value(n_groups) = 1 THEN sum(change ** 2)
    ELSE (any_value(n_groups) - 1) / any_value(n_groups)
        * greatest(0, sum(change ** 2) - sum(change) ** 2 / any_value(n_groups)) END;

-- Standard error: an aggregate over domains of `variance`, their domain_variance.
CREATE MACRO jackknife_se(variance) AS
    CASE WHEN count(variance) = count(*) THEN sqrt(sum(variance)) END;

-- Degrees of freedom of that error (Satterthwaite 1946): the sum of G_d - 1 where all domains add
-- alike, fewer where one adds most.
CREATE MACRO jackknife_df(variance, n_groups) AS coalesce(
    sum(variance) ** 2 / nullif(sum(variance ** 2 / greatest(n_groups - 1, 1)), 0)
    , sum(greatest(n_groups - 1, 1)));

-- Whether an activation reaches an edge between bins: an edge below zero belongs to the bin under
-- it.
CREATE MACRO reaches(activation, level) AS activation > level OR level > 0 AND activation = level;

-- The text of tokens' texts. Tokens that are bytes (<0xE6>) are joined before they are read as
-- UTF-8; bytes that are no character even then (one cut off at an end) stay as they are spelled.
-- All as hexadecimal digits, cut into characters.
CREATE MACRO is_bytes(text) AS starts_with(text, '<0x')
    AND regexp_full_match(text, '(<0x[0-9A-F]{2}>)+');
CREATE MACRO digits_of(text) AS CASE WHEN is_bytes(text) THEN regexp_replace(text, '<0x|>', '', 'g')
    ELSE hex(encode(text)) END;
CREATE MACRO characters(digits) AS regexp_extract_all(digits
    , '([0-7].)+|(C[2-9A-F]|D.)[89AB].|E0[AB].[89AB].|ED[89].[89AB].'
    || '|E[1-9A-CEF]([89AB].){2}|F0[9AB].([89AB].){2}|F[1-3]([89AB].){3}|F48.([89AB].){2}|..');
CREATE MACRO character_of(digits) AS CASE WHEN len(digits) = 2 AND digits >= '80'
    THEN concat('<0x', digits, '>')
    ELSE decode(unhex(digits)) END;
CREATE MACRO join_texts(texts) AS CASE WHEN len([text FOR text IN texts IF is_bytes(text)]) = 0
    THEN array_to_string(texts, '')
    ELSE array_to_string([
        character_of(digits) FOR digits IN characters(
            array_to_string([digits_of(text) FOR text IN texts], ''))], '') END;

-- The text of token ids `ids`; `tokens` is vocabulary.tokens.
CREATE MACRO spell(tokens, ids) AS join_texts([tokens[id + 1] FOR id IN ids]);

-- Blocks of the file that a table's segments are in. The table must be there.
CREATE MACRO storage_of(name) AS TABLE
    SELECT name AS table_name, block_id, additional_block_ids FROM pragma_storage_info(name);

-- What many query files ask in the same words. A query reads its parameters by getvariable and
-- hands them over; the names here differ from those of columns, for which a macro's parameter would
-- stand in.
--
-- A parameter without which a query cannot run.
CREATE MACRO required(given, parameter, example) AS coalesce(given::VARCHAR, error(concat(
    'set the ', parameter, ' first: SET VARIABLE ', parameter, ' = ''', example, ''';')));

-- Whether a behaviour is of the family asked for. '' takes all; auto takes attention of heads,
-- token and context of neurons, and the user's own of both.
CREATE MACRO family_asked(asked, kind, family) AS asked IN ('', family) OR asked = 'auto'
    AND (family = 'user'
        OR CASE kind WHEN 'head' THEN family = 'attention' ELSE family IN ('token', 'context') END);

-- Whether a kind of component is of a dictionary: it describes again what others write, and is no
-- part of the sum that is the logit.
CREATE MACRO described(kind) AS kind IN (
    'feature', 'direction', 'subspace', 'dictionary_error', 'dictionary_bias');

-- The kind of component whose behaviours can be claimed of a kind: units of dictionaries have
-- those of neurons.
CREATE MACRO behaves_as(kind) AS
    CASE WHEN kind IN ('feature', 'direction', 'subspace') THEN 'neuron' ELSE kind END;

-- |DLA| of a kept row times the positions that it stands for.
CREATE MACRO weighted_importance(weight, dla) AS weight * abs(dla)::DOUBLE;

-- An aggregate: the sum over the rows where a condition holds; 0 where it holds in none.
CREATE MACRO sum_where(value, condition) AS coalesce(sum(value) FILTER (condition), 0);

-- An aggregate over documents: how many documents of equal parts would carry as much (Kish 1965).
CREATE MACRO effective_number(part) AS sum(part) ** 2 / nullif(sum(part ** 2), 0);

-- 95 % interval of a share, on the logit scale so that it stays between 0 and 1 (delta method);
-- where the share is 0 or 1, or all of it lies in one group, the rule of three with `n` the
-- effective number of documents (Kish). NULL where there is no standard error.
CREATE MACRO share_lo(p, se, t, n) AS CASE
    WHEN se IS NULL THEN NULL
    WHEN p < 1e-12 THEN 0
    WHEN p > 1 - 1e-12 THEN greatest(0, 1 - 3 / nullif(n, 0))
    ELSE 1 / (1 + exp(-(ln(p / (1 - p)) - t * se / (p * (1 - p))))) END;
CREATE MACRO share_hi(p, se, t, n) AS CASE
    WHEN se IS NULL THEN NULL
    WHEN p > 1 - 1e-12 THEN 1
    WHEN p < 1e-12 THEN least(1, 3 / nullif(n, 0))
    ELSE 1 / (1 + exp(-(ln(p / (1 - p)) + t * se / (p * (1 - p))))) END;

-- End of Wilson's interval (1927) of a share `p` of `n`: the lower one at -z, the upper one at z.
CREATE MACRO wilson(p, n, z) AS
    (p + z ** 2 / (2 * n) + z * sqrt(p * (1 - p) / n + z ** 2 / (4 * n ** 2))) / (1 + z ** 2 / n);

-- Two-sided p of a t statistic: Wallace's normal approximation (1959; within 3 % of p for df >= 4),
-- then erfc as in Numerical Recipes (relative error below 1.2e-7).
CREATE MACRO erfc_nr(z, u) AS
    u * exp(-z * z - 1.26551223 + u * (1.00002368 + u * (0.37409196 + u * (0.09678418
    + u * (-0.18628806 + u * (0.27886807 + u * (-1.13520398 + u * (1.48851587
    + u * (-0.82215223 + u * 0.17087277)))))))));
CREATE MACRO normal_p(z) AS erfc_nr(z / sqrt(2), 1 / (1 + 0.5 * z / sqrt(2)));
CREATE MACRO t_p(t, df) AS normal_p(sqrt(df * ln(1 + t * t / df)) * (8 * df + 1) / (8 * df + 3));

-- How much a component cares for a behaviour, apart from how common it is in a text: the importance
-- ratio is mean |DLA| where the behaviour holds over mean |DLA| elsewhere, each domain held against
-- itself (Mantel and Haenszel 1959): the sum over domains of held_part over the sum of rest_part.
-- It is above 1 exactly where coverage is above the scrambled claim, it is 1 for a component that
-- does not look, and it does not change with the share of positions `weight_held / weight` at which
-- the behaviour holds, as coverage and coverage less scrambled do. `importance` is a sum of weight
-- * |DLA|, `weight` one of weights.
CREATE MACRO held_part(importance_held, weight_held, weight) AS
    importance_held * (1 - weight_held / nullif(weight, 0));
CREATE MACRO rest_part(importance, importance_held, weight_held, weight) AS
    (importance - importance_held) * weight_held / nullif(weight, 0);

-- Its logarithm, drawn to 0 by `prior` on both sides (half a document's part under chance: Haldane
-- 1956), so that it is finite; NULL for a behaviour that holds nowhere or everywhere.
CREATE MACRO log_ratio(held, rest, prior) AS
    ln((held + nullif(prior, 0)) / (rest + nullif(prior, 0)));

-- Degrees of freedom of a difference of two estimates with variances `variance_a` and `variance_b`
-- (Welch 1947).
CREATE MACRO welch_df(variance_a, df_a, variance_b, df_b) AS (variance_a + variance_b) ** 2
    / nullif(variance_a ** 2 / df_a + variance_b ** 2 / df_b, 0);
