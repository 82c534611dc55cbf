"""Cards made from what was taken out of a run for many components are the cards made from the run, byte by byte."""

import shutil
from pathlib import Path

import duckdb
import pytest

from profiler.database import query
from profiler.errors import RunError
from profiler.pages import build, page
from profiler.pages.reader import Reader
from profiler.pages.shell import Shell
from profiler.pages.site.extract import Extract

LABELS = ("L0H0", "L1H1", "L0N1", "L1N2", "embed")


def card(connection: duckdb.DuckDBPyConnection, label: str) -> str:
    """The page of a component's card in a site."""
    module = build.load("component")
    with page.unchecked():
        return page.render(module.build(Reader(connection), build.find(connection, label)), Shell(root="../"))


@pytest.mark.slow
def test_cards_in_bulk_are_the_cards_one_by_one(fake, run_path):
    for run in (fake.path, run_path):
        extract = Extract(run)
        with query.open_run(run) as connection:
            for chunk in (LABELS[:2], LABELS[2:], LABELS):
                extract.hold(chunk)
                for label in chunk:
                    assert card(extract.connection, label) == card(connection, label), label
        extract.close()


def test_it_holds_the_rows_of_its_components_alone(fake):
    extract = Extract(fake.path)
    for chunk in (LABELS[:2], LABELS[2:3]):
        extract.hold(chunk)
        for name in ("samples", "component_facts", "extremes"):
            found = extract.connection.execute(f"SELECT DISTINCT component FROM {name}").fetchall()
            assert {label for (label,) in found} == set(chunk), name
    assert len(extract.connection.execute("SELECT * FROM importance").fetchall()) > len(LABELS)
    extract.close()


def test_it_is_as_closed_as_the_run(fake, tmp_path):
    extract = Extract(fake.path)
    for statement in (f"COPY (SELECT 1) TO '{tmp_path / 'x'}'", "SELECT * FROM read_text('/etc/hostname')"):
        with pytest.raises(duckdb.Error, match=r"disabled|Permission"):
            extract.connection.execute(statement)
    with pytest.raises(duckdb.Error, match="read-only"):
        extract.connection.execute("CREATE TABLE run.evil (x INTEGER)")
    extract.close()


def test_a_run_that_replaces_functions_is_refused(fake, tmp_path):
    run = Path(shutil.copy(fake.path, tmp_path / "run.duckdb"))
    with duckdb.connect(str(run)) as connection:
        connection.execute("CREATE MACRO abs(x) AS 0")
    with pytest.raises(RunError, match="a macro of its own"):
        Extract(run)
