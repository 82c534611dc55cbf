"""Ctrl-C and SIGTERM at any moment: one sentence that is true, and nothing of the process left behind."""

import signal
from pathlib import Path

import pytest
from tiny import names

from profiler.behaviours import views
from profiler.cli.record import stoppable
from profiler.config import RunConfig
from profiler.database import query
from profiler.database.pass_commits import Partial, describe, partial_path
from profiler.errors import Stopped
from profiler.model.load import load_model
from profiler.recording.pipeline import record
from profiler.recording.write import Store

SIGNALS = pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])


@pytest.fixture(scope="module")
def small(base_config: RunConfig) -> RunConfig:
    return base_config.model_copy(update={"tokens": 300, "dense_positions": 10, "components": ()})


@pytest.fixture(scope="module")
def model(small):
    return load_model(small)


def stopped(config: RunConfig, path: Path, model, **how) -> Stopped:
    """What the command line says of a pass that is stopped."""
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Stopped) as caught, stoppable(path):
        record(config, path, model=model, **how)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert "\n" not in str(caught.value) and "being written by" not in str(caught.value)
    return caught.value


@SIGNALS
@pytest.mark.parametrize("library", [RuntimeError("Query interrupted"), OSError("EINTR"), SystemError("error return")])
def test_whatever_error_a_library_makes_of_it(library, number, code, small, model, tmp_path, monkeypatch):
    """DuckDB, interrupted in the midst of its work, makes a RuntimeError of it."""

    def interrupted(*_: object) -> None:
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            raise library from None

    monkeypatch.setattr(Store, "insert", interrupted)
    assert stopped(small, tmp_path / "run.duckdb", model).exit_code == code


def test_an_error_without_a_signal_is_the_error(tmp_path):
    with pytest.raises(ZeroDivisionError), stoppable(tmp_path / "run.duckdb"):
        raise ZeroDivisionError


@SIGNALS
def test_again_while_the_first_is_put_in_order(number, code, small, model, tmp_path, monkeypatch):
    """A second and a third, before the folder is given back: it is given back all the same."""
    path, close = tmp_path / "run.duckdb", Partial.close

    def closing(self: Partial) -> None:
        signal.raise_signal(number)
        signal.raise_signal(signal.SIGINT)
        close(self)

    monkeypatch.setattr(Partial, "close", closing)
    said = stopped(small, path, model, report=at_the_end(number))
    assert said.exit_code == code
    assert "--resume" in str(said)
    assert [name for name in names(partial_path(path)) if name.startswith("run.duckdb")] == []
    monkeypatch.setattr(Partial, "close", close)
    record(small, path, model=model, resume=True)
    assert names(tmp_path) == ["run.duckdb"]


def at_the_end(number: signal.Signals):
    def report(progress) -> None:
        if progress.stage == "writing":
            signal.raise_signal(number)

    return report


def test_a_signal_while_a_finished_pass_is_put_in_order_is_not_lost(small, model, tmp_path, monkeypatch):
    close = Partial.close

    def closing(self: Partial) -> None:
        signal.raise_signal(signal.SIGINT)
        close(self)

    monkeypatch.setattr(Partial, "close", closing)
    with pytest.raises(KeyboardInterrupt):
        record(small, tmp_path / "run.duckdb", model=model)
    assert names(tmp_path) == ["run.duckdb"]


def test_the_folder_of_a_process_that_is_ending_is_nobodys(small, model, tmp_path):
    """Where even that came to nothing and the lock is still held."""
    path = tmp_path / "run.duckdb"
    stopped(small, path, model, report=at_the_end(signal.SIGINT))
    holder = Partial(path)
    assert "is being written by process" in describe(path)
    assert describe(path, ending=True).startswith("the last commit")
    holder.close()


@SIGNALS
def test_while_what_is_derived_is_made(number, code, small, model, tmp_path, monkeypatch):
    path = tmp_path / "run.duckdb"
    with monkeypatch.context() as patched:
        patched.setattr(views, "refresh", lambda _: signal.raise_signal(number))
        said = stopped(small, path, model)
    assert f"{path} is whole; `profiler behaviours refresh {path}`" in str(said)
    assert names(tmp_path) == ["run.duckdb"]
    assert query.run(path, "component_overview").height
    record(small, path, model=model, resume=True)
    assert query.run(path, "behaviours", component="L0H0").height


@pytest.mark.slow
def test_before_anything_is_committed(small, model, tmp_path, monkeypatch):
    """Also where the run of an earlier pass is there to be replaced."""
    path = tmp_path / "run.duckdb"
    record(small, path, model=model)
    monkeypatch.setattr("profiler.recording.pipeline.Pass.read", lambda *_: signal.raise_signal(signal.SIGTERM))
    assert "nothing was committed yet" in str(stopped(small, path, model, overwrite=True))
    assert names(tmp_path) == ["run.duckdb"]
