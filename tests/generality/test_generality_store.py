"""Checks in a run: every table and query, written whole, replaced whole."""

import json
import re
from pathlib import Path

import duckdb
import fake_check
import planted_claims as planted
import pytest

from profiler.circuits import yaml_files
from profiler.database import macros, query
from profiler.errors import RunError
from profiler.generality import store
from profiler.generality.evidence.verdict import judge

RELATIONS = {*store.TABLES, "latest_check", "ledger", "predictions", "prediction_entries"}
NAMES = [name for name in query.names() if set(query.header(name).reads) & RELATIONS]


def test_there_is_a_query_for_each_table() -> None:
    read = {relation for name in NAMES for relation in query.header(name).reads}
    behind = {"check_findings", "check_ledger", "prediction_log", "prediction_head", "first_measured"}
    assert set(store.TABLES) - read == behind


@pytest.mark.parametrize("name", NAMES)
def test_every_query_has_rows_and_its_key(checked_run: Path, name: str) -> None:
    frame = query.run(checked_run, name, **({"check_id": "narrow"} if name == "settle" else {}))
    key = list(query.header(name).key)
    assert len(frame) > 0 or name in ("settle", "published_numbers")
    assert frame.select(key).is_duplicated().sum() == 0
    assert frame.select(key).null_count().sum_horizontal().item() == 0
    assert frame.equals(query.run(checked_run, name, **({"check_id": "narrow"} if name == "settle" else {})))


@pytest.mark.parametrize("name", NAMES)
def test_every_query_declares_what_it_reads_and_its_parameters(checked_run: Path, name: str) -> None:
    text = "\n".join(line.split("--")[0] for line in query.sql_text(name).splitlines())
    called = "\n".join(macros.definitions()[macro] for macro in macros.called_in(text))
    words = set(re.findall(r"(?:FROM|JOIN)\s+(\w+)", text + called))
    assert words & {*RELATIONS, "contexts"} == set(query.header(name).reads)
    declared = {p.name for p in query.header(name).parameters}
    assert (
        declared
        == set(re.findall(r"SET VARIABLE (\w+) = coalesce", text))
        == set(re.findall(r"getvariable\('(\w+)'\)", text))
    )
    assert all(len(line) <= 220 for line in query.sql_text(name).splitlines())
    if "check_id" in declared:
        assert len(query.run(checked_run, name, check_id="no such")) == 0
    with duckdb.connect(str(checked_run), read_only=True, config=query.CLOSED) as shell:
        assert [column[0] for column in shell.execute(query.sql_text(name)).description] == query.run(
            checked_run, name
        ).columns


def test_every_table_and_column_is_explained(checked_run: Path) -> None:
    text = (
        "SELECT table_name, column_name FROM duckdb_columns() WHERE table_name IN (SELECT unnest($1)) AND comment IS"
        " NULL"
    )
    with duckdb.connect(str(checked_run), read_only=True) as shell:
        assert shell.execute(text, [list(store.TABLES)]).fetchall() == []
        commented = shell.execute("SELECT table_name FROM duckdb_tables() WHERE comment IS NOT NULL").fetchall()
        views = shell.execute("SELECT view_name FROM duckdb_views() WHERE comment IS NOT NULL").fetchall()
    assert set(store.TABLES) <= {row[0] for row in commented}
    assert {"latest_check", "ledger", "predictions", "prediction_entries"} <= {row[0] for row in views}


def test_findings_come_back_as_they_were(checked_run: Path) -> None:
    found = fake_check.findings(planted.generalises, "planted", fake_check.MEMBERS)
    back = query.run(checked_run, "ledger").sort("finding")
    assert len(back) == len(found)
    for one, got in zip(found, back.to_dicts(), strict=True):
        assert [
            got[name]
            for name in (
                "subject",
                "role",
                "technique",
                "distribution",
                "statistic",
                "value",
                "n",
                "unit",
                "null_hi",
                "refused",
            )
        ] == [
            getattr(one, name)
            for name in (
                "subject",
                "role",
                "technique",
                "distribution",
                "statistic",
                "value",
                "n",
                "unit",
                "null_hi",
                "refused",
            )
        ]
        assert (got["null_mean"], got["value_lo"], got["value_hi"]) == (one.null, one.lo, one.hi)
        assert (got["granularity"], got["ablation"], got["pair_set"]) == (
            one.choices.granularity,
            one.choices.ablation,
            one.choices.set,
        )


def test_the_stored_ledger_is_the_verdicts(checked_run: Path) -> None:
    found = fake_check.findings(planted.generalises, "planted", fake_check.MEMBERS)
    verdict = judge(found, [distribution.name for distribution in fake_check.DISTRIBUTIONS])
    back = query.run(checked_run, "ledger").sort("finding")
    assert back["speaks"].to_list() == [line.speaks for line in verdict.ledger]
    assert back["weight"].to_list() == pytest.approx([line.weight for line in verdict.ledger])
    checks = query.run(checked_run, "checks")
    assert checks["word"].to_list() == ["generalises", "narrows"]
    assert checks["sentence"][0] == verdict.sentence
    assert checks["latest"].to_list() == [True, False]
    assert checks["weight_for"][0] == pytest.approx(sum(line.weight for line in verdict.ledger if line.speaks == "for"))
    assert yaml_files.circuit_of(json.loads(json.dumps(_yaml(checked_run))), "stored") == fake_check.circuit(
        "planted", fake_check.MEMBERS
    )


