"""Runs over shards merged are the run that one pass makes; what does not belong together is refused by name."""

import shutil
from pathlib import Path

import chunked
import duckdb
import numpy as np
import pytest
import tiny
import torch
from polars.testing import assert_frame_equal
from same import differing_tables

from profiler.behaviours import additions, labels
from profiler.config import RunConfig
from profiler.database import query
from profiler.errors import CorpusError, QueryError, RunError
from profiler.model.load import load_model
from profiler.pages.build import build
from profiler.recording.merge.merge import merge
from profiler.recording.merge.read_back import Stored
from profiler.recording.pipeline import record
from profiler.text.shards import Share, incomplete

DOCUMENTS, SHARDS = 60, ("1/3", "2/3", "3/3")
SUMS = 1e-12
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_chunks")]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Eight blocks of documents; rows without text and broken lines between them, and at the end."""
    file = chunked.write_corpus(tmp_path_factory.mktemp("merge") / "rows.jsonl", n_documents=DOCUMENTS)
    lines = file.read_text().splitlines()
    for at in (5, 20, 40, len(lines)):
        lines[at:at] = ["not json", '{"text": " ", "topic": "a"}']
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.fixture(scope="module")
def config(model_dirs, corpus) -> RunConfig:
    return chunked.settings(model_dirs["gpt2"], corpus, context_length=24, windows_per_document=2)


@pytest.fixture(scope="module")
def whole(config, model, tmp_path_factory) -> Path:
    """One pass over everything."""
    path = tmp_path_factory.mktemp("whole") / "run.duckdb"
    record(config, path, model=model)
    return path


@pytest.fixture(scope="module")
def shards(config, model, tmp_path_factory) -> list[Path]:
    """A pass over each third."""
    folder, paths = tmp_path_factory.mktemp("shards"), []
    for i, shard in enumerate(SHARDS):
        paths.append(folder / f"{i}.duckdb")
        record(config.model_copy(update={"shard": shard}), paths[-1], model=model)
    return paths


@pytest.mark.slow
def test_shards_merged_are_the_whole(whole, shards, tmp_path):
    merge(shards, tmp_path / "merged.duckdb")
    assert differing_tables(whole, tmp_path / "merged.duckdb", SUMS)[1] == []
    assert [p.name for p in tmp_path.iterdir()] == ["merged.duckdb"]
    roles = query.run(tmp_path / "merged.duckdb", "SELECT role, count(*) AS n FROM positions GROUP BY role")
    assert {*roles["role"]} == {None, "template", "system", "user", "assistant"}


@pytest.mark.slow
def test_float64_and_recorded_components(config, tmp_path):
    """Extremes are ordered by values that FLOAT cannot hold."""
    config = config.model_copy(update={"dtype": "float64", "components": ("L1H1", "L0N3")})
    model, names = load_model(config), {None: "whole", "1/2": "a", "2/2": "b"}
    for shard, name in names.items():
        record(config.model_copy(update={"shard": shard}), tmp_path / f"{name}.duckdb", model=model)
    merge([tmp_path / "a.duckdb", tmp_path / "b.duckdb"], tmp_path / "merged.duckdb")
    assert differing_tables(tmp_path / "whole.duckdb", tmp_path / "merged.duckdb", SUMS)[1] == []


@pytest.mark.slow
def test_order_and_steps_do_not_matter(whole, shards, tmp_path):
    merge([shards[2], shards[0]], tmp_path / "part.duckdb", incomplete=True)
    with duckdb.connect(str(tmp_path / "part.duckdb"), read_only=True) as connection:
        assert connection.execute("SELECT config->>'shard' FROM runs").fetchall() == [("1+3/3",)]
    merge([shards[1], tmp_path / "part.duckdb"], tmp_path / "merged.duckdb")
    assert differing_tables(whole, tmp_path / "merged.duckdb", SUMS)[1] == []


@pytest.mark.slow
def test_a_token_limit_is_that_of_all_shards_together(config, model, tmp_path):
    config = config.model_copy(update={"tokens": 2_000})
    record(config, tmp_path / "whole.duckdb", model=model)
    paths = [tmp_path / f"{i}.duckdb" for i in (1, 2)]
    for i, path in enumerate(paths, 1):
        record(config.model_copy(update={"shard": f"{i}/2"}), path, model=model)
    totals = merge(paths, tmp_path / "merged.duckdb").totals
    assert totals.progress.tokens == 2_000
    assert differing_tables(tmp_path / "whole.duckdb", tmp_path / "merged.duckdb", SUMS)[1] == []


