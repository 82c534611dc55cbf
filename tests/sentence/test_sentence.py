"""What components do on a text: against TransformerLens' cache and hooks, the model's own logits, the run's rows."""

import json
import sys

import numpy as np
import polars as pl
import pytest
import tiny
import torch
import zoo

from profiler.cli import main
from profiler.config import RunConfig
from profiler.errors import ComponentError, CorpusError
from profiler.model.components import parse_label
from profiler.model.load import load_model, model_from
from profiler.pages import build
from profiler.recording import recompute
from profiler.run import open as open_run
from profiler.sentence import reading
from profiler.sentence.changes import read_changes
from profiler.sentence.percentiles import CorpusSpectrum, spectra

TEXT = tiny.text(3, 9)


@pytest.fixture(scope="module")
def model(base_config):
    return load_model(base_config.model_copy(update={"dtype": "float64"}))


@pytest.fixture(scope="module")
def ids(model):
    return reading.token_ids_of(model, TEXT)[0]


@pytest.fixture(scope="module")
def run(run_path):
    with open_run(run_path) as opened:
        yield opened


def test_the_parts_at_each_token_add_up_to_the_centred_logit(model, ids):
    whole = reading.read(model, ids, most=model.spec.n_components)
    with torch.inference_mode():
        logits = model.unwatched(ids[None]).logits[0].double()
    centred = logits - logits.mean(-1, keepdim=True)
    expected = centred.gather(-1, whole.targets[:, None])[:, 0]
    assert whole.components.shape[1] == model.spec.n_components
    torch.testing.assert_close(whole.dla.nansum(-1), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(whole.log_p, logits.log_softmax(-1), rtol=1e-10, atol=1e-10)
    assert (whole.dla.abs().diff(dim=-1) <= 1e-12).all(), "the largest first"


@pytest.mark.parametrize("label", ["L1H1", "L0N3"])
def test_a_component_alone_is_what_it_is_among_all(model, ids, label):
    component = parse_label(label)
    alone, all_of_them = reading.read(model, ids, component), reading.read(model, ids, most=model.spec.n_components)
    here = all_of_them.components == model.spec.id_of(component)
    assert here.sum(-1).tolist() == [1] * len(ids)
    torch.testing.assert_close(alone.dla[:, 0], all_of_them.dla[here], rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(alone.activation[:, 0], all_of_them.activation[here], rtol=1e-12, atol=1e-14)


@pytest.mark.slow
def test_values_and_attention_are_those_of_transformer_lens(base_config, model, ids):
    bridge = load_model(base_config).bridge
    with torch.inference_mode():
        _, cache = bridge.run_with_cache(ids[None])
    neuron = reading.read(model, ids, parse_label("L1N5"))
    head = reading.read(model, ids, parse_label("L1H1"))
    assert neuron.attention is None
    expected = cache["blocks.1.mlp.hook_post"][0, :, 5].double()
    torch.testing.assert_close(neuron.activation[:, 0], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(head.attention, cache["blocks.1.attn.hook_pattern"][0, 1].double(), rtol=1e-4, atol=1e-6)


def test_a_removed_head_is_a_hook_that_writes_zeros(base_config, model, ids):
    bridge = load_model(base_config).bridge

    def zero(z, hook):
        z[:, :, 1] = 0.0
        return z

    with torch.inference_mode():
        logits = bridge.run_with_hooks(ids[None], fwd_hooks=[("blocks.0.attn.hook_z", zero)])[0].double()
    removed = reading.read(model, ids, changes=read_changes(remove=["L0H1"]))
    plain = reading.read(model, ids)
    torch.testing.assert_close(removed.log_p, logits.log_softmax(-1), rtol=1e-4, atol=1e-4)
    assert (removed.log_p - plain.log_p).abs().max() > 1e-3


def test_what_is_set_to_its_own_value_changes_nothing_and_hooks_are_gone_after(model, ids):
    one = ids[:1]
    plain = reading.read(model, one, parse_label("L0N2"))
    own = float(plain.activation[0, 0])
    again = reading.read(model, one, parse_label("L0N2"), read_changes(set_to=[f"L0N2={own!r}"]))
    torch.testing.assert_close(again.log_p, plain.log_p, rtol=1e-12, atol=1e-12)
    other = reading.read(model, one, parse_label("L0N2"), read_changes(set_to=["L0N2=9"]))
    assert float(other.activation[0, 0]) == 9.0
    torch.testing.assert_close(reading.read(model, one).log_p, plain.log_p, rtol=0, atol=0)


def test_scaling_an_own_part_scales_its_dla_in_the_last_layer(model, ids):
    plain = reading.read(model, ids, parse_label("L1N4"))
    scale = model.run(ids[None], reading.Wanted()).scales
    doubled = reading.read(
        model, ids, parse_label("L1N4"), read_changes(scale=["L1N4=2"]), after=int(plain.targets[-1])
    )
    torch.testing.assert_close(doubled.activation, 2 * plain.activation, rtol=1e-12, atol=1e-14)
    assert scale, "the final norm's denominator moves, so DLA doubles only nearly"
    torch.testing.assert_close(doubled.dla, 2 * plain.dla, rtol=0.2, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"remove": ["L0H1"], "scale": ["L0H1=2"]}, "twice"),
        ({"scale": ["L0H1"]}, "L2H1=0.5"),
        ({"remove": ["what"]}, "what"),
    ],
)
def test_changes_that_cannot_be_read_are_told(given, message):
    with pytest.raises(ComponentError, match=message):
        read_changes(**given)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"set_to": ["L0H1=1"]}, "vector"), ({"remove": ["L9H0"]}, "L9H0"), ({"remove": ["embed"]}, "embed")],
)
def test_changes_that_cannot_be_made_are_told(model, ids, changes, message):
    with pytest.raises(ComponentError, match=message):
        reading.read(model, ids, changes=read_changes(**changes))


