"""Which circuit is checked: one that `profiler patch` left in the run, or a YAML file; and the pairs it was found on.

Cost: a query.
"""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import TypeAdapter

from profiler.circuits import yaml_files
from profiler.circuits.circuit import Circuit
from profiler.database import query
from profiler.errors import CircuitError, QueryError
from profiler.generality.evidence import published
from profiler.patching.setting import PatchSettings
from profiler.prompts.pairs import TASKS

STORED = """
SELECT circuits.circuit, circuits.task, circuits.yaml, patch_experiments.settings, patch_experiments.created, experiment
FROM circuits JOIN patch_experiments USING (experiment)
ORDER BY patch_experiments.created DESC, experiment, circuits.circuit
"""

_SETTINGS = TypeAdapter(PatchSettings)


@dataclass(frozen=True)
class CircuitOfRun:
    """A circuit, and the settings that its discovery pairs are drawn by; None where its task is not known.

    `is_named`: both are from a file that the caller named, so that a file of pairs may be read on its word.
    """

    circuit: Circuit
    task: PatchSettings | None
    is_named: bool = False


def find(run: Path, name: str) -> CircuitOfRun:
    """The latest circuit of a name (a task's, or its own) in a run; a published one; or that of a YAML file.

    Raises:
        CircuitError: there is none, or the file cannot be read.
    """
    if name.endswith((".yaml", ".yml")):
        circuit = yaml_files.read(name)
        return CircuitOfRun(circuit, task_of(circuit, Path(name).parent), is_named=True)
    rows = stored(run)
    for row in rows.iter_rows(named=True):
        if name in (row["circuit"], row["task"]):
            return _found(row)
    if (path := published.path_of(name)) is not None:
        circuit = yaml_files.read(path)
        return CircuitOfRun(circuit, task_of(circuit))
    known = ", ".join(sorted({row["task"] for row in rows.iter_rows(named=True)})) or "none"
    raise CircuitError(
        f"{run} holds no circuit {name!r} (it has {known}): make one with `profiler patch {run} ioi`, name a "
        ".yaml file, or a published circuit (see `profiler circuits list`)"
    )


def everyone(run: Path) -> list[CircuitOfRun]:
    """The latest circuit of each name in a run."""
    latest = stored(run).unique("circuit", keep="first", maintain_order=True)
    return [_found(row) for row in latest.iter_rows(named=True)]


def stored(run: Path) -> pl.DataFrame:
    """Circuits of a run, latest first; none where nothing was patched."""
    try:
        return query.run(run, STORED)
    except QueryError:
        return pl.DataFrame(schema={"circuit": pl.String, "task": pl.String, "yaml": pl.String, "settings": pl.String})


def _found(row: dict[str, Any]) -> CircuitOfRun:
    """A circuit that stands in a run.

    Raises:
        CircuitError: its text or its settings are none that `profiler patch` writes.
    """
    names = {field.name for field in fields(PatchSettings)}
    try:
        given = json.loads(row["settings"]).items()
        settings = _SETTINGS.validate_python({name: value for name, value in given if name in names})
    except (ValueError, TypeError, AttributeError):
        raise CircuitError(
            f"the settings of circuit {row['circuit']!r} in the run cannot be read: make it again with `profiler patch`"
        ) from None
    return CircuitOfRun(yaml_files.parse(str(row["yaml"]), str(row["circuit"])), settings)


def task_of(circuit: Circuit, folder: Path = Path()) -> PatchSettings | None:
    """Settings for a circuit from a file: its scope's task, and the first of its schemes that the task has.

    Args:
        folder: where a task that is a .jsonl of pairs is looked for.
    """
    if circuit.scope.task.endswith(".jsonl"):
        return PatchSettings(str(folder / circuit.scope.task))
    task = next((task for task in TASKS if task.name == circuit.scope.task), None)
    if task is None:
        return None
    scheme = next((scheme for scheme in circuit.scope.schemes if scheme in task.schemes), None)
    return PatchSettings(task.name, scheme)
