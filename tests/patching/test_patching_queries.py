"""A whole experiment on a small random model into a file of its own: tables, comments, queries, errors, writing
again."""

import dataclasses
import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import duckdb
import numpy as np
import patch_models
import polars as pl
import pytest

from profiler.circuits import experiment, yaml_files
from profiler.circuits.circuit import Circuit, Scope, members_of
from profiler.database import macros, query
from profiler.errors import CircuitError, PairError, RunError
from profiler.model.steps.as_network import network_of
from profiler.patching import experiment_store, setting, sweep_tables
from profiler.patching.metrics import logit_diff
from profiler.patching.setting import PatchSettings
from profiler.patching.sites import parse_target
from profiler.patching.sweep import intervene, resample
from profiler.prompts.pairs import jsonl
from profiler.prompts.pairs.encode import encode

NAMES = [name for name in query.names() if "latest_experiment" in query.header(name).reads]
MODEL = patch_models.loaded("neox_sequential")
WHOLE = "check_name = 'logit difference, clean to corrupted' AND pair_set = 'discovery'"
NOTHING_TO_EXPLAIN = ("paths", "circuit_fractions")  # not asked for; test_edge_circuits.py has rows
CROSSED = ("corruption_cells", "corruption_factors")  # of built-in tasks alone: test_patching_factorial.py has one


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, experiment.ExperimentResult]:
    """An experiment on the toy pairs, and a judged circuit beside it, in one new file."""
    folder = tmp_path_factory.mktemp("patch")
    jsonl.write(folder / "toy.jsonl", patch_models.pairs(8, seed=3))
    settings = PatchSettings(str(folder / "toy.jsonl"), neurons=6, top=3, steps=2, draws=9)
    path = folder / "run.duckdb"
    own = Circuit("own", "m", members_of(["L0H0", "L1H1"]), Scope("toy", "8", ("swap",)))
    experiment.patch(
        MODEL, PatchSettings(settings.task, neurons=2, top=2, steps=2, draws=3, seed=1), path, lambda _: None, own
    )
    return path, experiment.patch(MODEL, settings, path, lambda _: None)


@pytest.fixture(scope="module")
def answers(made: tuple[Path, experiment.ExperimentResult]) -> Callable[[str], pl.DataFrame]:
    """The rows of a query, asked once."""
    return cache(lambda name: query.run(made[0], name))


@pytest.fixture(scope="module")
def frames(made: tuple[Path, experiment.ExperimentResult]) -> dict[str, pl.DataFrame]:
    return made[1].frames


@pytest.mark.parametrize("name", NAMES)
def test_every_query_has_rows_and_its_key(made: tuple, answers: Callable, name: str) -> None:
    frame = answers(name)
    key = list(query.header(name).key)
    assert len(frame) > 0 or name in ("use_exact", "circuit_random", *NOTHING_TO_EXPLAIN, *CROSSED)
    assert frame.select(key).is_duplicated().sum() == 0
    assert frame.select(key).null_count().sum_horizontal().item() == 0
    assert frame.equals(query.run(made[0], name))


@pytest.mark.parametrize("name", NAMES)
def test_every_query_declares_what_it_reads_and_takes_an_experiment(made: tuple, name: str) -> None:
    text = query.sql_text(name)
    text = "\n".join([text, *(macros.definitions()[macro] for macro in macros.called_in(text))])
    words = set(re.split(r"[\s(),;.]+", "\n".join(line.split("--")[0] for line in text.splitlines())))
    used = words & {*experiment_store.TABLES, "patches", "latest_experiment"}
    assert used == set(query.header(name).reads)
    nothing = query.run(made[0], name, experiment="no such")
    assert len(nothing) == 0


def test_queries_run_in_a_plain_shell(made: tuple, answers: Callable, tmp_path: Path) -> None:
    copy = shutil.copy(made[0], tmp_path / "copy.duckdb")
    for name in NAMES:
        with duckdb.connect(str(copy), read_only=True) as shell:
            columns = [column[0] for column in shell.execute(query.sql_text(name)).description]
        assert columns == answers(name).columns


def test_every_table_and_column_is_explained(made: tuple) -> None:
    with duckdb.connect(str(made[0]), read_only=True) as shell:
        columns = shell.execute(
            "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE table_name IN (SELECT unnest(?))",
            [list(experiment_store.TABLES)],
        ).fetchall()
        tables = shell.execute("SELECT table_name FROM duckdb_tables() WHERE comment IS NOT NULL").fetchall()
    assert {row[0] for row in columns} == set(experiment_store.TABLES)
    assert [row[:2] for row in columns if not row[2]] == []
    assert set(experiment_store.TABLES) <= {row[0] for row in tables}


