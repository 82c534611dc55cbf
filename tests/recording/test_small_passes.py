"""Small real passes, models x corpora x sizes: every query and every report that a fresh run can be asked, on each.

Data that is not in the checkout lies in `../shared` beside it; what needs it is skipped where that is not there.
"""

from pathlib import Path

import pytest
import tiny
from same import differing_tables

from profiler.config import RunConfig
from profiler.database import query
from profiler.errors import QueryError
from profiler.pages import build, site
from profiler.recording.pipeline import record

pytestmark = pytest.mark.slow

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
MODELS = {
    "bundled": "bundled",
    "stories": DATA / "models" / "stories260K",
    "known": DATA / "models" / "known-induction",
    "gpt2": None,
    "neox": None,
    "llama": None,
}
CORPORA = {
    "stdlib": "stdlib",
    "stories": DATA / "corpora" / "tinystories.jsonl",
    "wikitext": DATA / "corpora" / "wikitext2-test.txt",
    "udhr": DATA / "corpora" / "udhr.jsonl",
    "german": DATA / "corpora" / "german.txt",
    "shakespeare": DATA / "corpora" / "tinyshakespeare.txt",
    "letters": DATA / "models" / "known-induction" / "letters.txt",
}
PASSES = [
    ("stories", "stories", 500),
    ("stories", "stories", 15000),
    ("bundled", "stdlib", 1000),
    ("bundled", "udhr", 2000),
    ("known", "letters", 3000),
    ("known", "letters", 10),
    ("gpt2", "german", 5),
    ("gpt2", "udhr", 1500),
    ("neox", "stories", 200),
    ("llama", "stories", 2),
    *(
        pytest.param(one, marks=pytest.mark.monthly)
        for one in (
            ("stories", "stories", 2000),
            ("stories", "stories", 4000),
            ("stories", "german", 60),
            ("stories", "shakespeare", 8000),
            ("stories", "udhr", 800),
            ("bundled", "wikitext", 300),
            ("gpt2", "stdlib", 8000),
            ("neox", "stdlib", 3000),
            ("llama", "shakespeare", 4000),
            ("llama", "stdlib", 700),
        )
    ),
]
REPEATED = {("stories", "stories", 500), ("gpt2", "udhr", 1500), ("known", "letters", 3000)}


@pytest.fixture(scope="module", params=PASSES, ids=lambda one: "-".join(map(str, one)))
def made(request, tmp_path_factory) -> tuple[Path, RunConfig]:
    """A run of one of the passes."""
    model, corpus, tokens = request.param
    folder = tmp_path_factory.mktemp("pass")
    place = MODELS[model] if model in ("bundled", "stories", "known") else tiny.save(model, folder / "model")
    for needed in (place, CORPORA[corpus]):
        if isinstance(needed, Path) and not needed.exists():
            pytest.skip(f"{needed.name} is in ../shared, which is not beside this checkout")
    config = RunConfig(
        model=str(place),
        corpora=(str(CORPORA[corpus]),),
        tokens=tokens,
        dense_positions=128,
        context_length=64 if model == "bundled" else None,
        samples_per_stratum=2,
        extremes=5,
        shuffle_buffer=50,
    )
    record(config, folder / "run.duckdb")
    return folder / "run.duckdb", config


def fresh_queries(run: Path) -> list[str]:
    """Query files that read what a fresh run has: none of the tables that patching, checks and predictions make."""
    with query.open_run(run) as connection:
        there = {name for (name,) in connection.execute("SELECT name FROM (SHOW TABLES)").fetchall()}
    return [
        name
        for name in query.names()
        if all(table in there or table.endswith("()") for table in query.header(name).reads)
    ]


def settings(name: str, labels: list[str]) -> list[dict[str, object]]:
    """Parameters for a query: each of some components where it wants one, and the first value of everything else it
    wants."""
    wanted = {p.name for p in query.header(name).parameters if p.required}
    others = {"behaviour": "induction", "property": "number", "class": "word", "token": " the"}
    given = {key: others[key] for key in wanted - {"component"}}
    return [given | {"component": label} for label in labels] if "component" in wanted else [given]


def some(run: Path) -> list[str]:
    """The most important head and neuron."""
    found = query.run(run, "component_overview", top=0)
    return [
        found.filter(found["kind"] == kind)["component"][0]
        for kind in ("head", "neuron")
        if kind in found["kind"].to_list()
    ]


def test_it_closes_and_every_query_and_report_answers(made):
    run, config = made
    labels, names = some(run), fresh_queries(run)
    assert len(names) > 30
    with query.open_run(run) as connection:
        info = query.run(connection, "run_info").row(0, named=True)
        assert info["n_tokens"] <= config.tokens and info["n_positions"] > 0
        assert max(info["closure_residual"], info["logit_residual"]) <= 1e-3 * max(info["closure_scale"], 1)
        for name in names:
            for given in settings(name, labels):
                query.run(connection, name, **given)
        for name in query.names():
            if name not in names and name != "compare":  # which needs two runs
                with pytest.raises(QueryError):
                    query.run(connection, name, **settings(name, labels)[0])
    for name in build.names():
        module = build.load(name)
        if getattr(module, "NEEDS", ()):
            continue  # of patching and checks
        for label in labels if module.NEEDS_COMPONENT else [None]:
            assert "<html" in build.build(run, name, label)


def test_the_same_pass_again_is_the_same_run_and_its_site_is_made(made, tmp_path):
    run, config = made
    if not any(config.tokens == tokens and str(CORPORA[corpus]) in config.corpora for _, corpus, tokens in REPEATED):
        pytest.skip("only some passes are repeated")
    record(config, tmp_path / "again.duckdb")
    assert differing_tables(run, tmp_path / "again.duckdb")[1] == []
    assert site.build(run, tmp_path / "site", most=2).made == 2
