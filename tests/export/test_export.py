"""Exports: they fit schemas written from the readers' own texts, hold the run's numbers, and are whole or not there."""

import json
import math
from pathlib import Path

import duckdb
import jsonschema
import polars as pl
import pytest
from typer.testing import CliRunner

import profiler
from profiler.cli import app
from profiler.errors import ComponentError, ExportError, ModelError
from profiler.export import circuit_tracer, neuronpedia, texts, write

TOKENS = {"type": "array", "minItems": 1, "maxItems": 1024, "items": {"type": "string", "minLength": 1}}
NUMBERS = {"type": "array", "minItems": 1, "maxItems": 1024, "items": {"type": "number"}}
NEURONPEDIA = {
    "type": "object",
    "required": ["modelId", "source", "features"],
    "properties": {
        "modelId": {"type": "string", "pattern": "^[^A-Z]+$"},
        "source": {"type": "string", "pattern": "^[^A-Z]+$"},
        "features": {
            "type": "array",
            "minItems": 1,
            "maxItems": 128,
            "items": {
                "type": "object",
                "required": ["index", "activations"],
                "properties": {
                    "index": {"type": "integer", "minimum": 0, "maximum": 10_000_000},
                    "density": {"type": "number", "minimum": 0, "maximum": 1},
                    "topLogits": {"type": "array", "maxItems": 20},
                    "bottomLogits": {"type": "array", "maxItems": 20},
                    "activations": {
                        "type": "array",
                        "minItems": 1,
                        "items": {
                            "type": "object",
                            "required": ["tokens", "values"],
                            "properties": {
                                "tokens": TOKENS,
                                "values": NUMBERS,
                                "quantileMin": {"type": "number", "maximum": 99_999_999},
                                "quantileMax": {"type": "number", "maximum": 99_999_999},
                                "quantileFraction": {"type": "number", "minimum": 0, "maximum": 1},
                            },
                        },
                    },
                },
            },
        },
    },
}
"""The body that the upload route takes."""
CIRCUIT_TRACER = {
    "type": "object",
    "required": [
        *("index", "examples_quantiles", "top_logits", "bottom_logits", "act_min", "act_max", "quantile_values"),
        *("histogram", "activation_frequency"),
    ],
    "properties": {
        "index": {"type": "integer"},
        "examples_quantiles": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["quantile_name", "examples"],
                "properties": {
                    "quantile_name": {"type": "string"},
                    "examples": {
                        "type": "array",
                        "minItems": 1,
                        "items": {
                            "type": "object",
                            "required": ["tokens", "tokens_acts_list"],
                            "properties": {
                                "tokens": TOKENS,
                                "tokens_acts_list": NUMBERS,
                                "train_token_ind": {"type": "integer", "minimum": 0},
                                "is_repeated_datapoint": {"type": "boolean"},
                            },
                        },
                    },
                },
            },
        },
        "top_logits": {"type": "array", "items": {"type": "string"}},
        "bottom_logits": {"type": "array", "items": {"type": "string"}},
        "act_min": {"type": "number"},
        "act_max": {"type": "number"},
        "quantile_values": {"type": "array", "items": {"type": "number"}},
        "histogram": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "activation_frequency": {"type": "number", "minimum": 0, "maximum": 1},
    },
}
"""The file that the page of a graph reads."""
HOSTILE = "</script>\x1b]0;x\x07\u202e\x00\u2028"


def strict(text: str) -> object:
    """JSON as a strict reader takes it: without NaN and infinities."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(params=["run_path", "unchecked_run"])
def run(request) -> Path:
    """A run of the pass, and one with nasty texts; both hold heads, neurons, embeddings and biases."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def nasty(unchecked):
    """A run each of whose tokens is text that steers terminals, pages and databases, or is empty."""
    with duckdb.connect(str(unchecked)) as connection:
        spoilt = "list_transform(tokens, lambda t, i: CASE WHEN i % 2 = 0 THEN '' ELSE $text END)"
        connection.execute(f"UPDATE vocabulary SET tokens = {spoilt}", {"text": HOSTILE})
        connection.execute(
            "UPDATE tokens SET token = CASE WHEN token_id % 2 = 0 THEN '' ELSE $text END", {"text": HOSTILE}
        )
    return unchecked


