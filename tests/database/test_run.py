"""`profiler.open`: polars frames and charts of a run, in agreement with the views."""

from collections.abc import Iterator

import brute
import fake_run
import polars as pl
import pytest

import profiler
from profiler.errors import ComponentError, QueryError, RunError
from profiler.reading import SPECTRUM_CHARTS
from profiler.run import Run


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> fake_run.FakeRun:
    return fake_run.build(tmp_path_factory.mktemp("fake") / "fake.duckdb")


@pytest.fixture(scope="module")
def run(fake: fake_run.FakeRun) -> Iterator[Run]:
    with profiler.open(str(fake.path)) as opened:
        yield opened


def test_info_and_components(fake: fake_run.FakeRun, run: Run) -> None:
    assert run.info == fake.tables["runs"].row(0, named=True)
    assert run.components().equals(fake.components)


def test_frames_of_a_component(fake: fake_run.FakeRun, run: Run) -> None:
    brute.agree(run.moments("L0N1"), brute.moments(fake, "L0N1"))
    assert len(run.extremes("L0N1")) == 40
    spectrum = run.spectrum("L0N1")
    assert spectrum.frame.equals(run.query("spectrum_by_class", component="L0N1"))
    assert run.density("L0N1").frame["n"].sum() == fake.ordinary.sum()
    for frame in (run.moments("L0N1"), run.samples("L0N1"), run.sql("SELECT 1 AS a")):
        assert isinstance(frame, pl.DataFrame)


def test_samples_of_a_quantile(fake: fake_run.FakeRun, run: Run) -> None:
    everything = run.samples("L1H0")
    one = run.samples("L1H0", quantile=0.9)
    stratum = fake.tables["quantiles"].filter(
        (pl.col("component_id") == fake.row("L1H0")) & (pl.col("quantile") == 0.9)
    )
    assert set(one["stratum"]) == set(stratum["bin"])
    assert 0 < len(one) < len(everything)
    assert everything["quantile"].null_count() > 0
    with pytest.raises(QueryError, match=r"0\.9, 0\.95"):
        run.samples("L1H0", quantile=0.91)


def test_sql_takes_parameters_as_values(run: Run) -> None:
    text = "SELECT count(*) AS n FROM samples WHERE component = getvariable('c') AND quantile = getvariable('q')"
    assert run.sql(text, c="L1H0", q=0.9).item() == len(run.samples("L1H0", 0.9))


@pytest.mark.parametrize("name", SPECTRUM_CHARTS)
def test_charts(run: Run, name: str) -> None:
    spec = run.spectrum("L0N1").chart(name).to_dict()
    assert spec["$schema"].startswith("https://vega.github.io/schema/vega-lite")
    assert run.spectrum("L0N1").chart().to_dict() == run.spectrum("L0N1").chart(SPECTRUM_CHARTS[0]).to_dict()


def test_density_chart_and_a_chart_that_is_not_there(run: Run) -> None:
    assert run.density("L1H0").chart().to_dict()["$schema"]
    with pytest.raises(QueryError, match="choose density"):
        run.density("L1H0").chart("pie")


def test_a_run_closes(fake: fake_run.FakeRun) -> None:
    with profiler.open(fake.path) as run:
        assert run.query("drops").height
    with pytest.raises(RunError, match="closed"):
        run.query("drops")
    with profiler.open(fake.path) as one, profiler.open(fake.path) as two:
        assert one.query("drops").equals(two.query("drops"))


@pytest.mark.parametrize("method", ["moments", "spectrum", "density", "samples", "extremes"])
def test_an_unknown_component_is_named(run: Run, method: str) -> None:
    with pytest.raises(ComponentError, match=r"L0N99.*The nearest is L0N5"):
        getattr(run, method)("L0N99")