def test_everything_a_pass_had_added_up_is_in_its_file(config, model, whole, tmp_path):
    """The state read back from the tables is that of a pass, tensor by tensor, samples in float32."""
    from profiler.recording.pipeline import Pass
    from profiler.recording.write import Store

    with Store(tmp_path / "run.duckdb") as store:
        run = Pass(model, config, store)
        for _ in run.steps():
            pass
    want, stored = run.totals.arrays(), Stored(whole)
    read_back = stored.totals()
    got = read_back.arrays()
    stored.close()
    spectra = run.totals.recorder.spectrum, read_back.recorder.spectrum
    for mine, theirs in zip(*(spectrum.blocks for spectrum in spectra), strict=True):
        (*cells, sums), (*cells_back, sums_back) = (vars(filled.entries()).values() for filled in (mine, theirs))
        assert all(map(torch.equal, cells, cells_back)) and torch.equal(sums.float().double(), sums_back)
    assert got.keys() == want.keys()
    for name, array in want.items():
        if name.startswith(("dense.", "spectrum.")) and name != "spectrum.density":  # in other slots, in more room
            continue
        if name in ("samples.activation", "samples.dla", "extremes.activation", "extremes.dla", "cells.sums"):
            array = array.astype("float32").astype(array.dtype)
        assert torch.equal(torch.from_numpy(array.copy()), torch.from_numpy(got[name].copy())), name
    order = want["dense.positions"].argsort()
    for name in ("keys", "positions", "activation", "dla", "attention", "outcome"):
        assert np.array_equal(want[f"dense.{name}"][order], got[f"dense.{name}"], equal_nan=True), name


# --- what was added after the passes
# -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def told(config, model, tmp_path_factory) -> Path:
    """A folder with two shards of a pass that was told of a class."""
    folder = tmp_path_factory.mktemp("told")
    for shard, name in (("1/2", "a"), ("2/2", "b")):
        changes = {"shard": shard, "classes": ("told=text = 'a'",)}
        record(config.model_copy(update=changes), folder / f"{name}.duckdb", model=model)
    return folder


@pytest.fixture
def pair(told, tmp_path) -> list[Path]:
    """Copies of the shards of `told`, to add to."""
    return [Path(shutil.copy(told / name, tmp_path)) for name in ("a.duckdb", "b.duckdb")]


@pytest.mark.slow
def test_classes_and_behaviours_that_all_share_are_those_of_the_whole(config, model, pair, tmp_path):
    whole, merged = tmp_path / "whole.duckdb", tmp_path / "merged.duckdb"
    record(config.model_copy(update={"classes": ("told=text = 'a'",)}), whole, model=model)
    for path in (whole, *pair):
        additions.add_class(path, "mine", "contains(text, 'e')", "with an e")
        additions.add_behaviour(path, "far", "distance > 2 -- a comment", "both", "far away")
        additions.add_behaviour(path, "looks", "induction > 0.1", "head")
    added = merge(pair, merged).carried
    assert ([c.name for c in added.classes], [b.name for b in added.behaviours]) == (["mine"], ["far", "looks"])
    assert added.notes == ()
    rewritten = "token_property_lists: "  # adding a class to a run moves its rows
    assert [name for name in differing_tables(whole, merged, SUMS)[1] if not name.startswith(rewritten)] == []
    for text in (
        "SELECT token_id, list_sort(properties) AS properties FROM token_property_lists ORDER BY ALL",
        (
            "SELECT component, behaviour, position_id, weight, holds FROM behaviour_rows WHERE family = 'user' ORDER"
            " BY ALL"
        ),
        (
            "SELECT component, property, n, sum_dla AS dla FROM token_splits WHERE property = 'mine' ORDER BY"
            " component, property, n"
        ),
    ):
        first, second = query.run(whole, text), query.run(merged, text)
        assert first.height > 7
        assert_frame_equal(first, second, rel_tol=1e-9, abs_tol=1e-9)  # sums of sums, in another order