KINDS = ("head", "neuron", "embed", "attn_bias")


def some(run: Path) -> list[str]:
    """A head, a neuron, an embedding and a bias."""
    with profiler.open(run) as opened:
        frame = opened.components()
    first = frame.group_by("kind", maintain_order=True).last().filter(pl.col("kind").is_in(KINDS))
    return first.sort("component_id")["component"].to_list()


def exported(run: Path, out: Path, format: str, **options: object) -> write.Exported:
    with profiler.open(run) as opened:
        return opened.export(out, format=format, **options)


def neuronpedia_features(folder: Path) -> dict[tuple[str, int], dict]:
    batches = [strict(path.read_text()) for path in sorted(folder.glob("*/batch-*.json"))]
    for batch in batches:
        jsonschema.validate(batch, NEURONPEDIA)
        for feature in batch["features"]:
            assert all(len(a["tokens"]) == len(a["values"]) for a in feature["activations"])
    features = [((batch["source"], f["index"]), f) for batch in batches for f in batch["features"]]
    assert len(dict(features)) == len(features)
    return dict(features)


@pytest.mark.parametrize("fixture", ["run_path", "unchecked_run", "nasty"])
def test_batches_fit_what_neuronpedia_takes(fixture, request, tmp_path):
    run = request.getfixturevalue(fixture)
    done = exported(run, tmp_path / "out", "neuronpedia", components=some(run))
    features = neuronpedia_features(tmp_path / "out")
    lost = sum(n for reason, n in done.counts.left_out.items() if reason.startswith("components"))
    assert len(features) + lost == len(some(run)) and len(features) == done.counts.components
    text = "".join(path.read_text() for path in (tmp_path / "out").rglob("*.json"))
    assert text.isascii() and "\\u0000" not in text


@pytest.mark.parametrize("fixture", ["run_path", "unchecked_run", "nasty"])
def test_files_fit_what_circuit_tracer_reads(fixture, request, tmp_path):
    run = request.getfixturevalue(fixture)
    done = exported(run, tmp_path / "out", "circuit-tracer", components=some(run))
    files = sorted((tmp_path / "out").glob("*/*.json"))
    for path in files:
        feature = strict(path.read_text())
        jsonschema.validate(feature, CIRCUIT_TRACER)
        assert len(feature["histogram"]) + 1 == len(feature["quantile_values"])
        assert feature["quantile_values"] == sorted(feature["quantile_values"])
        for group in feature["examples_quantiles"]:
            for example in group["examples"]:
                assert len(example["tokens"]) == len(example["tokens_acts_list"]) > example["train_token_ind"]
    assert len(files) == done.counts.components > 0


