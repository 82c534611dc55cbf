"""Fixtures shared by the tests: no network, tiny models, a small corpus, a run made by the real pipeline."""

import os
import shutil
import socket
from collections.abc import Iterator
from functools import wraps
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"


import duckdb
import fake_check
import fake_run
import hypothesis
import passes
import pytest
import tiny
import torch

from profiler.config import RunConfig
from profiler.recording.pipeline import record

torch.set_num_threads(1)
hypothesis.settings.register_profile("patient", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("patient")
SHARED = Path(__file__).parents[2] / "shared"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the monthly tests of files that are slow as a whole, unless they are asked for."""
    if "monthly" not in config.option.markexpr:
        left_out = [item for item in items if item.get_closest_marker("monthly")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection that leaves the machine."""

    def refuse(self: socket.socket, address: object) -> None:
        if self.family != socket.AF_UNIX and not str(address).startswith(("('127.", "('::1'")):
            raise AssertionError(f"a test opened a connection to {address}")
        original(self, address)

    original = socket.socket.connect
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="session")
def model_dirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model directory per architecture."""
    return {name: tiny.save(name, tmp_path_factory.mktemp(name)) for name in tiny.ARCHITECTURES}


@pytest.fixture(scope="session")
def corpus_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small .jsonl."""
    return tiny.write_corpus(tmp_path_factory.mktemp("corpus") / "corpus.jsonl")


@pytest.fixture(scope="session")
def base_config(model_dirs: dict[str, Path], corpus_file: Path) -> RunConfig:
    """Small settings on the GPT-2-like model."""
    return RunConfig(
        model=str(model_dirs["gpt2"]),
        corpora=(str(corpus_file),),
        tokens=None,
        domain_field="topic",
        batch_size=4,
        dense_positions=60,
        samples_per_stratum=3,
        extremes=4,
        replicate_groups=4,
        components=("L1H1", "L0N3"),
        dtype="float64",
    )


@pytest.fixture(scope="session")
def run_path(base_config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of `base_config`."""
    path = tmp_path_factory.mktemp("run") / "run.duckdb"
    record(base_config, path)
    return path


@pytest.fixture
def run_db(run_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """The run, opened read-only."""
    with duckdb.connect(str(run_path), read_only=True) as connection:
        yield connection


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus of `passes`."""
    return passes.write_rows(tmp_path_factory.mktemp("pipeline") / "rows.jsonl", passes.corpus_rows())


@pytest.fixture(scope="session")
def checked_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checks in it; not to be changed."""
    return fake_check.build(tmp_path_factory.mktemp("checked") / "run.duckdb")


@pytest.fixture(scope="session")
def unchecked_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without checks; not to be changed."""
    path = tmp_path_factory.mktemp("unchecked") / "run.duckdb"
    fake_run.build(path)
    return path


@pytest.fixture
def checked(checked_run: Path, tmp_path: Path) -> Path:
    """A run with checks, to change."""
    return Path(shutil.copy(checked_run, tmp_path / "run.duckdb"))


@pytest.fixture
def unchecked(unchecked_run: Path, tmp_path: Path) -> Path:
    """A run without checks, to change."""
    return Path(shutil.copy(unchecked_run, tmp_path / "empty.duckdb"))


@pytest.fixture(autouse=True)
def softmax_in_its_dtype(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models round attention to float32; where forward passes are held against each other they do not, so that equality
    can be asked for in float64."""
    if request.path.parent.name in ("patching", "circuits", "generality"):
        plain = torch.nn.functional.softmax

        @wraps(plain)
        def softmax(x: torch.Tensor, dim: int = -1, **_: object) -> torch.Tensor:
            return plain(x, dim=dim)

        monkeypatch.setattr(torch.nn.functional, "softmax", softmax)
