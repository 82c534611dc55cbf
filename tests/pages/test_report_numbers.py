"""Every number of a page can be had from one file of queries/: each block is walked, its query run again, its numbers
looked up."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_check
import fake_run
import patch_models
import polars as pl
import pytest

from profiler.circuits import experiment
from profiler.database import query
from profiler.model.components import ComponentId
from profiler.pages import build, numbers, reader
from profiler.pages.blocks import Block, Chart, Examples, Source, Spectrum, Table
from profiler.patching.setting import PatchSettings

NUMBER = re.compile(r"[−+]?\d[\d,]*\.?\d*(?:×10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)?")
PAGES = ["overview", "behaviours", "circuit", "generality", "component L0H1", "component L1N2"]


@pytest.fixture(scope="module")
def runs(fake: fake_run.FakeRun, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By report: a run that has what it shows."""
    folder = tmp_path_factory.mktemp("numbers")
    circuit = folder / "circuit.duckdb"
    settings = PatchSettings("repeated-tokens", pairs=8, neurons=6, top=2, steps=2, draws=5, by_role=False)
    experiment.patch(patch_models.loaded("neox_sequential"), settings, circuit, lambda _stage: None)
    return {"circuit": circuit, "generality": fake_check.build(folder / "check.duckdb")} | dict.fromkeys(
        ("overview", "behaviours", "component"), fake.path
    )


def blocks(runs: dict[str, Path], page: str) -> list[Block]:
    name, *label = page.split()
    with query.open_run(runs[name]) as connection:
        options = [build.find(connection, label[0])] if label else []
        assert not options or isinstance(options[0], ComponentId)
        made = build.load(name).build(build.Reader(connection), *options)
    return [block for section in made.sections for block in section.blocks]


def sources(block: Block) -> Iterator[Source]:
    if isinstance(block, Chart | Table | Examples | Spectrum):
        yield block.source
    if isinstance(block, Spectrum):
        yield block.drawn


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_every_block_names_a_file_that_runs_by_itself(runs: dict[str, Path], page: str) -> None:
    """Its text is the file's, behind lines that set parameters, and needs nothing else to give rows."""
    found = [source for block in blocks(runs, page) for source in sources(block)]
    assert len(found) >= 3
    with query.open_run(runs[page.split()[0]]) as connection:
        for source in set(found):
            assert source.name in query.names()
            assert source.sql == source.settings + query.sql_text(source.name)
            assert all(line.startswith("SET VARIABLE ") for line in source.settings.splitlines())
            assert len(query.run(connection, source.sql).columns) > 1


def written(frame: pl.DataFrame) -> set[str]:
    """Every number of an answer as a page may write it: as a number or a per cent, intervals and their halves too.

    Whole numbers may stand as shares of their column.
    """
    found = set()
    for name in (n for n in frame.columns if frame[n].dtype.is_integer() and frame[n].sum()):
        found |= {numbers.number(100 * float(v / frame[name].sum()), 2) for v in frame[name] if v is not None}
    for row in frame.to_dicts():
        values = [v for v in row.values() if isinstance(v, int | float) and not isinstance(v, bool)]
        values += [v for value in row.values() if isinstance(value, list) for v in value if isinstance(v, int | float)]
        halves = [
            (row[n] - row[n.removesuffix("_hi") + "_lo"]) / 2
            for n in row
            if n.endswith("_hi") and None not in (row[n], row.get(n.removesuffix("_hi") + "_lo"))
        ]
        for value in [*values, *halves]:
            exact = float(value)
            found |= {numbers.number(exact), numbers.number(exact, 2), numbers.number(100 * exact, 2), f"{value:,}"}
        found |= set(NUMBER.findall(" ".join(str(v) for v in row.values() if isinstance(v, str))))
    return {text.lstrip("+−") for text in found}


def shown(table: Table) -> set[str]:
    texts = [str(cell.text) for row in table.rows for cell in row if cell.numeric]
    cleaned = " ".join(re.sub(r"<[^>]+>", " ", text) for text in texts).replace(numbers.BLANK, " ")
    return {text.lstrip("+−") for text in NUMBER.findall(cleaned.replace("–", " "))}


@pytest.mark.parametrize("page", PAGES)
def test_every_number_of_a_table_is_in_the_answer_of_its_query(runs: dict[str, Path], page: str) -> None:
    tables = [block for block in blocks(runs, page) if isinstance(block, Table)]
    with query.open_run(runs[page.split()[0]]) as connection:
        lost: dict[str, Any] = {}
        for table in tables:
            missing = shown(table) - written(query.run(connection, table.source.sql)) - {"0", "0.001"}
            if missing:
                lost[f"{table.title} ({table.source.name})"] = sorted(missing)[:6]
    assert tables
    assert lost == {}


class Listening(build.Reader):
    """A reader that keeps every frame it gave."""

    def __call__(self, name: str, **parameters: Any) -> reader.Result:
        result = super().__call__(name, **parameters)
        self.frames = {**getattr(self, "frames", {}), result.source: result.frame}
        return result


def counted(frame: pl.DataFrame) -> set[str]:
    """How many rows an answer has, in all and of each kind that a column of words or truths names."""
    kinds = [name for name in frame.columns if frame[name].dtype in (pl.String, pl.Boolean)]
    sizes = {len(frame), *(n for name in kinds for n in frame[name].value_counts()["count"])}
    present = {frame[name].drop_nulls().len() for name in frame.columns}
    return {f"{n:,}" for n in sizes | present}


@pytest.mark.parametrize("page", ["circuit", "generality"])
def test_every_number_of_a_sentence_is_in_an_answer_or_counts_its_rows(runs: dict[str, Path], page: str) -> None:
    """Of the sentences that the page begins with, and those under its headings; the level of intervals, 95 %, apart."""
    with query.open_run(runs[page]) as connection:
        read = Listening(connection)
        made = build.load(page).build(read)
    said = " ".join((*made.answer, *(section.text for section in made.sections))).replace(numbers.BLANK, " ")
    told = {text.lstrip("+−").rstrip(",") for text in re.findall(rf"(?<![\w.])(?:{NUMBER.pattern})", said)}
    known = {text for frame in read.frames.values() for text in written(frame) | counted(frame)}
    assert len(told) > 8
    assert told - known - {"95", "100"} == set()


def _drawn(chart: Any) -> Iterator[float]:
    for rows in chart.to_dict()["datasets"].values():
        yield from (v for row in rows for v in row.values() if isinstance(v, float))


def test_what_charts_of_circuits_draw_is_what_their_queries_say(runs: dict[str, Path]) -> None:
    """Of charts whose marks are numbers of the answer; the drawing of the circuit has places of its own."""
    with query.open_run(runs["circuit"]) as connection:
        charts = [b for b in blocks(runs, "circuit") if isinstance(b, Chart)]
        for chart in charts:
            if chart.title == "The circuit" or chart.title.startswith("Random circuits"):
                continue
            frame = query.run(connection, chart.source.sql)
            known = {round(abs(v), 9) for row in frame.rows() for v in row if isinstance(v, float)} | {0.0, 0.1, 1.0}
            known |= {round(frame[name].abs().max() or 0, 9) for name in frame.columns if frame[name].dtype.is_float()}
            assert {round(abs(v), 9) for v in _drawn(chart.chart)} <= known, chart.title
    assert len(charts) >= 5
