"""What was added to runs after their pass: what the run merged from them carries, and in words what it does not.

A user's own classes and behaviours are definitions over what was counted and sampled. Where every run has the same one,
it holds of the merged run too: splits by a class are exact there, a behaviour is evaluated on the merged rows. Where
the runs differ, none of them is the definition of the whole. Patching, circuits, checks and predictions are results
about a model and about the run file they were made with, and labels are about its positions: they stay where they are.
Whatever is not carried is named. Cost: milliseconds a run.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from duckdb import DuckDBPyConnection as Connection

from profiler.behaviours.expressions import FACTS, check_condition, check_name, own_classes
from profiler.behaviours.labels import labels_path
from profiler.behaviours.library import Behaviour
from profiler.behaviours.token_properties import Property
from profiler.database import makers
from profiler.recording.merge.read_back import Stored

RESULTS = {
    "patch_experiments": ("patching experiments", "profiler patch"),
    "circuits": ("circuits", "profiler patch"),
    "checks": ("checks", "profiler check"),
    "prediction_log": ("entries of the log of predictions", "profiler predict"),
}
"""Tables of results: what their rows are, and the command that makes them."""
Defined = TypeVar("Defined", Property, Behaviour)


@dataclass(frozen=True)
class Carried:
    """Classes and behaviours that the merged run carries beyond those of the pass; `notes` say what is left out."""

    classes: tuple[Property, ...]
    behaviours: tuple[Behaviour, ...]
    notes: tuple[str, ...]


def carried(runs: Sequence[Stored], told: Iterable[str]) -> Carried:
    """What the run merged from `runs` carries.

    Args:
        runs: finished runs, in the order of the message.
        told: names of the classes that every pass was told of (record --class); they are in the merged run in any case.

    Raises:
        QueryError: a definition that all runs share cannot be used.
        RunError: a file is damaged.
    """
    classes = {run.path: _classes(run) for run in runs}
    behaviours = {run.path: _behaviours(run) for run in runs}
    again = [
        f"class {name} is in the merged run, though {path} had taken it out: every pass was told of it"
        for name in told
        for path, own in classes.items()
        if own.pop(name, None) is None
    ]
    shared, notes = _shared("class", classes)
    also, more = _shared("behaviour", behaviours)
    _check(shared, also, runs[0].connection)
    left = [note for run in runs for note in _left(run)]
    return Carried(tuple(shared), tuple(also), (*again, *notes, *more, *left))


def _classes(run: Stored) -> dict[str, Property]:
    rows = run.rows('SELECT property, description, condition FROM properties WHERE "user"').iter_rows()
    return {row[0]: Property(*row) for row in rows}


def _behaviours(run: Stored) -> dict[str, Behaviour]:
    rows = run.rows("""SELECT behaviour, family, kind, condition, description, priority FROM behaviours
        WHERE "user" AND family = 'user' ORDER BY behaviour_id""").iter_rows()
    return {row[0]: Behaviour(*row) for row in rows}


def _shared(what: str, of_runs: Mapping[Path, Mapping[str, Defined]]) -> tuple[list[Defined], list[str]]:
    """The definitions that all runs share, and a sentence on each other one."""
    shared, notes = [], []
    for name in dict.fromkeys(name for own in of_runs.values() for name in own):
        own = {path: of.get(name) for path, of in of_runs.items()}
        first = next(iter(own.values()))
        if first is not None and all(defined == first for defined in own.values()):
            shared.append(first)
        else:
            notes.append(f"{what} {name} is not carried: {_difference(own)}")
    return shared, notes


def _difference(own: Mapping[Path, Property | Behaviour | None]) -> str:
    """How definitions of one name differ."""
    there, missing = ([path for path, defined in own.items() if (defined is None) is none] for none in (False, True))
    if missing:
        return f"it is in {_listed(there)}, not in {_listed(missing)}"
    first, defined = there[0], own[there[0]]
    other = next(path for path in there if own[path] != defined)
    pairs = ((name, value, vars(own[other])[name]) for name, value in vars(defined).items())
    return "; ".join(f"{name} `{a}` in {first}, `{b}` in {other}" for name, a, b in pairs if a != b)


def _check(classes: list[Property], behaviours: list[Behaviour], run: Connection) -> None:
    """Definitions are SQL text out of files: they are checked as a user's are.

    Raises:
        QueryError: one cannot be used.
    """
    own_classes(tuple(f"{defined.name}={defined.condition}" for defined in classes))
    for defined in behaviours:
        check_name(defined.name)
        for view in FACTS[defined.kind]:
            check_condition(defined.condition, view, run)


def _left(run: Stored) -> Iterable[str]:
    """A sentence on each kind of thing that stays with the run."""
    path = run.path
    there = run.rows("SELECT name FROM (SHOW TABLES)")["name"].to_list()
    for table, (what, command) in RESULTS.items():
        n = run.rows(f"SELECT count(*) AS n FROM {table}").item() if table in there else 0
        if n:
            yield f"{n} {what} of {path} are not carried: they were made with that run; give `{command}` the merged run"
    if unknown := sorted({*there} - makers.known().keys()):
        yield f"{_listed(unknown)} of {path} are not carried: no command of the profiler made them"
    beginning = labels_path(path, "").stem
    if labels := sorted(file for file in path.parent.glob("*.jsonl") if file.name.startswith(beginning)):
        yield f"{_listed(labels)} are not carried: they are labels of positions of {path}"


def _listed(names: Iterable[object]) -> str:
    return ", ".join(map(str, names))
