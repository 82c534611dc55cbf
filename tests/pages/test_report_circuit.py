"""The circuit page and its charts: numbers of the page against the queries, drawings against their rows, odd inputs."""

import html
import re
import shutil
from pathlib import Path

import duckdb
import patch_models
import polars as pl
import pytest

from profiler.circuits import experiment
from profiler.database import query
from profiler.pages import build, circuit_answer, numbers
from profiler.pages.charts import circuit
from profiler.pages.site import pages
from profiler.patching.setting import PatchSettings
from profiler.prompts.pairs import jsonl
from profiler.results import quality

MEMBERS = pl.DataFrame(
    {
        "component": ["L0H1", "L1H0", "L1H1"],
        "positions": ["all", "all", "S2"],
        "role": ["at S2 attends to S1 (90%)", "", "</script>"],
        "gate": ["sufficient and necessary", "OR-like", "none"],
    }
)
EDGES = pl.DataFrame(
    {
        "writer": ["embed", "L0H1", "L0_mlp_out", "L1H0", "L1H1"],
        "reader": ["L0H1.v", "L1H0.q", "L1H1.k", "logits", "logits"],
        "lost": [0.5, 0.2, 0.1, 0.3, -0.1],
        "matters": [True, True, True, True, False],
    }
)
MEASURED = {"metric_words": "logit difference"}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small experiment whose file of pairs has markup in its name."""
    folder = tmp_path_factory.mktemp("circuit")
    jsonl.write(folder / "a<b>.jsonl", patch_models.pairs(8, seed=3))
    settings = PatchSettings(str(folder / "a<b>.jsonl"), neurons=4, top=2, steps=2, draws=9)
    experiment.patch(patch_models.loaded("gpt2"), settings, folder / "run.duckdb", lambda _stage: None)
    return folder / "run.duckdb"


@pytest.mark.slow
def test_the_page_says_what_the_queries_say(path: Path) -> None:
    page = build.build(path, "circuit")
    text = html.unescape(re.sub(r"<[^>]+>", " ", page.split("<script")[0]))
    members = query.run(path, "circuit_members")["component"].unique().sort().to_list()
    assert f"of 4 nodes make up the circuit: {', '.join(members)}." in text
    one = query.run(path, "experiments").row(0, named=True)
    assert (
        f"takes the mean logit difference from {numbers.number(one['metric_clean'])} to"
        f" {numbers.number(one['metric_corrupted'])}" in text
    )
    scores = dict(query.run(path, "circuit_scores").filter(pair_set="discovery").select("metric", "score").rows())
    if scores["explainable"]:
        assert (
            f"recovers {numbers.percent(scores['faithfulness'])} (95 % interval" in text.replace(numbers.BLANK, " ")
            or numbers.percent(scores["faithfulness"]) in text
        )
    for heading in (
        "Both directions",
        "The circuit",
        "How good it is",
        "The metric panel",
        "Redundancy",
        "Attribution patching",
        "Scope",
    ):
        assert f"{heading}</h2>" in page, heading


def given(drawn: list[float], **scores: float) -> build.Reader:
    """A reader of answers made by hand: a circuit that keeps 0.9 on its pairs, beside random ones."""
    known = {"nodes": 32.0, "faithfulness": 0.9, "over_recovery": 0.0, "incompleteness_greedy": 0.07} | scores
    rows = [
        {"pair_set": "discovery", "metric": m, "score": v, "low": v - 0.02, "high": v + 0.02} for m, v in known.items()
    ]
    random = pl.DataFrame({"pair_set": ["discovery"] * len(drawn) + ["test"], "faithfulness": [*drawn, 1.0]})
    return build.Reader(duckdb.connect(), {"circuit_scores": pl.DataFrame(rows), "circuit_random": random})


@pytest.mark.parametrize(
    ("drawn", "words"),
    [
        (
            [0.0, 0.89, 1.11, 0.5],
            "None of 4 random circuits of the same size is as close to 100 % and as necessary (p = 0.20).",
        ),
        (
            [0.0, 0.91, 1.1 - 1e-9, 0.5],
            "2 of 4 random circuits of the same size are as close to 100 % and as necessary (p = 0.60).",
        ),
    ],
)
def test_random_circuits_that_come_as_close_are_counted(drawn: list[float], words: str) -> None:
    """On either side of 100 %, of the same set of pairs alone, and so that p is (1 + as close) / (1 + drawn)."""
    close = sum(abs(1 - value) <= 0.1 for value in drawn)
    sentence = circuit_answer.of_set(given(drawn, random_p=(1 + close) / (1 + len(drawn))), "discovery", MEASURED)
    assert (
        sentence.replace(numbers.BLANK, " ")
        == "On the pairs it was found on it recovers 90 % (95 % interval 88 % to 92 %) of the effect (logit"
        " difference). With the same members removed from both, circuit and model differ by up to 7.0 % of the effect."
        f" {words}"
    )
    assert "random" not in circuit_answer.of_set(given(drawn), "discovery", MEASURED)


def test_the_terminal_counts_the_same_random_circuits() -> None:
    """From p and the number of draws alone, which is all that the table of scores has."""
    rows = [
        {"metric": m, "score": s, "low": 0.88, "high": 0.92, "n": 199}
        for m, s in (("faithfulness", 0.9), ("incompleteness_greedy", 0.07))
    ]
    for p, words in ((0.005, "none of 199"), (0.02, "3 of 199")):
        chance = {"metric": "random_p", "score": p, "low": None, "high": None, "n": 199}
        said = quality(pl.DataFrame([*rows, chance], infer_schema_length=None))
        assert said.startswith("recovers 90.0% [88.0%, 92.0%] of the effect (logit difference); ") and said.endswith(
            "incomplete by up to 7.0%"
        )
        assert f"; {words} random circuits are as close to 100 % and as necessary (p = {p})" in said
    assert "random" not in quality(pl.DataFrame(rows))
    assert "no effect" in quality(pl.DataFrame({"metric": ["metric_model"], "score": [0.1]}))


def test_over_recovery_and_no_effect_are_said() -> None:
    assert "over-recovery, not success" in circuit_answer.of_set(given([], over_recovery=1.0), "discovery", MEASURED)
    bare = build.Reader(
        duckdb.connect(),
        {"circuit_scores": pl.DataFrame({"pair_set": ["test"], "metric": ["metric_model"], "score": [-0.25]})},
    )
    assert (
        circuit_answer.of_set(bare, "test", MEASURED)
        == "On fresh pairs the model shows no effect that a circuit could explain (logit difference −0.250)."
    )


def test_names_of_pairs_stay_text(path: Path) -> None:
    page = build.build(path, "circuit")
    assert "a&lt;b&gt;" in page
    assert "a<b>" not in page


def test_every_node_of_an_edge_has_a_position() -> None:
    nodes = circuit.node_positions(MEMBERS, EDGES.filter(pl.col("matters")))
    at = dict(zip(nodes["node"], nodes["y"], strict=True))
    assert at == {"embed": -1, "L0H1": 0, "L0_mlp_out": 0.5, "L1H0": 1, "L1H1": 1, "logits": 2}
    assert len(nodes.select("x", "y").unique()) == len(nodes)
    assert set(nodes["x"]) <= {1 / 2, 1 / 3, 2 / 3}
    assert dict(zip(nodes["node"], nodes["gate"], strict=True))["L1H0"] == "OR-like"


def test_the_drawing_holds_each_kept_edge_and_no_other() -> None:
    spec = circuit.drawing(MEMBERS, EDGES).to_dict()
    rows = spec["datasets"][spec["layer"][0]["data"]["name"]]
    assert {(row["writer"], row["reader"]) for row in rows} == {
        ("embed", "L0H1.v"),
        ("L0H1", "L1H0.q"),
        ("L0_mlp_out", "L1H1.k"),
        ("L1H0", "logits"),
    }
    first = next(row for row in rows if row["writer"] == "L0H1")
    assert (first["y"], first["y2"], first["size"]) == (0, 1, 0.2)
    assert circuit.drawing(MEMBERS, EDGES.filter(pl.lit(False))).to_dict()["layer"]


def test_the_quadrant_has_a_dot_per_component_and_names_those_with_an_effect() -> None:
    frame = pl.DataFrame(
        {
            "component": ["L0H0", "L0H1", "L1H0"],
            "component_kind": ["head"] * 3,
            "layer": [0, 0, 1],
            "recovered_denoise": [1.0, 0.0, -0.2],
            "lost_noise": [0.0, 0.9, 0.01],
            "gate": ["OR-like", "AND-like", "none"],
            "excess": [1.0, 0.0, -0.4],
        }
    )
    spec = circuit.quadrant(frame).to_dict()
    data = [spec["datasets"][layer["data"]["name"]] for layer in spec["layer"]]
    assert [len(rows) for rows in data] == [2, 3, 2]
    assert {row["component"] for row in data[2]} == {"L0H0", "L0H1"}
    assert data[0][1] == {"recovered_denoise": 1.0, "lost_noise": 1.0}


def test_charts_of_sizes_random_circuits_and_saturation(path: Path) -> None:
    curve = circuit.size_curve(query.run(path, "circuit_curve")).to_dict()
    assert [len(rows) for rows in curve["datasets"].values()] == [1, 5]
    random = circuit.random_circuits(pl.DataFrame({"faithfulness": [0.1, 0.2]}), 0.9).to_dict()
    assert sorted(len(rows) for rows in random["datasets"].values()) == [1, 2]
    saturation = circuit.saturation(query.run(path, "saturation")).to_dict()
    assert [len(rows) for rows in saturation["datasets"].values()] == [3]


@pytest.mark.slow
def test_an_earlier_experiment_keeps_a_page_of_its_own_in_a_site(path: Path, tmp_path: Path) -> None:
    """A second experiment takes the circuit page; the first one's numbers are read with its name set in every query."""
    both = Path(shutil.copy(path, tmp_path / "both.duckdb"))
    jsonl.write(tmp_path / "again.jsonl", patch_models.pairs(8, seed=4))
    settings = PatchSettings(str(tmp_path / "again.jsonl"), neurons=2, top=2, steps=2, draws=3, seed=1)
    experiment.patch(patch_models.loaded("gpt2"), settings, both, lambda _stage: None)
    first, second = (query.run(p, "experiments").row(0, named=True)["experiment"] for p in (path, both))
    with query.open_run(both) as connection:
        found = pages.contents(connection)
        assert list(found.circuits) == [first] and first != second
        assert [words for words, *_ in found.links("x")][-2:] == [f"Circuit {first}", "Queries"]
        page = build.load("circuit").build(build.Reader(connection).about(experiment=first))
        last = build.load("circuit").build(build.Reader(connection))
    assert page.answer == build.load("circuit").build(build.Reader(query.open_run(path))).answer != last.answer
    sources = {block.source for section in page.sections for block in section.blocks if hasattr(block, "source")}
    assert all(source.settings.startswith(f"SET VARIABLE experiment = '{first}';\n") for source in sources)