def test_every_number_carries_its_six_values(made: tuple) -> None:
    six = {"granularity", "component_kind", "value", "positions", "direction", "pair_set"}
    described = {"patch_experiments", "patch_pairs", "patch_checks", "circuits"}
    with duckdb.connect(str(made[0]), read_only=True) as shell:
        for table in set(experiment_store.TABLES) - described:
            columns = {row[0] for row in shell.execute(f"DESCRIBE {table}").fetchall()}
            assert six <= columns, table
            empty = " OR ".join(f"{column} IS NULL" for column in six)
            assert shell.execute(f"SELECT count(*) FROM {table} WHERE {empty}").fetchall() == [(0,)], table


def test_shares_are_those_of_the_stored_effects(made: tuple, frames: dict[str, pl.DataFrame]) -> None:
    """A slow recomputation from the pairs' own rows."""
    pairs = frames["patch_pairs"].filter(pair_set="discovery")
    whole = (pairs["metric_clean"] - pairs["metric_corrupted"]).mean()
    effects = (
        frames["patch_effects"]
        .group_by("component", "positions", "direction", "value")
        .agg(pl.col("effect").mean(), pl.len())
    )
    joined = frames["patch_shares"].join(effects, on=["component", "positions", "direction", "value"])
    sign = np.where(joined["direction"] == "denoise", 1, -1)
    assert joined["share"].to_numpy() == pytest.approx(sign * joined["effect"].to_numpy() / whole)
    assert set(joined["len"]) == {len(pairs)}
    assert len(joined) == len(frames["patch_shares"])
    change = joined["fix"] + joined["break"]
    assert change.to_numpy() == pytest.approx(joined["effect"].to_numpy(), abs=1e-9)
    assert (frames["patch_shares"]["p_adjusted"] >= frames["patch_shares"]["p"]).all()
    clear = (pl.col("share_lo") > 0) | (pl.col("share_hi") < 0)
    assert frames["patch_shares"].select((clear == (pl.col("verdict") == "effect")).all()).item()
    bounds = {
        (0.1, 0.2, 0.11, 0.19): "effect",
        (-0.2, -0.1, -0.19, -0.11): "effect",
        (-0.01, 0.01, -0.009, 0.009): "no effect",
        (-0.1, 0.1, -0.09, 0.09): "inconclusive",
    }
    assert {key: sweep_tables._verdict(*key) for key in bounds} == bounds


def test_gates_stand_in_both_directions(made: tuple, frames: dict[str, pl.DataFrame]) -> None:
    gates = query.run(made[0], "gates")
    resampled = frames["patch_shares"].filter(value="resample")
    for way, column in (("denoise", "recovered_denoise"), ("noise", "lost_noise")):
        known = resampled.filter(direction=way).select(
            "component", "positions", "share", "share_lo", "share_hi", "p_adjusted"
        )
        both = gates.join(known, on=["component", "positions"])
        assert len(both) == len(gates)
        for name, other in (
            (column, "share"),
            (f"{column}_lo", "share_lo"),
            (f"{column}_hi", "share_hi"),
            (f"p_{way}", "p_adjusted"),
        ):
            assert both[name].to_numpy() == pytest.approx(both[other].to_numpy())
    shares = query.run(made[0], "patch_panel", top=0)
    one = gates.row(0, named=True)
    for way, column in (("denoise", "recovered_denoise"), ("noise", "lost_noise")):
        found = shares.filter(component=one["component"], positions=one["positions"], direction=way, value="resample")
        assert found["share"].to_list() == pytest.approx([one[column]], rel=1e-12)  # summed in two places
    everything = gates.filter(component="L0_resid_pre", positions="all").row(0, named=True)
    assert everything["recovered_denoise"] == pytest.approx(1)
    assert everything["lost_noise"] == pytest.approx(1)
    assert everything["gate"] == "sufficient and necessary"


def test_downstream_parts_add_up_to_the_total(made: tuple) -> None:
    found = query.run(made[0], "downstream")
    parts = (
        found.filter(pl.col("part") != "total")
        .group_by("ablated", "value")
        .agg(pl.col("delta_dla").sum(), pl.col("total").first())
    )
    assert parts["delta_dla"].to_numpy() == pytest.approx(parts["total"].to_numpy(), abs=1e-9)
    assert set(found["value"]) == {"resample", "mean", "zero"}