def _yaml(checked: Path) -> dict:
    import yaml

    with duckdb.connect(str(checked), read_only=True) as shell:
        return yaml.safe_load(shell.execute("SELECT yaml FROM checks WHERE check_id = 'planted'").fetchall()[0][0])


def test_the_distributions_stands_beside_its_findings(checked_run: Path) -> None:
    distributions = query.run(checked_run, "distributions")
    assert distributions["distribution"].to_list() == [distribution.name for distribution in fake_check.DISTRIBUTIONS]
    found = {
        f.distribution: f
        for f in fake_check.findings(planted.generalises, "planted", fake_check.MEMBERS)
        if f.technique == "faithfulness"
    }
    for row in distributions.to_dicts():
        one = found.get(row["distribution"])
        assert row["faithfulness"] == (one and one.value)
        if one is not None and one.value is not None:
            assert row["gap"] == pytest.approx(one.value - found["discovery"].value)
    assert distributions["refused"][-1] == "3 prompts; 20 are needed"
    assert distributions["necessity"].to_list()[:2] == [0.8, 0.7]
    overlap = dict(distributions.select("distribution", "overlap").rows())
    assert (overlap["discovery"], overlap["names"]) == (1.0, 0.25)


def test_the_plane_is_recomputed_from_the_findings(checked_run: Path) -> None:
    found = fake_check.findings(planted.generalises, "planted", fake_check.MEMBERS)
    rows = query.run(checked_run, "generality_plane").to_dicts()
    plane = {row["subject"]: row for row in rows if row["kind"] != "general form"}
    assert [row["role"] for row in rows if row["kind"] == "general form"] == ["S-inhibition"]
    faithful = {f.distribution: f.value for f in found if f.technique == "faithfulness" and f.value is not None}
    closeness = [1 - abs(1 - value) for distribution, value in faithful.items() if distribution != "discovery"]
    expected = sum(closeness) / len(closeness) / (1 - abs(1 - faithful["discovery"]))
    assert plane["planted"]["generality"] == pytest.approx(min(1, expected))
    assert plane["planted"]["completeness"] == pytest.approx(0.75)
    covered = [f.value for f in found if f.technique == "coverage" and f.subject == "L1H0"]
    assert plane["L1H0"]["generality"] == pytest.approx(min(covered))
    assert (plane["L0H1"]["completeness"], plane["L0H1"]["completeness_by"]) == (0.75, "replacement")
    assert plane["L1H0"]["completeness_by"] == "coverage"


def test_a_counter_example_that_is_in_no_run_is_cut_at_its_marks(checked_run: Path) -> None:
    row = query.run(checked_run, "counter_examples").filter(kind="silent").row(0, named=True)
    assert row["context_before"] == "before " + fake_check.NASTY[:12]
    assert row["context_after"].endswith(" after")
    known = query.run(checked_run, "counter_examples").filter(kind="stray").row(0, named=True)
    assert known["context_token"] is not None
    assert known["position_id"] is not None


def test_overlap_of_discovery_and_test_is_found(checked_run: Path) -> None:
    shared = {row["distribution"]: row for row in query.run(checked_run, "distribution_overlap").to_dicts()}
    assert (shared["names"]["n"], shared["names"]["shared"], shared["names"]["overlap"]) == (4, 1, 0.25)
    assert shared["discovery"]["overlap"] == 1


def test_writing_again_replaces_and_an_error_leaves_everything(checked: Path) -> None:
    before = {table: fake_check.rows(checked, f"SELECT count(*) FROM {table}") for table in store.OF_CHECK}
    fake_check.write(checked, seed=3)  # another seed, as many rows
    assert {table: fake_check.rows(checked, f"SELECT count(*) FROM {table}") for table in store.OF_CHECK} == before
    assert fake_check.rows(checked, "SELECT settings FROM checks WHERE check_id = 'planted'") == [('{"seed": 3}',)]
    found = fake_check.findings(planted.generalises, "planted", fake_check.MEMBERS)
    verdict = judge(found, [distribution.name for distribution in fake_check.DISTRIBUTIONS])
    given = {
        "circuit": fake_check.circuit("planted", fake_check.MEMBERS),
        "distributions": fake_check.DISTRIBUTIONS,
        "verdict": verdict,
    }
    with pytest.raises(ValueError, match="rows of int have no table"):
        store.write(checked, "planted", findings=found, details=[3], **given)
    with pytest.raises(ValueError, match="of other findings"):
        store.write(checked, "planted", findings=found[:3], **given)
    wrong = fake_check.row("Edit", component="L0H1", no_such_column=1)
    with pytest.raises(duckdb.Error):
        store.write(checked, "planted", findings=found, details=[wrong], **given)
    assert fake_check.rows(checked, "SELECT settings FROM checks WHERE check_id = 'planted'") == [('{"seed": 3}',)]


def test_a_file_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no file"):
        store.register(tmp_path / "none.duckdb", fake_check.PREDICTIONS)
    assert not (tmp_path / "none.duckdb").exists()