@pytest.mark.slow
def test_what_differs_or_stays_behind_is_named(pair, tmp_path):
    a, b = pair
    additions.add_class(a, "only", "text = 'b'")
    additions.add_class(a, "mine", "text = 'b'")
    additions.add_class(b, "mine", "text = 'c'")
    additions.add_behaviour(b, "far", "distance > 2", "both")
    additions.add_behaviour(a, "far", "distance > 2", "neuron")
    additions.remove_class(b, "told")
    (tmp_path / "a-labels-L0H0.jsonl").write_text("")
    with duckdb.connect(str(b)) as connection:
        connection.execute("CREATE TABLE checks (check_id VARCHAR); INSERT INTO checks VALUES ('x'), ('y')")
        connection.execute("CREATE TABLE notes (text VARCHAR)")
    added = merge(pair, tmp_path / "merged.duckdb").carried
    assert (added.classes, added.behaviours) == ((), ())
    assert added.notes == (
        f"class told is in the merged run, though {b} had taken it out: every pass was told of it",
        f"class only is not carried: it is in {a}, not in {b}",
        (
            f"class mine is not carried: description `one where text = 'b'` in {a}, `one where text = 'c'` in {b}; "
            f"condition `text = 'b'` in {a}, `text = 'c'` in {b}"
        ),
        f"behaviour far is not carried: kind `neuron` in {a}, `both` in {b}",
        f"{tmp_path / 'a-labels-L0H0.jsonl'} are not carried: they are labels of positions of {a}",
        f"2 checks of {b} are not carried: they were made with that run; give `profiler check` the merged run",
        f"notes of {b} are not carried: no command of the profiler made them",
    )
    own = 'SELECT property FROM properties WHERE "user"'
    assert query.run(tmp_path / "merged.duckdb", own)["property"].to_list() == ["told"]


def test_a_definition_that_cannot_be_used_is_refused(pair, tmp_path):
    """SQL text out of a file that somebody made."""
    for path in pair:
        additions.add_behaviour(path, "far", "distance > 2", "both")
        with duckdb.connect(str(path)) as connection:
            connection.execute("UPDATE behaviours SET condition = '(SELECT true)' WHERE behaviour = 'far'")
    with pytest.raises(QueryError, match="subquery"):
        merge(pair, tmp_path / "merged.duckdb")
    assert not (tmp_path / "merged.duckdb").exists()


# --- the run's id, and shards that are missing
# -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.monthly
def test_the_id_of_a_merged_run_is_that_of_the_one_pass_and_no_other(model_dirs, tmp_path):
    """Also where the context length is the model's own, and where code and pickles were allowed; it holds the text."""
    corpus = tiny.write_corpus(tmp_path / "rows.jsonl", n_documents=20)
    config = RunConfig(
        model=str(model_dirs["gpt2"]), corpora=(str(corpus),), tokens=None, dense_positions=10, extremes=2
    )
    model = load_model(config)

    def id_of(name: str, **changes) -> str:
        record(config.model_copy(update=changes), tmp_path / name, model=model)
        return query.run(tmp_path / name, "SELECT run_id FROM runs").item()

    whole = id_of("whole.duckdb")
    shards = [id_of(f"{i}.duckdb", shard=f"{i}/2", allow_pickle=i == 1) for i in (1, 2)]
    merge([tmp_path / "1.duckdb", tmp_path / "2.duckdb"], tmp_path / "merged.duckdb")
    assert query.run(tmp_path / "merged.duckdb", "SELECT run_id FROM runs").item() == whole
    assert len({whole, *shards}) == 3
    assert id_of("same.duckdb", batch_size=3, trust_remote_code=True) == whole
    corpus.write_text(corpus.read_text().replace("cat", "cow"))
    assert id_of("other.duckdb") != whole
    position = query.run(tmp_path / "whole.duckdb", "SELECT min(position_id) AS p FROM positions").item()
    path = labels.labels_path(tmp_path / "other.duckdb", "L0H0")
    labels.write(path, labels.Label(whole, "L0H0", "it is a cat", position, 0.0, True))
    with pytest.raises(RunError, match="labels of another run"):
        labels.begin(tmp_path / "other.duckdb", "L0H0", "it is a cat")


@pytest.mark.slow
def test_a_missing_shard_is_named_and_refused_unless_asked_for(shards, tmp_path):
    part = tmp_path / "part.duckdb"
    with pytest.raises(
        RunError, match=r"shard 2/3 of the corpus is missing: 1\+3/3 is in the runs given; .*--incomplete"
    ):
        merge([shards[2], shards[0]], part)
    assert list(tmp_path.iterdir()) == []
    merge([shards[2], shards[0]], part, incomplete=True)
    for page in (build(part, "overview"), build(shards[1], "overview")):
        assert "of the corpus alone" in page
    assert "shard 1+3/3 of the corpus alone: 2/3 is missing" in build(part, "overview")


@pytest.mark.slow
@pytest.mark.monthly
def test_shards_beyond_the_corpus_are_not_missing(config, model, whole, shards, tmp_path):
    """Eight blocks of documents in ten shards: the last two are empty, cannot be recorded, and nothing of the corpus is
    missing."""
    paths = [tmp_path / f"{i}.duckdb" for i in range(1, 9)]
    for i, path in enumerate(paths, 1):
        record(config.model_copy(update={"shard": f"{i}/10"}), path, model=model)
    with pytest.raises(RunError, match=r"shard 8/10 of the corpus is missing"):
        merge(paths[:-1], tmp_path / "part.duckdb")
    merge(paths, tmp_path / "merged.duckdb")
    assert differing_tables(whole, tmp_path / "merged.duckdb", SUMS)[1] == []


