"""Fixtures of the tests of a pass."""

from collections.abc import Iterator

import chunked
import pytest

from profiler.config import RunConfig
from profiler.model.load import Model, load_model


@pytest.fixture(scope="module")
def small_chunks() -> Iterator[None]:
    """See `chunked.shrink`."""
    with pytest.MonkeyPatch.context() as patched:
        chunked.shrink(patched)
        yield


@pytest.fixture(scope="module")
def model(config: RunConfig) -> Model:
    """The model of the module's `config`."""
    return load_model(config)
