-- Tables and views of checks: what becomes of a circuit off the prompts it was found on, and
-- predictions made before. One column a line; the text after `--` becomes the comment in the
-- database (profiler.database.comments).
--
-- Writing a check again replaces its rows in one transaction. prediction_log is only ever added to:
-- each entry carries the SHA-256 of itself and of the entry before, so that an edited or deleted
-- one is seen (view predictions, column intact).

CREATE TABLE checks ( -- one circuit judged: its verdict
    check_id VARCHAR, -- name of the check: the circuit's
    circuit VARCHAR, -- name of the circuit
    created VARCHAR, -- ISO 8601, UTC
    model VARCHAR, -- the model as it was named by the user
    model_hash VARCHAR, -- blake2b of its weights
    word VARCHAR, -- generalises, narrows, does something else, over-recovers, inconclusive
    sentence VARCHAR, -- the verdict with the numbers that carry it
    change VARCHAR[], -- what would change it
    yaml VARCHAR, -- the circuit as a file
    settings VARCHAR, -- JSON: what changes the numbers, without the thresholds (check_thresholds)
    seconds DOUBLE, -- wall time
    prediction_entries BIGINT, -- entries of prediction_log when the check was written
    prediction_head VARCHAR, -- hash of the last of them; NULL where there was none
    versions VARCHAR -- JSON: versions of the libraries
);
CREATE TABLE check_distributions ( -- distributions of a check, nearest first
    check_id VARCHAR, -- check (checks)
    name VARCHAR, -- name of the distribution
    ordinal INTEGER, -- 0 for the discovery prompts, larger is wider
    kind VARCHAR, -- prompts, corpus or repeats
    description VARCHAR, -- what stands there
    n_prompts BIGINT, -- pairs of prompts; 0 for running text
    n_tokens BIGINT, -- tokens of the prompts, or positions of running text that belong to the
        -- distribution
    n_documents BIGINT, -- documents that these come from; 0 for prompts
    refused VARCHAR -- why nothing was measured; empty otherwise
);
CREATE TABLE check_thresholds ( -- numbers that decided the verdict and its findings
    check_id VARCHAR, -- check (checks)
    name VARCHAR, -- name of the threshold
    value DOUBLE, -- its value
    meaning VARCHAR -- what it decides
);
CREATE TABLE check_findings ( -- one number about one claim on one distribution
    check_id VARCHAR, -- check (checks)
    finding BIGINT, -- number in the check, from 0
    subject VARCHAR, -- the circuit, or the label of one component
    role VARCHAR, -- what is claimed of the component; empty for the circuit as a whole
    technique VARCHAR, -- how the number was measured
    distribution VARCHAR, -- distribution (check_distributions)
    statistic VARCHAR, -- name of the number
    value DOUBLE, -- estimate, NULL where refused
    lo DOUBLE, -- lower bound of the 95 % interval
    hi DOUBLE, -- upper bound of the 95 % interval
    n BIGINT, -- independent examples it rests on
    unit VARCHAR, -- of what: prompts, documents, positions, components
    null_mean DOUBLE, -- the same number for the null (random circuits, scrambled roles, matched
        -- components, control edits)
    null_hi DOUBLE, -- its 95th percentile
    null_near DOUBLE, -- how far the best 5 % of the null fall short: |1 - value|, or by
        -- what their necessity is less where that is more; NULL where 1 is not the best
    null_distance DOUBLE, -- mean |1 - value| of the null; NULL where 1 is not the best
    null_n BIGINT, -- random circuits or components of the null
    p DOUBLE, -- one-sided, against the null
    p_least DOUBLE, -- least p that the null can give
    granularity VARCHAR, -- first of the six values of a causal number; empty where a technique has
        -- none
    component_kind VARCHAR, -- second: kind of component
    ablation VARCHAR, -- third: what was put in
    positions VARCHAR, -- fourth: token positions
    direction VARCHAR, -- fifth: denoise or noise
    pair_set VARCHAR, -- sixth: set of prompts
    shares VARCHAR[], -- names of what it has in common with other findings: data, gradients
    refused VARCHAR, -- why there is no number; empty otherwise
    general_form_of VARCHAR, -- the circuit's words, where they name positions of prompts and role
        -- is their general form
    created VARCHAR -- ISO 8601, UTC
);
CREATE TABLE check_ledger ( -- what each finding says of its claim
    check_id VARCHAR, -- check (checks)
    finding BIGINT, -- number of the finding (check_findings)
    speaks VARCHAR, -- for, against, undecided, describes (no test) or refused (no number)
    reason VARCHAR, -- what it was compared with
    way VARCHAR, -- how it contradicts: lower or over
    p_for DOUBLE, -- one-sided p that it would look as good were the claim false
    p_against DOUBLE, -- one-sided p that it would look as bad were the claim true, by Holm over the
        -- technique's lines
    weight DOUBLE, -- 1 / (1 + sum of Jaccard overlaps with the claim's other lines); 0 where it is
        -- no test
    registered BOOLEAN, -- the claim was registered before the test; else it is post hoc
    carries BOOLEAN -- one of the numbers in the verdict's sentence
);
CREATE TABLE check_agreement ( -- two techniques asked of the same claims
    check_id VARCHAR, -- check (checks)
    first VARCHAR, -- technique
    second VARCHAR, -- technique
    n BIGINT, -- claims of which both say something
    agree BIGINT, -- of these, claims of which they say the same
    expected DOUBLE, -- share of agreement by chance, from how often each says for
    could_disagree DOUBLE, -- claims in which disagreement was to be expected by chance; 0: their
        -- agreement says nothing
    kappa DOUBLE -- Cohen's kappa, NULL where they could not have disagreed
);
CREATE TABLE check_needs ( -- examples that would settle what is undecided, if the estimates stay
    check_id VARCHAR, -- check (checks)
    subject VARCHAR, -- the circuit, or one component
    distribution VARCHAR, -- distribution
    statistic VARCHAR, -- name of the number
    n BIGINT, -- examples it rests on now
    needed BIGINT, -- examples needed; 10,000,000 where the estimate lies on the bound
    unit VARCHAR -- of what
);
CREATE TABLE check_examples ( -- which prompts and documents a distribution used, to find overlap
    -- between discovery and test
    check_id VARCHAR, -- check (checks)
    distribution VARCHAR, -- distribution
    key VARCHAR -- hash of the prompt's or document's text
);
CREATE TABLE cross_tasks ( -- a circuit on the prompts of another task
    check_id VARCHAR, -- check (checks)
    circuit VARCHAR, -- whose members are kept
    task VARCHAR, -- whose prompts are asked
    statistic VARCHAR, -- name of the number
    value DOUBLE, -- estimate
    lo DOUBLE, -- lower bound of the 95 % interval
    hi DOUBLE, -- upper bound of the 95 % interval
    n BIGINT -- pairs
);
CREATE TABLE replacements ( -- a component replaced by what is claimed of it, by percentile of
    -- importance
    check_id VARCHAR, -- check (checks)
    component VARCHAR, -- label
    role VARCHAR, -- role that the replacement is made from
    "rule" VARCHAR, -- rule that replaced it
    percentile_lo DOUBLE, -- from this percentile of importance
    percentile_hi DOUBLE, -- to this one
    measure VARCHAR, -- KL, net loss or |change of loss|
    d_replaced DOUBLE, -- the measure with the component replaced, nats
    d_ablated DOUBLE, -- the measure with the component mean-ablated, nats
    explained DOUBLE, -- 1 - d_replaced / d_ablated; NULL where the denominator is too small
    lo DOUBLE, -- lower bound of its 95 % interval
    hi DOUBLE, -- upper bound of its 95 % interval
    n BIGINT, -- positions
    null_explained DOUBLE -- the same rule on matched components, mean
);
CREATE TABLE weight_scores ( -- what the weights alone say of a component
    check_id VARCHAR, -- check (checks)
    component VARCHAR, -- label
    score VARCHAR, -- name of the score
    value DOUBLE, -- value
    null_mean DOUBLE, -- mean over null components
    null_sd DOUBLE, -- standard deviation over null components
    "rank" BIGINT, -- among all components of the kind, 1 is highest
    ignored_share DOUBLE -- share of the terms that the score leaves out
);
CREATE TABLE counter_examples ( -- important positions where the claim is wrong
    check_id VARCHAR, -- check (checks)
    component VARCHAR, -- label
    role VARCHAR, -- the claim
    kind VARCHAR, -- silent (should act, does not) or stray (acts, should not)
    position_id BIGINT, -- position of the run (view positions), NULL for a prompt
    document VARCHAR, -- where it is from
    token VARCHAR, -- token there
    next_token VARCHAR, -- token to predict
    context VARCHAR, -- text around it, the token between « and »
    importance DOUBLE, -- weight of the position for the component
    activation DOUBLE, -- activation there
    "rank" BIGINT -- by importance within component and kind
);
CREATE TABLE check_edits ( -- edits made from the roles beside control edits
    check_id VARCHAR, -- check (checks)
    component VARCHAR, -- label
    role VARCHAR, -- the claim that the edit is made from
    operation VARCHAR, -- what was edited
    distribution VARCHAR, -- distribution that was edited
    before VARCHAR, -- text before
    after VARCHAR, -- text after
    position BIGINT, -- position in the text at which the effect is measured
    shift DOUBLE, -- change by the edit
    control_shift DOUBLE -- change by the control edit
);
CREATE TABLE published_numbers ( -- what was published about the circuit, for those that come with
    -- the package
    check_id VARCHAR, -- check (checks)
    circuit VARCHAR, -- name of the circuit
    what VARCHAR, -- what it is, in words
    value DOUBLE, -- the published number
    unit VARCHAR, -- its unit
    source VARCHAR, -- where it was published
    technique VARCHAR, -- technique of the same quantity in a check; empty where there is none
    statistic VARCHAR, -- its statistic
    distribution VARCHAR, -- its distribution
    subject VARCHAR -- its subject
);
CREATE TABLE first_measured ( -- when a number was first in this file: a prediction made after that
    -- was made with the answer at hand
    circuit VARCHAR, -- circuit whose check measured it
    subject VARCHAR, -- the circuit, or one component
    role VARCHAR, -- what is claimed of the component
    statistic VARCHAR, -- name of the number
    distribution VARCHAR, -- distribution
    kind VARCHAR, -- kind of the distribution: prompts differ from circuit to circuit, corpus and
        -- repeats do not
    written VARCHAR -- ISO 8601, UTC
);
CREATE TABLE role_catalogue ( -- measured roles of components, predicted where they turn up again
    component VARCHAR, -- label
    role VARCHAR, -- role
    distribution VARCHAR, -- distribution it was measured on
    coverage DOUBLE, -- share of the component's importance on which the role holds
    lo DOUBLE, -- lower bound of the 95 % interval
    hi DOUBLE, -- upper bound of the 95 % interval
    null_mean DOUBLE, -- the same with the role scrambled
    n BIGINT, -- examples
    unit VARCHAR, -- of what
    speaks VARCHAR, -- for, against or undecided
    circuit VARCHAR, -- circuit whose check measured it
    model_hash VARCHAR, -- blake2b of the model's weights
    created VARCHAR -- ISO 8601, UTC
);
CREATE TABLE prediction_log ( -- predictions and their outcomes; only ever added to
    entry BIGINT, -- number, from 1
    kind VARCHAR, -- registered or resolved
    written VARCHAR, -- ISO 8601, UTC
    content VARCHAR, -- JSON: the prediction, or its outcome
    previous VARCHAR, -- hash of the entry before, empty for the first
    hash VARCHAR -- SHA-256 of entry, kind, written, content and previous, a line each
);
CREATE TABLE prediction_head ( -- one row: how many entries the log has, so that a missing last one
    -- is seen
    entries BIGINT, -- entries
    hash VARCHAR -- hash of the last
);

-- View: latest_check
-- One row per: file: the check written last
-- check_id: its name
CREATE VIEW latest_check AS
SELECT check_id FROM checks ORDER BY created DESC, check_id LIMIT 1;
-- The check asked for; the one written last where none is named.
CREATE MACRO chosen_check(given) AS coalesce(nullif(given, ''), (
    SELECT check_id FROM latest_check
));

-- View: ledger
-- One row per: finding of a check, with what it says of its claim
-- status: registered or post hoc
CREATE VIEW ledger AS
SELECT check_findings.*, check_ledger.speaks, check_ledger.reason, check_ledger.way
    , check_ledger.p_for, check_ledger.p_against, check_ledger.weight, check_ledger.registered
    , check_ledger.carries
    , CASE WHEN check_ledger.registered THEN 'registered' ELSE 'post hoc' END AS status
    , check_distributions.ordinal, check_distributions.kind AS distribution_kind
FROM check_findings
JOIN check_ledger USING (check_id, finding)
LEFT JOIN check_distributions
    ON check_distributions.check_id = check_findings.check_id
        AND check_distributions.name = check_findings.distribution;
-- View: prediction_entries
-- One row per: entry of the log, with whether it is as it was written
-- intact: its hash is right, and the entry before is the one it was written after
CREATE VIEW prediction_entries AS
SELECT prediction_log.*
    , prediction_log.hash
        = sha256(concat_ws(chr(10), prediction_log.entry::VARCHAR, prediction_log.kind
            , prediction_log.written, prediction_log.content, prediction_log.previous))
      AND prediction_log.previous
          = coalesce(lag(prediction_log.hash) OVER (ORDER BY prediction_log.entry), '')
      AND prediction_log.entry = row_number() OVER (ORDER BY prediction_log.entry) AS intact
FROM prediction_log;
-- View: predictions
-- One row per: registered prediction, with its outcome where it is resolved
-- entry: number in the log
-- registered_at: ISO 8601, UTC
-- statement: the prediction in words
-- subject: circuit or component
-- statistic: name of the number
-- direction: > or <
-- threshold: in the statistic's unit
-- distribution: distribution it is about
-- origin: who made it: user, or the role catalogue
-- known_before: the number was in this file before the prediction was registered
-- outcome: confirmed, refuted, undecided; NULL where it is open
-- value: the number found
-- lo: lower bound of its 95 % interval
-- hi: upper bound of its 95 % interval
-- n: examples
-- overlap: share of the tested examples that were used for discovery too; NULL where it is not
--   known
-- resolved_at: ISO 8601, UTC
-- hash: of the registration
-- role: what is claimed of the component; empty for any
-- circuit: in whose check it is tested; empty for any
-- check_id: the check that resolved it
-- intact: registration and outcome, and every entry before them, are as they were written, the
--   log's end is there, and so is the entry that each check saw as the last
CREATE VIEW predictions AS
WITH whole AS (
    SELECT coalesce((SELECT entries FROM prediction_head), 0) = count(*)
        AND coalesce((SELECT hash FROM prediction_head), '') = coalesce(arg_max(hash, entry), '')
        AND NOT EXISTS (
            SELECT 1
            FROM checks
            ANTI JOIN prediction_log
                ON prediction_log.entry = checks.prediction_entries
                    AND prediction_log.hash = checks.prediction_head
            WHERE checks.prediction_entries > 0
        ) AS has_end
    FROM prediction_log
)
, sound AS (SELECT *, bool_and(intact) OVER (ORDER BY entry) AS so_far FROM prediction_entries)
, outcomes AS (SELECT *, content->>'hash' AS about FROM sound WHERE kind = 'resolved')
SELECT sound.entry, sound.written AS registered_at, sound.content->>'statement' AS statement
    , sound.content->>'subject' AS subject
    , sound.content->>'statistic' AS statistic, sound.content->>'direction' AS direction
    , (sound.content->>'threshold')::DOUBLE AS threshold
    , sound.content->>'distribution' AS distribution, sound.content->>'role' AS role
    , sound.content->>'circuit' AS circuit, sound.content->>'origin' AS origin
    , (sound.content->>'known_before')::BOOLEAN AS known_before
    , outcomes.content->>'outcome' AS outcome, (outcomes.content->>'value')::DOUBLE AS value
    , (outcomes.content->>'lo')::DOUBLE AS lo
    , (outcomes.content->>'hi')::DOUBLE AS hi, (outcomes.content->>'n')::BIGINT AS n
    , (outcomes.content->>'overlap')::DOUBLE AS overlap
    , outcomes.content->>'check_id' AS check_id, outcomes.written AS resolved_at, sound.hash
    , sound.so_far AND coalesce(outcomes.so_far, true) AND whole.has_end AS intact
FROM sound LEFT JOIN outcomes ON outcomes.about = sound.hash CROSS JOIN whole
WHERE sound.kind = 'registered';