def test_a_text_without_tokens_is_told_and_a_long_one_is_cut_and_counted(model):
    with pytest.raises(CorpusError, match="no token"):
        reading.token_ids_of(model, "")
    ids, n_left_out = reading.token_ids_of(model, tiny.text(1, 4000))
    assert len(ids) == model.spec.context_length and n_left_out > 0
    with pytest.raises(CorpusError, match="single"):
        reading.token_of(model, tiny.text(1, 6))


def test_a_percentile_is_the_share_of_positions_below(run):
    """Against the random positions at which every component is recorded."""
    rows = run.sql("SELECT activation FROM dense_rows JOIN components USING (component_id) WHERE component = 'L0N3'")
    values = np.sort(rows["activation"].to_numpy().astype(float))
    spectrum = spectra(run.connection, ["L0N3"])["L0N3"]
    found = np.array([spectrum.percentile(float(value)) for value in values])
    shares = (np.arange(len(values)) + 0.5) / len(values)
    assert spectrum.n == run.info["n_positions"] and len(values) > 30
    assert (np.diff(found) >= 0).all() and np.abs(found - shares).max() < 1.63 / np.sqrt(len(values))  # Kolmogorov, 1 %
    assert spectrum.percentile(1e9) == 1.0 and spectrum.percentile(-1e9) == 0.0


def test_percentiles_count_the_own_bin_half():
    spectrum = CorpusSpectrum(-3.0, np.array([-1.0, 0.0, 2.0]), np.array([2, 6, 2]))
    assert [spectrum.percentile(v) for v in (-5.0, -2.0, -0.5, 1.0, 3.0)] == [0.0, 0.1, 0.5, 0.9, 1.0]
    assert spectrum.percentile(float("nan")) is None


def test_probabilities_are_those_of_a_model_that_caps_its_logits():
    """A soft cap comes after the unembedding: without it likely tokens are too likely."""
    network = zoo.build("gemma2")
    network.lm_head.weight.data.mul_(40)
    model = model_from(network, tiny.tokenizer(), RunConfig(model="m", corpora=("x",), dtype="float64"))
    ids = torch.tensor([5, 9, 11, 3])
    with torch.inference_mode():
        own = network(ids[None]).logits[0].double().log_softmax(-1)
    assert model.weights.wiring.soft_cap == 30.0
    torch.testing.assert_close(reading.read(model, ids).log_p, own, rtol=1e-9, atol=1e-9)


