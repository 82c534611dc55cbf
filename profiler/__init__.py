"""The neuron and head generality profiler: is that what this component does, or only what it does on these prompts?

`profiler.record(config, path)` makes a run and `profiler.open(path)` opens it; `run.patch(task)`, `run.check(circuit)`,
`run.compare(other)` and `run.report(name)` work on it. `profiler.patch` also makes a run of its own for a model without
a corpus, `profiler.merge(paths, out)` joins the runs of shards, `profiler.load_model(config)` loads a model as a pass
does. Nothing heavy is imported until it is used.
"""

from importlib import import_module
from typing import Any

PUBLIC = {
    "open": "profiler.run",
    "Run": "profiler.run",
    "record": "profiler.actions",
    "patch": "profiler.actions",
    "paths": "profiler.actions",
    "draw_pairs": "profiler.actions",
    "merge": "profiler.recording.merge.merge",
    "load_model": "profiler.model.load",
    "RunConfig": "profiler.config",
    "PatchResult": "profiler.results",
    "CheckResult": "profiler.results",
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
