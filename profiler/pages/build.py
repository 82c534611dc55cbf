"""Reports: one HTML page from a run. Loads a report of `reports/` by name, builds it, writes it whole or not at all.

A report is a file with a docstring, `QUESTION`, `NEEDS_COMPONENT` and `build(read)` or `build(read, component)`, that
returns a frozen `Report`; it reads the run through query files alone (`Reader`). A new file there is a new report.
"""

import difflib
import importlib.util
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from types import ModuleType

import duckdb
import polars as pl

from profiler.database import assets, query
from profiler.errors import ComponentError, ProfilerError
from profiler.folders.lock import Lock
from profiler.model.components import ComponentId
from profiler.pages import page
from profiler.pages.blocks import Chart, Examples, Note, Report, Section, Source, Table
from profiler.pages.reader import Reader

HEAD = 4096
"""Bytes of a file in which its head says who made it."""
__all__ = [
    "Chart",
    "Examples",
    "Note",
    "Reader",
    "Report",
    "Section",
    "Source",
    "Table",
    "build",
    "find",
    "load",
    "names",
    "refuse",
    "write",
]


def names() -> list[str]:
    """The names of all reports."""
    return sorted(path.stem for path in assets.folder("reports").glob("*.py"))


def load(name: str) -> ModuleType:
    """The report `name`, loaded from its file.

    Raises:
        ProfilerError: there is no report of this name.
    """
    if name not in names():
        close = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean {close[0]!r}?" if close else "choose one of them"
        raise ProfilerError(f"there is no report {name!r}; reports are {', '.join(names())}: {hint}")
    file = assets.folder("reports") / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"profiler_report_{name}", file)
    if spec is None or spec.loader is None:
        raise ProfilerError(f"the report {file} cannot be loaded: it is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(
    run_path: str | Path, name: str, component: str | None = None, given: Mapping[str, pl.DataFrame] | None = None
) -> str:
    """The page of report `name` on the run at `run_path`, as text.

    Args:
        component: label of the component, for reports that are about one.
        given: answers by query name that were made elsewhere, such as contexts recomputed with the model.

    Raises:
        ProfilerError: the run, the report or the component cannot be found, or the component is missing.
    """
    _checked(name, component)
    with query.open_run(run_path) as connection:
        return build_open(connection, name, component, given)


def build_open(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    component: str | None = None,
    given: Mapping[str, pl.DataFrame] | None = None,
) -> str:
    """The same for a run that is open already. Raises as `build`."""
    module = _checked(name, component)
    query.require(connection, getattr(module, "NEEDS", ()))
    options = [find(connection, component)] if module.NEEDS_COMPONENT and component is not None else []
    return page.render(module.build(Reader(connection, given), *options))


def _checked(name: str, component: str | None) -> ModuleType:
    """The report's module, if it is given the component that it is about."""
    module = load(name)
    if module.NEEDS_COMPONENT and component is None:
        raise ComponentError(
            f"the report {name!r} is about a component: name it with --component, such as --component L0H0"
        )
    return module


def default_path(run: Path, name: str, component: str | None = None) -> Path:
    """Beside the run: <run stem>-<report>[-<component>].html."""
    parts = [run.stem, name, *([component.strip().replace(":", "-")] if component else [])]
    return run.with_name("-".join(parts) + ".html")


def find(connection: duckdb.DuckDBPyConnection, label: str) -> ComponentId:
    """The component of the run that `label` names.

    Raises:
        ComponentError: the run has no such component.
    """
    query.check_component(connection, label)
    text = r"""SELECT kind, layer, unit
        , CASE WHEN regexp_full_match(block_group, '[ES][0-9]+|\.\w+:') THEN block_group ELSE '' END
        FROM components WHERE component = getvariable('component')"""
    frame = query.run(connection, text, component=label)
    return ComponentId(*frame.row(0))


def refuse(path: str | Path) -> None:
    """Raise unless a page can be written to `path`: only an earlier page of the profiler's is replaced.

    Raises:
        ProfilerError: there is something else, or no folder for it.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            begun = file.read(HEAD)
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise ProfilerError(f"there is no folder {path.parent}: make it, or choose another --out") from None
        return
    except OSError as error:
        raise ProfilerError(f"no page can be written to {path} ({error.strerror}): choose another --out") from None
    if begun and f'name="generator" content="{page.MADE_BY}"'.encode() not in begun:
        raise ProfilerError(f"{path} is there and is no page of the profiler: choose another --out, or remove it")


def write(path: str | Path, text: str) -> Path:
    """Writes the page at `path`, whole or not at all; a page already there is replaced.

    Raises:
        ProfilerError: the folder does not exist or cannot be written to.
    """
    path = Path(path)
    try:
        _replace(path, text)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ProfilerError(f"the page cannot be written to {path}: {reason}; choose another file with --out") from None
    return path


def _replace(path: Path, text: str) -> None:
    """Writes `<path>.partial` and moves the finished file to `path`; removes it where anything goes wrong. What a
    process that was killed leaves of it is overwritten by the next; two at a time are refused."""
    partial = path.parent / f"{path.name}.partial"
    with closing(Lock(partial, str(path))):
        try:
            partial.write_text(text, encoding="utf-8")
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
