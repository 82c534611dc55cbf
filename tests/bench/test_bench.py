"""The benchmark on a tiny model: what it reports is complete, and its script attributes what the pass attributes."""

import json

import fake_run
import pytest
import torch
from typer.testing import CliRunner

from profiler.bench import SHAPES, measure
from profiler.bench.script import BINS, Script, SplitScript
from profiler.cli import app
from profiler.database import query
from profiler.model import direct
from profiler.model.forward import Wanted
from profiler.recording.accumulators.cells import N_CLASSES

TINY = SHAPES["tiny"]


@pytest.fixture(scope="module")
def model():
    return TINY.load(TINY.config(None, "cpu", "float32"))


def test_measurement_is_complete():
    found = measure("tiny", rounds=1, tokens=256, memory=False)
    assert {"record", "forward", "transformer_lens", "script", "split_script"} <= set(found.tokens_per_second)
    assert min(found.tokens_per_second.values()) > 0
    assert found.ratios_to_forward["forward"] == 1
    assert found.ratio_to_forward == pytest.approx(
        found.tokens_per_second["record"] / found.tokens_per_second["forward"]
    )
    assert sum(found.stages.values()) == pytest.approx(1)
    assert min(found.stages[name] for name in ("forward", "attribution", "accumulators", "staging")) > 0
    assert found.tokens > 0
    assert found.peak_memory_bytes is None


@pytest.mark.slow
def test_the_memory_of_a_pass_is_its_own(capsys):
    """A child's ru_maxrss would begin with ours; ballast here must not count there."""
    ballast = bytearray(b"x") * 1_500_000_000
    app(["bench", "--shape", "tiny", "--curve", "300", "--format", "json"], standalone_mode=False)
    (found,) = json.loads(capsys.readouterr().out)
    assert found["tokens"] == 300
    assert 2e8 < found["peak_memory_bytes"] < len(ballast)


def test_the_script_and_the_pass_attribute_the_same(model):
    tokens = torch.randint(0, 4096, (4, 20), generator=torch.Generator().manual_seed(0))
    script = Script(model.bridge)
    script.batch(tokens)
    capture = model.run(tokens, Wanted())
    targets = torch.cat([tokens[:, 1:], tokens[:, :1]], 1)
    parts = list(direct.by_part(capture, model.weights, model.spec, targets))[:-1]
    names = [f"{layer} {kind}" for layer in range(model.spec.n_layers) for kind in ("heads", "neurons")]
    for name, part in zip(names, parts, strict=True):
        for kind, values in (("activation", part.activation), ("dla", part.dla)):
            rows = values[:, :-1].flatten(0, 1)
            torch.testing.assert_close(script.moments[f"{name} {kind}"][0], rows.double().sum(0), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(script.top[f"{name} {kind}"], rows.topk(10, dim=0).values, rtol=1e-4, atol=1e-6)
            assert script.histogram[f"{name} {kind}"].sum(0).eq(len(rows)).all()


def test_the_split_script_adds_up_to_the_plain_one(model):
    """Over two batches: sums over classes, and both ends, are those of all values."""
    random = torch.Generator().manual_seed(1)
    batches = [torch.randint(0, 4096, (3, 20), generator=random) for _ in range(2)]
    plain = Script(model.bridge)
    split = SplitScript(model.bridge, classes=torch.randint(0, N_CLASSES, (4096,), generator=random))
    for tokens in batches:
        plain.batch(tokens)
        split.batch(tokens)
    for name, total in plain.moments.items():
        for axis in ("class", "next", "position"):
            torch.testing.assert_close(split.sums[f"{name} by {axis}"].sum(0), total[0], rtol=1e-6, atol=1e-9)
        for power in (2, 3, 4):
            torch.testing.assert_close(split.sums[f"{name} to the {power}"].sum(0), total[power - 1])
        assert torch.equal(split.top[f"{name} top"], plain.top[name])
        assert (split.top[f"{name} bottom"] <= split.top[f"{name} top"].flip(0)).all()
        assert split.top[f"{name} top at"].max() < 2 * 3 * 19
    for name in ("0 heads", "1 neurons"):
        counts = split.histogram[f"{name} n"].unflatten(0, (N_CLASSES, BINS)).sum(0)
        assert torch.equal(counts, plain.histogram[f"{name} activation"])


@pytest.mark.slow
def test_every_query_of_a_head_and_of_a_neuron_is_timed(tmp_path):
    run = fake_run.build(tmp_path / "run.duckdb").path
    shown = CliRunner().invoke(app, ["bench", "--queries", str(run), "--rounds", "1", "--format", "json"])
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.output)
    assert {one["component"][2] for one in found} == {"H", "N"}
    asked = {kind: {one["query"] for one in found if one["component"][2] == kind} for kind in "HN"}
    assert {"head_attention", "mixture"} <= asked["H"] and {"logit_effects", "component_rank"} <= asked["N"]
    assert all(
        one["rows"] == query.run(run, one["query"], component=one["component"]).height
        for one in found
        if one["query"] == "by_class"
    )
    assert [one["milliseconds"] for one in found] == sorted((one["milliseconds"] for one in found), reverse=True)