def test_what_is_missing_of_a_corpus():
    assert [incomplete(text) for text in (None, "1/1")] == [None, None]
    assert incomplete("1+3/4") == "shard 1+3/4 of the corpus alone: 2+4/4 is missing"
    assert str(Share.parse("1/4").missing(3)) == "2+3/4"
    assert Share.parse("1+2/4").missing(2) is None


# --- refused
# -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.monthly
def test_runs_that_do_not_belong_together_are_refused(config, model, shards, model_dirs, corpus, tmp_path):
    small = {"tokens": 700}
    config = config.model_copy(update=small)

    def run(name: str, chosen: RunConfig, of=model) -> Path:
        record(chosen, tmp_path / name, model=of)
        return tmp_path / name

    first = run("first.duckdb", config.model_copy(update={"shard": "1/1"}))
    other = config.model_copy(update={"model": str(model_dirs["neox"])})
    cases = {
        r"weights .* here": run("weights.duckdb", other, load_model(other)),
        "seed 0 here, 9 there": run("seed.duckdb", config.model_copy(update={"seed": 9})),
        "tokens 700 here, 600 there; .*extremes 3 here, 2 there": run(
            "two.duckdb", config.model_copy(update={"extremes": 2, "tokens": 600})
        ),
        r"overlap: \d+ documents are in both, such as 'doc-": run("same.duckdb", config),
    }
    for said, path in cases.items():
        with pytest.raises(RunError, match=said) as caught:
            merge([first, path], tmp_path / "merged.duckdb")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "merged.duckdb").exists()


def test_shards_of_another_number_are_refused(config, model, shards, tmp_path):
    record(config.model_copy(update={"shard": "2/2"}), tmp_path / "b.duckdb", model=model)
    with pytest.raises(RunError, match="shard 1/3 here, 2/2 there"):
        merge([shards[0], tmp_path / "b.duckdb"], tmp_path / "merged.duckdb")


def test_the_same_run_twice_is_refused(shards, tmp_path):
    for paths in ([shards[0]], [shards[0], shards[0]]):
        with pytest.raises(RunError, match="two runs or more"):
            merge(paths, tmp_path / "merged.duckdb")
    copy = tmp_path / "copy.duckdb"
    copy.write_bytes(shards[0].read_bytes())
    with pytest.raises(RunError, match="overlap"):
        merge([shards[0], copy], tmp_path / "merged.duckdb")


def test_shards_of_a_corpus_that_changed_in_between_are_refused(config, model, shards, corpus, tmp_path):
    before = corpus.read_text()
    try:
        corpus.write_text(before.replace("cat", "cow"))
        record(config.model_copy(update={"shard": "2/3"}), tmp_path / "b.duckdb", model=model)
    finally:
        corpus.write_text(before)
    with pytest.raises(RunError, match="the corpus: "):
        merge([shards[0], tmp_path / "b.duckdb"], tmp_path / "merged.duckdb")


def test_a_file_that_is_no_run_is_refused(shards, tmp_path):
    text, empty = tmp_path / "text.duckdb", tmp_path / "empty.duckdb"
    text.write_text("hello")
    duckdb.connect(str(empty)).close()
    for path in (text, empty, tmp_path / "missing.duckdb"):
        with pytest.raises(RunError, match=path.name) as caught:
            merge([shards[0], path], tmp_path / "merged.duckdb")
        assert "\n" not in str(caught.value)


def test_a_run_of_an_earlier_version_is_refused_by_the_columns_that_it_lacks(shards, tmp_path):
    """As runs were before the slope of a soft cap stood beside the logit."""
    earlier = tmp_path / "earlier.duckdb"
    shutil.copy(shards[1], earlier)
    with duckdb.connect(str(earlier)) as connection:
        connection.execute("ALTER TABLE position_rows DROP COLUMN cap_slope")
    for runs in ([shards[0], earlier], [earlier, shards[0]]):
        with pytest.raises(RunError, match=r"earlier\.duckdb was .* before runs held position_rows\.cap_slope: record"):
            merge(runs, tmp_path / "merged.duckdb")
    assert [path.name for path in tmp_path.iterdir()] == ["earlier.duckdb"]


def test_an_empty_shard_is_refused(config, model, tmp_path):
    with pytest.raises(CorpusError, match=r"in shard 9/9"):
        record(config.model_copy(update={"shard": "9/9"}), tmp_path / "run.duckdb", model=model)
    assert list(tmp_path.iterdir()) == []