def test_a_share_is_repaired_only_of_a_direct_loss_worth_one(made: tuple, tmp_path: Path) -> None:
    """A planted loss of 1 of 10 logits, of which a later head makes up 0.4; and one of 0.4, too small to divide by."""
    path = Path(shutil.copy(made[0], tmp_path / "run.duckdb"))
    with duckdb.connect(str(path)) as shell:
        shell.execute(f"UPDATE patch_checks SET size = 10 WHERE {WHOLE}")
        shell.execute("DELETE FROM patch_downstream WHERE value <> 'resample' OR part IN ('mlp', 'norm')")
        shell.execute(
            """UPDATE patch_downstream SET delta_dla = CASE part WHEN 'direct' THEN if(ablated LIKE 'L0%', -1, -0.4)
            WHEN 'head' THEN 0.4 ELSE delta_dla END"""
        )
    found = query.run(path, "downstream").filter(part="head")
    large = pl.col("ablated").str.starts_with("L0")
    assert len(found.filter(large)) and set(found.filter(large)["repaired"]) == {0.4}
    with duckdb.connect(str(path)) as shell:
        shell.execute(f"UPDATE patch_checks SET size = 21 WHERE {WHOLE}")
    assert query.run(path, "downstream")["repaired"].null_count() == len(query.run(path, "downstream"))


def test_whole_circuit_and_its_edges(frames: dict[str, pl.DataFrame]) -> None:
    scores = frames["circuit_scores"].filter(pair_set="discovery")
    found = dict(scores.select("metric", "score").rows())
    curve = frames["circuit_curve"].sort("size")
    assert curve["faithfulness"][0] == pytest.approx(0)
    assert curve["faithfulness"][-1] == pytest.approx(1)
    assert found["members"] == len(frames["circuit_members"]["component"].unique())
    if found["explainable"]:
        assert abs(1 - found["faithfulness"]) <= 0.1 + 1e-9
        assert found["faithfulness_gap"] == pytest.approx(abs(found["metric_model"] - found["metric_circuit"]))


def test_a_judged_circuit_is_read_from_its_own_text(made: tuple, tmp_path: Path) -> None:
    listed = query.run(made[0], "experiments")
    assert len(listed) == 2
    older = listed.filter(~pl.col("latest"))["experiment"][0]
    text = query.run(made[0], "circuit_scope", experiment=older)["yaml"][0]
    (tmp_path / "own.yaml").write_text(text)
    again = yaml_files.read(tmp_path / "own.yaml")
    assert again.components == ("L0H0", "L1H1")
    assert yaml_files.text_of(again) == text


def test_writing_again_replaces(made: tuple, frames: dict[str, pl.DataFrame], tmp_path: Path) -> None:
    copy = Path(shutil.copy(made[0], tmp_path / "copy.duckdb"))
    experiment_store.write(copy, made[1].experiment, frames)
    for name in ("gates", "circuit_scores", "experiments"):
        assert query.run(copy, name).equals(query.run(made[0], name))


def test_a_failed_write_leaves_the_file_as_it_was(made: tuple, frames: dict[str, pl.DataFrame], tmp_path: Path) -> None:
    copy = Path(shutil.copy(made[0], tmp_path / "copy.duckdb"))
    with pytest.raises(duckdb.Error):
        experiment_store.write(
            copy, made[1].experiment, frames | {"circuit_random": pl.DataFrame({"no_such_column": [1]})}
        )
    assert query.run(copy, "gates").equals(query.run(made[0], "gates"))


def test_files_that_cannot_be_written(made: tuple, tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "other.duckdb")) as shell:
        shell.execute("CREATE TABLE t (x INTEGER)")
    with (
        pytest.raises(RunError, match="no run of the profiler"),
        experiment_store.ready(tmp_path / "other.duckdb", MODEL),
    ):
        pass
    (tmp_path / "text.duckdb").write_text("no database")
    with pytest.raises(RunError, match="cannot be written"), experiment_store.ready(tmp_path / "text.duckdb", MODEL):
        pass
    with (
        pytest.raises(RunError, match="its folder must exist"),
        experiment_store.ready(tmp_path / "no" / "run.duckdb", MODEL),
    ):
        pass
    other = patch_models.loaded("gpt2")
    with pytest.raises(RunError, match="whose weights are not those"), experiment_store.ready(made[0], other):
        pass


def test_a_second_writer_is_told_so(made: tuple, tmp_path: Path) -> None:
    """Another process holds the file."""
    import subprocess
    import sys

    copy = Path(shutil.copy(made[0], tmp_path / "copy.duckdb"))
    script = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(copy)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "open\n"
        with pytest.raises(RunError, match="has it open"), experiment_store.ready(copy, MODEL):
            pass
        other.stdin.close()
        other.wait()
    with experiment_store.ready(copy, MODEL):
        pass


