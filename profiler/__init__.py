"""The neuron and head generality profiler: is that what this component does, or only what it does on these prompts?

`profiler.open(path)` reads a run, `profiler.record(config, path)` makes one. Nothing heavy is imported until it is used.
"""

from importlib import import_module
from typing import Any

PUBLIC = {
    "open": "profiler.run",
    "Run": "profiler.run",
    "record": "profiler.pipeline",
    "RunConfig": "profiler.config",
    "ProfilerError": "profiler.errors",
}
__all__ = list(PUBLIC)


def __getattr__(name: str) -> Any:
    if name in PUBLIC:
        return getattr(import_module(PUBLIC[name]), name)
    raise AttributeError(f"module 'profiler' has no attribute {name!r}")
