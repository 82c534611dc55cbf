"""The neuron and head generality profiler: is that what this component does, or only what it does on these prompts?

`profiler.record(config, path)` makes a run, `profiler.open(path)` reads it, `profiler.merge(paths, out)` joins the runs
of shards, `profiler.load_model(config)` loads a model as a pass does. Nothing heavy is imported until it is used.
"""

from importlib import import_module
from typing import Any

PUBLIC = {
    "open": "profiler.run",
    "Run": "profiler.run",
    "record": "profiler.recording.pipeline",
    "merge": "profiler.recording.merge.merge",
    "load_model": "profiler.model.load",
    "RunConfig": "profiler.config",
    "ProfilerError": "profiler.errors",
}
__all__ = ["__version__", *PUBLIC]


def __getattr__(name: str) -> Any:
    if name in PUBLIC:
        return getattr(import_module(PUBLIC[name]), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("generality-profiler")
    raise AttributeError(f"module 'profiler' has no attribute {name!r}")
