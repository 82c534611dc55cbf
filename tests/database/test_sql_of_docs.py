"""The SQL that the pages of docs/ show runs on a run."""

import re
from pathlib import Path

import pytest

import profiler

PAGE = Path(__file__).parents[2] / "docs" / "from_sql.md"
BLOCKS = "\n".join(re.findall(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL))
STATEMENTS = [text.strip() for text in BLOCKS.split(";") if text.strip()]


@pytest.mark.parametrize("number", range(len(STATEMENTS)))
def test_a_statement_runs(unchecked_run, number):
    text = STATEMENTS[number].replace("L2N117", "L0N1").replace("L1N986", "L1N2").replace("L2H1", "L0H1")
    with profiler.open(unchecked_run) as run:
        assert not run.sql(text.replace("L2N%", "L1N%")).is_empty()


def test_there_are_statements_and_views_that_exist(unchecked_run):
    assert len(STATEMENTS) >= 5
    named = re.findall(r"^\| `(\w+)`", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    with profiler.open(unchecked_run) as run:
        known = set(run.sql("SELECT table_name FROM duckdb_columns()")["table_name"])
    assert {*named} <= known