def test_a_source_has_as_many_batches_as_it_needs(unchecked_run, tmp_path, monkeypatch):
    monkeypatch.setattr(neuronpedia, "LARGEST_BATCH", 2)
    labels = ("L0N0", "L0N1", "L0N2", "L1N0")
    exported(unchecked_run, tmp_path / "out", "neuronpedia", components=labels, per_stratum=1)
    made = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").glob("*/*")}
    assert made == {"0-neuron/batch-0.json", "0-neuron/batch-1.json", "1-neuron/batch-0.json"}
    assert set(neuronpedia_features(tmp_path / "out")) == {("0-neuron", i) for i in range(3)} | {("1-neuron", 0)}


def test_cantors_number_tells_pairs_apart():
    pairs = [(layer, unit) for layer in range(30) for unit in range(200)]
    assert len({circuit_tracer.cantor(*pair) for pair in pairs}) == len(pairs)
    assert [circuit_tracer.cantor(*pair) for pair in ((0, 0), (1, 0), (0, 1), (2, 0))] == [0, 1, 2, 3]


def test_lines_hold_the_runs_numbers(run, tmp_path):
    """Against the stable views, in which nothing of the export's own SQL has a part."""
    chosen = some(run)
    exported(run, tmp_path / "out", "jsonl", per_stratum=1000, components=chosen)
    lines = [strict(line) for line in (tmp_path / "out/components.jsonl").read_text().split("\n")[:-1]]
    with profiler.open(run) as opened:
        assert [line["component"] for line in lines] == chosen
        for line in lines:
            label = line["component"]
            told = [e for e in line["examples"] if e["group"] in ("top", "bottom")]
            extremes = (
                opened.extremes(label).filter(measure="activation").sort("side", "rank", descending=[True, False])
            )
            assert [e["position_id"] for e in told] == extremes["position_id"].to_list()
            assert [e["activation"] for e in told] == extremes["activation"].to_list()
            for example, row in zip(told, extremes.to_dicts(), strict=True):
                before, after = example["tokens"][: example["shown"]], example["tokens"][example["shown"] + 1 :]
                assert example["tokens"][example["shown"]] == row["context_token"]
                if "<0x" not in "".join(example["tokens"]):  # views spell bytes together
                    assert "".join(before) == row["context_before"] and "".join(after) == row["context_after"]
                assert example["activations"][example["shown"]] == example["activation"]
                stratum = example["stratum"]
                if stratum:
                    lo, hi = (math.inf if v is None else v for v in (stratum["lo"], stratum["hi"]))
                    assert -abs(lo) <= example["activation"] <= hi
            samples = opened.samples(label).filter(pl.col("quantile").is_not_null()).unique("position_id")
            chances = {e["position_id"]: e["inclusion_probability"] for e in line["examples"] if e["group"] == "sample"}
            assert chances == pytest.approx(dict(samples.select("position_id", "inclusion_probability").iter_rows()))
            moments = opened.moments(label)
            n = moments["n"].sum()
            assert line["n"] == n
            if n:
                assert line["dla"] == pytest.approx((moments["n"] * moments["dla_mean"]).sum() / n)
                assert line["activation_max"] == moments["max"].max()


def test_parquet_holds_what_the_lines_hold(run, tmp_path):
    for format in ("jsonl", "parquet"):
        exported(run, tmp_path / format, format, components=some(run))
    lines = [strict(line) for line in (tmp_path / "jsonl/components.jsonl").read_text().split("\n")[:-1]]
    frames = {path.stem: pl.read_parquet(path) for path in (tmp_path / "parquet").glob("*.parquet")}
    assert frames["components"]["component"].to_list() == [line["component"] for line in lines]
    assert frames["components"]["density"].to_list() == [line["density"] for line in lines]
    examples = [e | {"component": line["component"]} for line in lines for e in line["examples"]]
    for name in ("component", "group", "position_id", "tokens", "activations", "dla", "quantiles"):
        assert frames["examples"][name].to_list() == [e[name] for e in examples], name
    assert frames["examples"]["stratum_share"].to_list() == [e["stratum"] and e["stratum"]["share"] for e in examples]
    assert len(frames["spectrum"]) == sum(len(line["spectrum"]) for line in lines)
    pairs = [pair for line in lines for pair in line["quantiles"]]
    assert frames["quantiles"].select("quantile", "activation").rows() == [tuple(pair) for pair in pairs]


@pytest.mark.slow
def test_what_the_run_lacks_is_counted_and_recomputed(run_path, base_config, tmp_path):
    labels = ("L1H1", "L0N5")
    plain = exported(run_path, tmp_path / "plain", "jsonl", components=labels)
    full = exported(run_path, tmp_path / "full", "jsonl", components=labels, recompute=True, model=base_config.model)
    assert (plain.counts.values, full.counts.unknown) == (full.counts.values, 0)
    assert f"{plain.counts.unknown:,} of {plain.counts.values:,} token activations" in plain.sentences[1]
    lines = ((tmp_path / name / "components.jsonl").read_text().splitlines() for name in ("plain", "full"))
    for partly, wholly in zip(*lines, strict=True):
        for known, filled in zip(strict(partly)["examples"], strict(wholly)["examples"], strict=True):
            pairs = [(a, b) for a, b in zip(known["activations"], filled["activations"], strict=True) if a is not None]
            assert pairs and all(a == pytest.approx(b, rel=1e-6, abs=1e-6) for a, b in pairs)
            assert filled["activations"][filled["shown"]] == pytest.approx(filled["activation"], rel=1e-6, abs=1e-6)


def test_a_top_example_lies_in_its_interval(run_path, tmp_path):
    exported(run_path, tmp_path / "out", "neuronpedia", components=("L1H1", "L0N3"))
    for feature in neuronpedia_features(tmp_path / "out").values():
        for example in feature["activations"]:
            assert any(example["quantileMin"] <= v <= example["quantileMax"] for v in example["values"])


def test_a_texts_bytes_are_what_each_reader_joins():
    assert texts.hex_escaped("<0xE2><0x82>") == "\\xe2\\x82" and texts.hex_escaped("a<0xE2>") == "a<0xE2>"
    assert texts.storable("") == "∅" and texts.storable("a\x00b\ud800") == "a\\x00b\\ud800"
    with pytest.raises(ExportError, match="a number of L0H0 that is infinite"):
        texts.to_json({"a": math.nan}, "L0H0")


def test_a_models_folder_is_no_id():
    assert neuronpedia.model_id("/home/someone/My Model/") == "my-model"
    assert neuronpedia.model_id("EleutherAI/Pythia-70m") == "pythia-70m"


@pytest.mark.parametrize("format", list(write.FORMATS))
def test_an_export_is_whole_or_not_there(run_path, tmp_path, monkeypatch, format):
    out = tmp_path / "out"
    exported(run_path, out, format, components=("L0H0",))
    before = sorted(path.relative_to(out) for path in out.rglob("*"))
    reading = write.profiles

    def broken(*given):
        yield next(iter(reading(*given)))
        raise KeyboardInterrupt

    monkeypatch.setattr(write, "profiles", broken)
    for place in (out, tmp_path / "new"):
        with pytest.raises(KeyboardInterrupt):
            exported(run_path, place, format, components=("L0H1", "L0H0"))
    assert sorted(path.relative_to(out) for path in out.rglob("*")) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_is_no_export_is_never_replaced(run_path, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").write_text("x")
    with pytest.raises(ExportError, match="is no export of the profiler"):
        exported(run_path, tmp_path / "out", "jsonl", recompute=True, model="no such model")
    with pytest.raises(ExportError, match="choose neuronpedia"):
        write.refuse(tmp_path / "new", "xml")
    with pytest.raises(ComponentError):
        exported(run_path, tmp_path / "new", "jsonl", components=("L9H9",))
    with pytest.raises(ModelError):
        exported(run_path, tmp_path / "new", "jsonl", recompute=True, model="no such model")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("kind", ["../../x", "/etc", "a/b", ""])
def test_a_strangers_kind_is_no_folder(unchecked, tmp_path, kind):
    with duckdb.connect(str(unchecked)) as connection:
        connection.execute("UPDATE components SET kind = ? WHERE component = 'L0H0'", [kind])
    for format in write.FORMATS:
        with pytest.raises(ExportError, match="which no run of the profiler has"):
            exported(unchecked, tmp_path / "out", format)
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_it_left_out(run_path, tmp_path):
    asked = ["export", str(run_path), "--format", "neuronpedia", "--out", str(tmp_path / "out"), "--components", "L0H0"]
    done = CliRunner().invoke(app, [*asked, "-q"])
    first, *more = done.output.splitlines()
    assert done.exit_code == 0 and first.startswith(f"{tmp_path / 'out'}: 1 components with ")
    assert any("left out" in line for line in more) and any("--recompute" in line for line in more)
