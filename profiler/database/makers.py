"""The command that makes each table and view of a run: for messages about a run that lacks one.

The SQL files are the list: schema.sql and views.sql are of the pass, causal.sql of patching, generality.sql of checks
and predictions, effects.sql of total effects. Cost: reading five small files once.
"""

import re
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from profiler.database.assets import package_file

MADE_BY = {
    "database/schema.sql": "profiler record",
    "database/views.sql": "profiler record",
    "database/causal.sql": "profiler patch {run} ioi",
    "database/generality.sql": "profiler check {run} ioi",
    "database/effects.sql": "profiler effects {run}",
}
PREDICTED = "profiler predict register {run}"
OF_PREDICTIONS = ("prediction_log", "prediction_head", "predictions")
DERIVED_BY = "profiler behaviours refresh {run}"
DERIVED = ("uniform_marks", "layer_coverages", "behaviour_rows", "behaviour_marks", "position_marks")
"""Tables and views that are made once a run is whole (profiler.behaviours.views)."""
_CREATED = re.compile(r"^CREATE (TABLE|VIEW) (\w+)", re.MULTILINE)


@cache
def known() -> Mapping[str, str]:
    """The command that makes each table and view, by name; `{run}` in it stands for the run's path."""
    commands = {name: command for _, name, command in _created()} | dict.fromkeys(DERIVED, DERIVED_BY)
    return MappingProxyType(commands | dict.fromkeys(OF_PREDICTIONS, PREDICTED))


@cache
def tables() -> frozenset[str]:
    """Names of the tables alone: in a run that the profiler made, none of them is a view."""
    return frozenset(name for kind, name, _ in _created() if kind == "TABLE")


def _created() -> list[tuple[str, str, str]]:
    """Kind, name and command of everything that the SQL files create."""
    return [
        (kind, name, command)
        for file, command in MADE_BY.items()
        for kind, name in _CREATED.findall(package_file(file).read_text(encoding="utf-8"))
    ]


def advice(name: str, run: str = "RUN") -> str | None:
    """A sentence on a table or view that a run lacks, with the command that makes it; None for other names."""
    command = known().get(name)
    if command is None:
        return None
    if command == MADE_BY["database/schema.sql"]:
        return f"there is no {name} in {run}, which an earlier version wrote: record it again with `{command}`"
    return f"{run} holds no {name.replace('_', ' ')} yet: make them with `{command.format(run=run)}`"
