"""What tests of pages share, made once in a process."""

import fake_run
import pytest


@pytest.fixture(scope="session")
def fake(tmp_path_factory) -> fake_run.FakeRun:
    """A run with known raw values and hostile tokens. It is read only; a test that changes it copies it first."""
    return fake_run.build(tmp_path_factory.mktemp("fake") / "fake.duckdb")
