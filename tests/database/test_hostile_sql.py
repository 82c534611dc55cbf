"""SQL from anyone, and values for it: it can only read the run, a value never becomes SQL, and any result can be
shown."""

import io
import json
from contextlib import suppress

import polars as pl
import pytest
from fuzzing import EVIL, examples
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from profiler.cli import app
from profiler.cli.terminal.output import to_bytes
from profiler.database import query
from profiler.errors import ProfilerError

# --- what a query gives
# ------------------------------------------------------------------------------------------------

ODD = {
    "INTERVAL 1 MONTH": "1 month",
    "'101'::BIT": "101",
    r"'\xAA'::BLOB": r"\xAA",
    "union_value(a := 1)": "1",
    "DATE '290000-01-01'": "290000-01-01",
    "'infinity'::TIMESTAMP": "infinity",
    "{'a': INTERVAL 1 DAY}": "{'a': 1 day}",
    r"['\xAA'::BLOB]": r"['\\xAA']",
    "123::BIGNUM": "123",
    "[DATE '2020-01-02']": "[2020-01-02]",
    "TIME '10:00:00'": "10:00:00",
    "MAP {'a': DATE '2020-01-02'}": "{a=2020-01-02}",
    "'1'::VARIANT": "1",
}
PLAIN = {
    "1": 1,
    "'x'": "x",
    "[1, 2]": [1, 2],
    "{'a': [1.5::DOUBLE]}": {"a": [1.5]},
    "NULL": None,
    "'a'::ENUM('a')": "a",
}


@pytest.mark.parametrize("expression", ODD)
def test_what_no_frame_holds_comes_as_text(expression, run_path):
    frame = query.run(run_path, f'SELECT {expression} AS "a ""b""", 1 AS n')
    assert frame.to_dicts() == [{'a "b"': ODD[expression], "n": 1}]


@pytest.mark.parametrize("expression", PLAIN)
def test_numbers_text_and_lists_of_them_come_as_they_are(expression, run_path):
    assert query.run(run_path, f"SELECT {expression} AS x")["x"].to_list() == [PLAIN[expression]]


@pytest.mark.parametrize("format", ["table", "csv", "json", "parquet"])
def test_any_result_is_written_in_any_format(format, run_path):
    columns = [*ODD, *PLAIN, "[1.5::DECIMAL(5, 2)]", "1::UHUGEINT", "'nan'::DOUBLE", "[NULL]", "chr(27) || '[31m'"]
    frame = query.run(run_path, f"SELECT {', '.join(f'{c} AS c{i}' for i, c in enumerate(columns))}")
    data = to_bytes(frame, format)
    if format == "parquet":
        assert pl.read_parquet(io.BytesIO(data)).equals(frame, null_equal=True)
    elif format == "json":
        assert json.loads(data)[0]["c0"] == "1 month"
    else:
        assert b"1 month" in data and b"290000-01-01" in data
        assert format != "table" or b"\x1b" not in data


# --- values
# ------------------------------------------------------------------------------------------------------------

NUMBERS = (
    "9" * 400,
    "9" * 5000,
    "1e999",
    "-1e999",
    "nan",
    "inf",
    "-1",
    "0",
    "1_0",
    "٣",
    " 2 ",
    "0x10",
    "1.5",
    "",
    "-0",
    "1e3",
)


@pytest.mark.parametrize("name", ["component_overview", "extremes", "quantile_samples", "spectrum_by_class"])
def test_any_number_is_used_or_refused(name, run_path):
    """As `--set` gives it, for each of a query's parameters: one sentence where it cannot be used, the same columns
    where it can."""
    text, required = query.sql_text(name), {} if name == "component_overview" else {"component": "L0H0"}
    with query.open_run(run_path) as run:
        columns = query.run_text(run, text, required).columns
        for parameter in query.declared_parameters(text):
            for value in NUMBERS:
                with suppress(ProfilerError):
                    assert query.run_text(run, text, required | {parameter.name: value}).columns == columns


@examples(6)
@given(
    value=EVIL,
    name=st.sampled_from(["kind", "top", "x", " kind "]),
    form=st.sampled_from(["{0}={1}", "{1}={0}", "{0}{1}"]),
)
def test_any_setting_is_used_or_refused(value, name, form, run_path):
    """`--set` on the command line: the query's own columns, or one sentence."""
    text = form.replace("{0}", name).replace("{1}", value)
    command = ["query", str(run_path), "component_overview", "--format", "csv", f"--set={text}"]
    done = CliRunner().invoke(app, command)
    if done.exit_code:
        assert isinstance(done.exception, ProfilerError), done.exception
    else:
        assert done.stdout.startswith("component,")
