"""Distributions of running text: the corpus is the run's, ablation is what it says, identities are exact, and the whole
command works."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import patch_models
import polars as pl
import pytest
import torch
from questions import question
from typer.testing import CliRunner

from profiler import cli
from profiler.circuits import yaml_files
from profiler.circuits.circuit import Circuit, Member, Scope
from profiler.database import query
from profiler.errors import CircuitError, ComponentError, QueryError
from profiler.generality import check, duration
from profiler.generality.coverage import everywhere
from profiler.generality.coverage.at_positions import does_task
from profiler.generality.distributions import build, circuit_of_run
from profiler.generality.distributions import corpus as text
from profiler.generality.distributions.subject import CheckSettings, CheckSubject, Reread
from profiler.generality.evidence.distributions import CORPUS, REPEATS
from profiler.generality.evidence.finding import StageResult
from profiler.generality.faithfulness import means as ablated
from profiler.generality.faithfulness import prompts, running_text
from profiler.model.load import Model, load_model
from profiler.model.steps.network import forward
from profiler.patching.setting import PatchSettings
from profiler.prompts.pairs import jsonl

AGREED = Reread(agreed=True)
HEADS = [f"L{layer}H{head}" for layer in range(2) for head in range(2)]


@pytest.fixture(scope="module")
def model(base_config) -> Model:
    return load_model(base_config)


@pytest.fixture(scope="module")
def subject(run_path: Path, model: Model, tmp_path_factory: pytest.TempPathFactory) -> CheckSubject:
    """A circuit of one head of the tiny model, with distributions of its run's corpus."""
    folder = tmp_path_factory.mktemp("circuit")
    circuit = Circuit("tiny", "tiny", (Member("L1H0", "previous token"), Member("L0H1")), Scope("own", "none", ()))
    yaml_files.write(folder / "tiny.yaml", circuit)
    settings = CheckSettings(None, 24, 5, distributions=("quoted=sql:in_quotes OR token = 'e'",), reread=AGREED)
    return check.subject_of(run_path, str(folder / "tiny.yaml"), model, settings, lambda _: None)


# --- the corpus again ---


def test_the_corpus_is_read_as_the_run_read_it(subject, run_path):
    known = query.run(run_path, "SELECT position_id, token_id, doc_id FROM position_rows WHERE special IS NULL")
    tokens = np.concatenate([batch.tokens[batch.ordinary].numpy() for batch in subject.text.batches])
    here = dict(zip(subject.text.position_ids.tolist(), tokens.tolist(), strict=True))
    assert known.height > 50
    assert [here[p] for p in known["position_id"].to_list()] == known["token_id"].to_list()
    documents = dict(zip(subject.text.position_ids.tolist(), subject.text.documents.tolist(), strict=True))
    assert [documents[p] for p in known["position_id"].to_list()] == known["doc_id"].to_list()
    assert len(here) == query.run(run_path, "SELECT n_positions FROM runs").item()
    assert subject.text.note == ""