def test_contexts_computed_again_cap_logits_too(run, monkeypatch, base_config):
    """Their probabilities left the cap out."""
    model = load_model(base_config)
    stored = build.load("component").tokens(build.Reader(run.connection), "L0N3").head(4)
    plain = recompute.contexts(run.connection, model, parse_label("L0N3"), stored)
    monkeypatch.setattr(type(model.weights.wiring), "capped", lambda _self, logits: 0 * logits)
    flat = recompute.contexts(run.connection, model, parse_label("L0N3"), stored)
    shares = flat["probabilities"].explode().drop_nulls()
    assert shares.to_list() == pytest.approx([1 / model.spec.n_vocab] * len(shares), rel=1e-6) and len(shares) > 8
    assert plain["probabilities"].explode().drop_nulls().n_unique() > 4


def test_the_answer_of_a_run(run, base_config):
    result = run.try_text(TEXT, "L1H1", remove=["L0H0"], model=base_config.model, most=3)
    assert result.tokens.height == result.components.height == len(result.tokens)
    assert {"percentile", "activation_before", "dla_before"} <= set(result.components.columns)
    assert {"p", "p_before"} <= set(result.next_tokens.columns) and result.next_tokens.height >= 3
    sums = result.attention.group_by("offset").agg(pl.col("weight").sum())["weight"]
    assert sums.to_list() == pytest.approx([1.0] * len(sums), abs=1e-5)
    assert "L1H1 is strongest at" in result.sentences[0] and "With L0H0 removed" in result.sentences[1]
    assert set(result.table.columns) >= {"token", "activation", "percentile", "dla", "attends_to", "attention"}
    assert "<script" not in result._repr_html_()


def test_the_largest_components_are_named_at_each_token(run, base_config):
    result = run.try_text(TEXT, model=base_config.model, most=2)
    assert result.attention is None and result.components["rank"].to_list() == [1, 2] * len(result.tokens)
    assert result.table.columns[:3] == ["offset", "token", "largest_dla"]


@pytest.fixture
def cli(monkeypatch, capsys):
    """Run a command line; its exit code, standard output and standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["profiler", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return call


def test_the_command_prints_tables_json_and_a_page(run_path, tmp_path, cli):
    page = tmp_path / "text.html"
    hostile = TEXT + " </script><b>\x1b[2J"
    code, out, err = cli("try", run_path, hostile, "--component", "L1H1", "--out", page)
    assert (code, err) == (0, "") and "L1H1 is strongest at" in out and "\x1b[2J" not in out
    html = page.read_text(encoding="utf-8")
    assert "<b>\x1b" not in html and "Where it attends" in html and "</script><b>" not in html
    code, out, err = cli("try", run_path, TEXT, "--json", "--set", "L0N1=3", "--top", 2)
    told = json.loads(out)
    assert code == 0 and told["changes"] == ["L0N1 set to 3"] and len(told["tokens"]) > 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", "--component", "L0H0"), "no token"),
        (("a", "--component", "L9H9"), "L9H9"),
        (("a", "--remove", "L9H9"), "L9H9"),
        (("a", "--scale", "L0H0"), "L2H1=0.5"),
    ],
)
def test_mistakes_are_one_sentence(run_path, cli, arguments, message):
    code, _, err = cli("try", run_path, *arguments)
    assert code == 1 and message in err and "Traceback" not in err


@pytest.mark.slow
def test_find_prints_what_was_understood_and_refuses_two_questions(run_path, cli):
    code, out, err = cli("find", run_path, "repeated", "--kind", "neuron", "--least", 1, "--top", 2)
    assert (code, err) == (0, "") and out.startswith("repeated: the token stood earlier") and "(2 rows)" in out
    code, out, _ = cli("find", run_path, "--like", "L0N3", "--top", 2, "--format", "csv")
    assert code == 0 and len(out.splitlines()) == 3 and out.startswith("component,coactivation")
    for arguments in ((), ("year", "--like", "L0N3"), ("xyzzy",), ("--like", "L9N9")):
        code, _, err = cli("find", run_path, *arguments)
        assert code == 1 and "Traceback" not in err and len(err) > 20