def test_unusable_pairs_and_circuits_are_named(made: tuple, tmp_path: Path) -> None:
    pairs = patch_models.pairs(3)
    settings = PatchSettings(str(tmp_path / "toy.jsonl"))
    jsonl.write(settings.task, [dataclasses.replace(pair, corrupted=pair.clean) for pair in pairs])
    with pytest.raises(PairError, match="the same tokens"):
        experiment.patch(MODEL, settings, tmp_path / "run.duckdb", lambda _: None)
    assert not (tmp_path / "run.duckdb").exists()
    jsonl.write(settings.task, pairs)
    lost = Circuit("lost", "m", members_of(["L0H0", "L7H1"]), Scope("toy", "", ()))
    copy = Path(shutil.copy(made[0], tmp_path / "copy.duckdb"))
    with pytest.raises(CircuitError, match="component L7H1 is not in the model"):
        experiment.patch(MODEL, settings, copy, lambda _: None, lost)
    assert query.run(copy, "experiments").equals(query.run(made[0], "experiments"))


def test_strata_share_out_the_pairs(made: tuple, frames: dict[str, pl.DataFrame]) -> None:
    found = query.run(made[0], "patch_strata", patched="L0_resid_pre").filter(stratum="length")
    pairs = frames["patch_pairs"].filter(pair_set="discovery")
    assert found["n"].sum() == len(pairs)
    for row in found.to_dicts():
        limit = int(row["stratum_value"].split()[-2])
        own = pairs.filter(
            pl.col("n_tokens") <= limit if row["stratum_value"].startswith("at most") else pl.col("n_tokens") > limit
        )
        assert row["n"] == len(own)
        assert row["metric_clean"] == pytest.approx(own["metric_clean"].mean())
        assert row["recovered_denoise"] == pytest.approx(1)
        assert row["lost_noise"] == pytest.approx(1)
    assert query.run(made[0], "patch_strata")["lost_noise"].null_count() == len(query.run(made[0], "patch_strata"))


def test_heads_of_one_layer_are_neither_serial_nor_composed(frames: dict[str, pl.DataFrame]) -> None:
    rows = frames["patch_interactions"].to_dicts()
    alike = [row["first"].split("H")[0] == row["second"].split("H")[0] for row in rows]
    assert set(alike) == {True, False}
    for row, same_layer in zip(rows, alike, strict=True):
        assert not same_layer or row["relation"] not in ("serial", "composed")
        assert row["interaction"] == pytest.approx(row["share_together"] - row["share_first"] - row["share_second"])


def test_saturation_ends_in_what_all_heads_together_recover(made: tuple, frames: dict[str, pl.DataFrame]) -> None:
    """The last size against one joint patch of clean values into the corrupted run; Shapley values add up to it."""
    rows = frames["patch_saturation"].sort("size")
    heads = rows["component"].drop_nulls().to_list()
    one = setting.prepare(
        "discovery", network_of(MODEL), encode(patch_models.pairs(8, seed=3), MODEL.tokenizer, MODEL.bos_id, 48)
    )
    targets = [parse_target(head) for head in heads]
    for some, share in ((targets, rows["share"][-1]), (targets[:1], None)):
        logits = intervene(one.net, one.batch.corrupted, one.batch.ends, one.batch, some, resample(one.clean))
        gained = (logit_diff(logits, one.batch.options).numpy() - one.metric_corrupted).mean() / one.whole.mean()
        expected = frames["patch_gates"].filter(component=heads[0], positions="all")["recovered_denoise"].item()
        assert gained == pytest.approx(expected if share is None else share, abs=1e-9)
    assert rows["shapley"].drop_nulls().sum() == pytest.approx(rows["share"][-1])
    rounding = 1e-12  # a mean of equal numbers may lie outside them by its last bit
    assert (rows["lowest"] <= rows["share"] + rounding).all() and (rows["share"] <= rows["highest"] + rounding).all()


def test_the_bound_on_misses_is_of_neurons_never_patched(frames: dict[str, pl.DataFrame]) -> None:
    n_neurons = MODEL.spec.n_layers * MODEL.spec.d_mlp
    rows = frames["patch_reliability"].filter(pl.col("bound").is_not_null())
    assert set(rows["component_kind"]) == {"neuron"} and len(rows) == 6
    recall = frames["patch_recall"].filter(component_kind="neuron")
    assert set(recall["unpatched"]) == {n_neurons - 6}
    for row in rows.to_dicts():
        sampled = 3
        rates = [1 - 0.05 ** (1 / sampled), 1.0]  # none of three with an effect, or all
        low, high = (rate * (n_neurons - 6) for rate in rates)
        assert low - 1e-9 <= row["bound"] <= high + 1e-9