def test_fewer_tokens_are_a_sample_of_windows_that_says_so(run_path, model, subject):
    some = text.read(run_path, model, subject.text.n_corpus // 3, AGREED)
    again = text.read(run_path, model, subject.text.n_corpus // 3, AGREED)
    assert 0.1 < some.n_tokens / subject.text.n_corpus < 0.6
    assert set(some.position_ids) < set(subject.text.position_ids)
    assert np.array_equal(some.position_ids, again.position_ids)
    assert f"of the run's {subject.text.n_corpus:,} tokens" in some.note


def test_a_changed_corpus_is_said(run_path, model, base_config, tmp_path):
    """The same run, whose corpus file now holds other words."""
    path = tmp_path / "run.duckdb"
    shutil.copy(run_path, path)
    corpus = Path(base_config.corpora[0])
    before = corpus.read_text(encoding="utf-8")
    try:
        corpus.write_text(before.replace("the cat", "the dog"), encoding="utf-8")
        assert "has changed since the run" in text.read(path, model, None, AGREED).note
    finally:
        corpus.write_text(before, encoding="utf-8")


@pytest.mark.parametrize(
    "condition",
    [
        'NOT in_quotes AND "offset" = 5',
        "class = 'word_piece' AND \"offset\" > 3",
        "distance IS NULL",
        "prefix_match >= 2 AND next_class = 'word_piece'",
        "list_contains(properties, 'number')",
        "token_before = 'a'",
        "domain = 'a'",
        "bracket_depth > 0 OR pos = 2",
        "repeated",
    ],
)
def test_conditions_choose_what_the_run_says_of_the_positions_it_kept(subject, run_path, model, condition):
    chosen = set(subject.text.position_ids[text.where(run_path, subject.text, model, condition)].tolist())
    frame = query.run(run_path, f"SELECT position_id, coalesce(({condition}), false) AS holds FROM position_facts")
    assert frame["holds"].any() or condition.startswith("list")
    kept_ids = set(frame["position_id"].to_list())
    assert chosen & kept_ids == set(frame.filter("holds")["position_id"].to_list())


@pytest.mark.parametrize("condition", ["loss > 2", "token", "nonsense = 1", "true; DROP TABLE runs", "(SELECT true)"])
def test_conditions_that_cannot_be_asked_are_refused(subject, run_path, model, condition):
    with pytest.raises(QueryError):
        text.where(run_path, subject.text, model, condition)


# --- ablation ---


def test_everything_kept_is_the_model_and_a_mean_is_a_mean(subject):
    net, batch = subject.net, subject.text.batches[0]
    means = ablated.means_of(net, subject.text.batches)
    every = np.ones(len(subject.nodes), dtype=bool)
    with torch.inference_mode():
        own = forward(net, batch.tokens)
    assert torch.equal(ablated.logits(net, batch.tokens, subject.nodes, every, means), own)
    sums, counts = torch.zeros(2, 8).double(), torch.zeros(2)
    for part in subject.text.batches:
        seen = []
        forward(net, part.tokens, lambda s, i, v, _, seen=seen: seen.append(v) or v if (s, i) == ("head", 1) else v)
        for row, offset in part.valid.nonzero().tolist():
            sums[int(offset > 0)] += seen[0][row, offset, 1].double()
            counts[int(offset > 0)] += 1
    torch.testing.assert_close(means.of["head", 1][:, 1], (sums / counts[:, None]).to(own.dtype))


def test_ablation_is_that_of_a_hand_written_edit(subject):
    """L1H0 is kept, L1H1 and layer 0 are held at their means: the same as putting these in by hand."""
    net, batch = subject.net, subject.text.batches[0]
    means = ablated.means_of(net, subject.text.batches)
    keep = np.array([node == "L1H0" for node in subject.nodes])

    def edit(site, layer, value, offsets):
        if site != "head":
            return value
        value = value.clone()
        for head in range(2):
            if (layer, head) != (1, 0):
                value[:, 0, head] = means.of["head", layer][0, head]
                value[:, 1:, head] = means.of["head", layer][1, head]
        return value

    with torch.inference_mode():
        expected = forward(net, batch.tokens, edit)
    found = ablated.logits(net, batch.tokens, subject.nodes, keep, means)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    ends = batch.valid.sum(1) - 1
    at_ends = ablated.logits(net, batch.tokens, subject.nodes, keep, means, ends)
    torch.testing.assert_close(at_ends, expected[torch.arange(len(ends)), ends], rtol=0, atol=1e-12)


def of(rows, statistic, distribution):
    (one,) = [row for row in rows if row.statistic == statistic and row.distribution == distribution]
    return one


def with_members(subject: CheckSubject, labels: list[str]) -> CheckSubject:
    circuit = replace(subject.circuit, members=tuple(map(Member, labels)))
    return CheckSubject(
        subject.model,
        subject.net,
        circuit,
        subject.run,
        None,
        subject.distributions,
        subject.text,
        subject.settings,
        lambda _: None,
    )


@pytest.mark.slow
def test_the_whole_model_keeps_everything_and_the_empty_circuit_nothing(subject):
    full, empty = (running_text.findings(with_members(subject, labels)).findings for labels in (HEADS, []))
    for distribution in (CORPUS, "domain: a", "quoted"):
        for statistic in ("KL recovered", "loss recovered"):
            one = of(full, statistic, distribution)
            if not one.refused:
                assert (one.value, one.lo, one.hi) == (1.0, 1.0, 1.0) and one.null is None
        assert of(empty, "KL recovered", distribution).value == pytest.approx(0.0, abs=1e-12)


@pytest.mark.slow
def test_kept_shares_are_those_of_a_slow_recomputation(subject):
    rows = running_text.findings(subject).findings
    means = ablated.means_of(subject.net, ablated.some(subject.text))
    sums = np.zeros(2)
    for batch in subject.text.batches:
        own = forward(subject.net, batch.tokens)
        circuit, empty = (
            ablated.logits(subject.net, batch.tokens, subject.nodes, keep, means)
            for keep in (subject.keep, np.zeros_like(subject.keep))
        )
        own, circuit, empty = (part[batch.ordinary].double().softmax(-1) for part in (own, circuit, empty))
        sums += [float((own * (own / other).log()).sum()) for other in (circuit, empty)]
    one = of(rows, "KL recovered", CORPUS)
    assert one.value == pytest.approx(1 - sums[0] / sums[1], abs=1e-9)
    assert one.n == len(set(subject.text.documents.tolist())) and one.unit == "documents"
    assert one.choices.ablation == "mean" and one.choices.direction == "noise outside"
    assert one.lo < one.value < one.hi


@pytest.mark.slow
def test_random_circuits_in_text_hold_the_circuit_itself(subject):
    """One head of each layer: the null holds four circuits, the circuit among them, so p is not small for a poor
    one."""
    many = CheckSubject(
        subject.model,
        subject.net,
        subject.circuit,
        subject.run,
        None,
        subject.distributions,
        subject.text,
        replace(subject.settings, draws=39),
        lambda _: None,
    )
    one = of(running_text.findings(many).findings, "KL recovered", CORPUS)
    assert one.null is not None and one.null <= one.null_hi
    assert one.p >= 0.1


COSTS = duration.CheckCosts(1e-4, 1e-3, 1e-4, 3e-4, 1e-4, 1e-4, 0.2)


def test_the_forecast_counts_every_stage(subject):
    one = duration.forecast(subject, COSTS)
    assert set(one.parts) <= {name for name, _ in check.STAGES}
    assert {name for name, part in one.parts.items() if not part} <= {"other tasks"}  # the circuit is of no task
    settings = subject.settings
    more = duration.forecast(subject, COSTS, replace(settings, draws=settings.draws + 7))
    changed = sum(
        len(pair.clean) - pair.first_difference
        for distribution in subject.distributions.prompts
        if distribution.setting is not None and does_task(distribution.setting)
        for pair in distribution.setting.batch.pairs[: prompts.NULL_PROMPTS]
    )
    assert more.parts["prompts"] - one.parts["prompts"] == pytest.approx(COSTS.random * 7 * changed)
    assert more.parts["running text"] > one.parts["running text"] and more.parts["weights"] == one.parts["weights"]
    half = duration.forecast(subject, COSTS, replace(settings, tokens=subject.text.n_tokens // 2))
    assert half.parts["running text"] < one.parts["running text"] and half.parts["prompts"] == one.parts["prompts"]
    nobody = duration.forecast(with_members(subject, ["L1H0"]), COSTS)
    assert nobody.parts["replacement by understanding"] == nobody.parts["edits and swaps"] == 0
    made = duration.CheckForecast({"text": 45.0, "edits": 135.0, "little": 1.0})
    assert made.sentence == "forecast: about 3 min (text 25%, edits 75%)"
    assert duration.CheckForecast({"text": 12.0}).sentence == "forecast: about 12 s (text 100%)"


def test_what_a_check_costs_is_measured_on_its_own_prompts_and_text(subject):
    costs = vars(duration.unit_costs(subject))
    assert min(costs[name] for name in ("token", "prompt", "text", "random_text", "queries")) > 0


def test_a_budget_leaves_out_what_decides_least(subject):
    """Stages that describe, then tokens, random circuits and prompts, then stages that test roles; each is named."""
    subject = replace(subject, settings=replace(subject.settings, draws=99, pairs=96, tokens=None))
    whole = duration.forecast(subject, COSTS).seconds
    assert duration.within(whole, subject, COSTS) == (subject.settings, ())
    first, said = duration.within(whole - 1e-9, subject, COSTS)
    assert (first, said) == (replace(subject.settings, left_out=("weights",)), ("stage weights",))
    roles = ("replacement by understanding", "edits and swaps")
    lowest = {"tokens": 20_000, "draws": 39, "pairs": 48, "left_out": (*duration.DESCRIBE, *roles)}
    least = duration.forecast(subject, COSTS, replace(subject.settings, **lowest)).seconds
    settings, said = duration.within(least, subject, COSTS)
    assert set(said) >= {"tokens all -> 20000", "draws 99 -> 39", "pairs 96 -> 48", "stage edits and swaps"}
    assert duration.forecast(subject, COSTS, settings).seconds <= least
    with pytest.raises(CircuitError, match="give that much"):
        duration.within(least / 2, subject, COSTS)


def test_a_stage_that_is_left_out_is_not_run(subject, monkeypatch):
    ran = []
    stages = tuple((name, lambda _, name=name: ran.append(name) or StageResult()) for name, _ in check.STAGES)
    monkeypatch.setattr(check, "STAGES", stages)
    check.run_stages(replace(subject, settings=replace(subject.settings, left_out=("weights", "other tasks"))))
    assert ran == [name for name, _ in check.STAGES if name not in ("weights", "other tasks")]


# --- coverage ---


def test_coverage_on_prompts_is_what_the_patterns_say(subject):
    """The claim `previous token` of L1H0 on repeated tokens, from patterns and DLA computed one position at a time."""
    (one,) = [
        distribution for distribution in subject.distributions.prompts if distribution.distribution.name == REPEATS
    ]
    (found,) = [row for row in everywhere.findings(subject).findings if row.distribution == REPEATS]
    net, held, total, n_held, n = subject.net, 0.0, 0.0, 0, 0
    for pair in one.setting.batch.pairs:
        tokens, sites = torch.tensor([pair.clean]), {}
        forward(net, tokens, lambda s, i, v, _, sites=sites: sites.setdefault((s, i), v))
        stream = sites["resid_final", 2][0]
        for offset in range(1, len(pair.clean) - 1):
            toward = (
                net.plain.unembed[:, pair.clean[offset + 1]] - net.plain.unembed.mean(1)
            ) * net.plain.norm_final.weight
            toward = toward - toward.mean()
            write = sites["head", 1][0, offset, 0] @ net.plain.layers[1].w_o[0]
            size = abs(float(write @ toward / net.plain.norm_final.scale(stream[offset])))
            holds = float(sites["pattern", 1][0, 0, offset, offset - 1]) >= 0.5
            held, total, n_held, n = held + size * holds, total + size, n_held + holds, n + 1
    assert found.value == pytest.approx(held / total, abs=1e-6)
    assert found.null == pytest.approx(n_held / n, abs=1e-12)
    assert found.n == 24 and found.role == "previous token"


def test_coverage_in_the_corpus_is_the_queries(subject, run_path):
    rows = [row for row in everywhere.findings(subject).findings if row.technique == "coverage"]
    curve = query.run(run_path, "coverage_curve", component="L1H0", behaviour="previous_token")
    whole = curve.filter(pl.col("top") == 1.0).row(0, named=True)
    one = of(rows, "coverage", CORPUS)
    assert one.value == pytest.approx(whole["coverage"], abs=1e-9)
    assert one.null == pytest.approx(whole["scrambled"], abs=1e-9)
    assert {row.distribution for row in rows} >= {CORPUS, "domain: a", "domain: b", REPEATS}


def test_the_mixture_names_every_slice_and_adds_up(subject):
    rows = [
        row for row in everywhere.findings(subject).findings if row.technique == "mixture" and row.subject == "L0H1"
    ]
    for distribution in {row.distribution for row in rows if not row.refused}:
        total = sum(row.value for row in rows if row.distribution == distribution and row.value is not None)
        assert 0.9 < total <= 1 + 1e-9


def test_a_role_whose_words_say_nothing_is_refused(run_path):
    rows = everywhere.of_run(run_path, question("L1H0", "does the thing", "coverage", unit="positions"))
    (one,) = [row for row in rows if row.technique == "coverage"]
    assert one.value is None and "no claim that is known" in one.refused


# --- the whole of it ---


@pytest.fixture(scope="module")
def checked(run_path, subject, tmp_path_factory) -> tuple[Path, str]:
    """The command line on a copy of the run, with a distribution of pairs and a distribution of positions; its
    output."""
    folder = tmp_path_factory.mktemp("check")
    path = folder / "run.duckdb"
    shutil.copy(run_path, path)
    yaml_files.write(folder / "tiny.yaml", subject.circuit)
    jsonl.write(folder / "toy.jsonl", patch_models.pairs(24, seed=5))
    arguments = [
        "check",
        str(path),
        str(folder / "tiny.yaml"),
        "--tokens",
        "all",
        "--pairs",
        "20",
        "--draws",
        "5",
        "--distribution",
        f"mine={folder / 'toy.jsonl'}",
        "--distribution",
        "quoted=sql:in_quotes",
        "--reread",
    ]
    done = CliRunner().invoke(cli.app, arguments)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return path, done.output


@pytest.mark.slow
def test_the_command_says_the_verdict_and_shows_the_distributions(checked):
    path, output = checked
    word = query.run(path, "SELECT word FROM checks").item()
    assert re.search(rf"^{word}$", output, re.MULTILINE)
    for distribution in ("mine", "quoted", REPEATS, CORPUS, "domain: a"):
        assert re.search(rf"^{distribution} ", output, re.MULTILINE)
    assert "forecast: about" in output and f"profiler report {path} generality" in output.replace("\n", "")


@pytest.mark.slow
def test_every_distribution_is_stored_with_what_it_rests_on(checked):
    distributions = query.run(checked[0], "SELECT * FROM check_distributions ORDER BY ordinal")
    assert distributions["ordinal"].to_list() == list(range(distributions.height))
    assert distributions.filter(
        (pl.col("n_prompts") == 0) & (pl.col("n_tokens") == 0) & (pl.col("refused") == "")
    ).is_empty()
    findings = query.run(checked[0], "SELECT * FROM check_findings")
    assert set(distributions["name"]) <= set(findings["distribution"])
    assert findings.filter(pl.col("value").is_null() & (pl.col("refused") == "")).is_empty()
    assert findings.filter(pl.col("value").is_not_null() & (pl.col("n") < 1)).is_empty()


def test_another_model_is_refused(run_path):
    other = patch_models.loaded("neox")
    with pytest.raises(ComponentError, match="whose weights are not those"):
        check.subject_of(run_path, "ioi", other, CheckSettings(), lambda _: None)


def test_a_circuit_that_is_not_there_is_refused_with_what_to_do(run_path, model):
    with pytest.raises(CircuitError, match="profiler patch"):
        circuit_of_run.find(run_path, "ioi")


@pytest.mark.slow
@pytest.mark.parametrize("outside", ["resample", "zero", "mean"])
def test_every_distribution_of_prompts_has_the_values_of_the_scope(run_path, model, subject, outside):
    task = PatchSettings("repeated-tokens", pairs=20)
    settings = CheckSettings(pairs=20, reread=AGREED)
    built = build.build(model, subject.net, run_path, task, subject.text, settings, outside)
    some = [one.setting for one in built.prompts if one.setting is not None]
    assert len(some) >= 2
    for one in some:
        assert (one.outside is None) == (outside == "resample")
        if outside != "resample":
            given = one.outside["head"][0]
            assert given.shape == one.corrupted["head"][0].shape and bool(given.any()) == (outside == "mean")
            assert not torch.equal(given, one.corrupted["head"][0])


def test_a_file_of_few_pairs_is_a_refused_distribution(run_path, model, subject, tmp_path):
    jsonl.write(tmp_path / "few.jsonl", patch_models.pairs(5, seed=5))
    built = build.build(
        model,
        subject.net,
        run_path,
        None,
        subject.text,
        CheckSettings(distributions=(f"few={tmp_path / 'few.jsonl'}",), reread=AGREED),
    )
    (one,) = [distribution for distribution in built.prompts if distribution.distribution.name == "few"]
    assert one.setting is None and "5 usable prompts" in one.distribution.refused and one.distribution.n_prompts == 5
