"""The macros that queries share: defined once, the same in a run of any version, and not to be replaced by a file."""

import re
import shutil
from pathlib import Path

import duckdb
import fake_run
import pytest
from polars.testing import assert_frame_equal

from profiler.behaviours import additions
from profiler.database import assets, macros, query

CALLED = {"behaviours", "component_rank", "head_effects", "mixture"}
"""Queries whose answers rest on macros of most kinds."""


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> fake_run.FakeRun:
    return fake_run.build(tmp_path_factory.mktemp("fake") / "fake.duckdb")


@pytest.fixture
def older(fake: fake_run.FakeRun, tmp_path: Path) -> Path:
    """The run as if an earlier version had written it: one macro is missing, another is wrong."""
    path = Path(shutil.copy(fake.path, tmp_path / "older.duckdb"))
    with duckdb.connect(str(path)) as connection:
        connection.execute("DROP MACRO weighted_importance")
        connection.execute("CREATE OR REPLACE MACRO share_lo(p, se, t, n) AS 0.123")
    return path


def answers(path: Path) -> list:
    return [query.run(path, name, component="L1H1") for name in sorted(CALLED)]


def test_every_macro_is_found_and_follows_those_that_it_calls() -> None:
    seen: set[str] = set()
    for name, text in macros.definitions().items():
        assert set(macros.called_in(text)) - {name} <= seen
        seen.add(name)
    files = "".join(path.read_text(encoding="utf-8") for path in assets.PACKAGE.rglob("*.sql"))
    assert len(re.findall(r"^CREATE MACRO", files, re.MULTILINE)) == len(seen) >= 30


def test_a_text_gets_what_it_calls_and_no_more() -> None:
    assert macros.called_in("SELECT spell(tokens, ids), 'x' -- t975(3)") == [
        "is_bytes",
        "digits_of",
        "characters",
        "character_of",
        "join_texts",
        "spell",
    ]
    assert macros.temporary("SELECT count(*) FROM runs") == ""


@pytest.mark.slow
def test_an_older_run_gives_the_same_answers(fake: fake_run.FakeRun, older: Path) -> None:
    for new, old in zip(answers(fake.path), answers(older), strict=True):
        assert_frame_equal(new, old, check_exact=True)


def test_refresh_writes_the_macros_of_this_version_for_shells(fake: fake_run.FakeRun, older: Path) -> None:
    text = "SELECT weighted_importance(2, -3::FLOAT), share_lo(0.5, 0.1, 2, 9)"
    with duckdb.connect(str(older), read_only=True) as shell, pytest.raises(duckdb.CatalogException):
        shell.execute(text)
    additions.refresh(older)
    with duckdb.connect(str(older), read_only=True) as shell:
        assert shell.execute(text).fetchall() == [query.run(fake.path, text).row(0)]


def test_an_interval_needs_a_standard_error(fake: fake_run.FakeRun) -> None:
    text = (
        "SELECT share_lo(p, NULL, 2, 9) AS lo, share_hi(p, NULL, 2, 9) AS hi FROM (VALUES (0), (0.5), (1)) AS shares(p)"
    )
    assert query.run(fake.path, text).null_count().row(0) == (3, 3)


def test_a_query_that_needs_patching_names_the_command(fake: fake_run.FakeRun) -> None:
    with pytest.raises(query.QueryError, match=r"profiler patch .* ioi"):
        query.run(fake.path, "circuit_curve")
