"""What all commands have in common: `-q`, `--json`, pages that are opened, and what to do next."""

import inspect
import json
import math
import shlex
import webbrowser
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from profiler.cli.terminal.console import asides, console, write
from profiler.errors import ProfilerError

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="print results alone: no progress, no notes, no next steps")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of tables")]
Open = Annotated[bool, typer.Option("--open", help="open the page in the browser")]


class Commands(typer.Typer):
    """Commands that each take -q."""

    def command(  # type: ignore[override]  # the same, whatever options typer has
        self, *args: Any, **options: Any
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """As typer's."""
        register = super().command(*args, **options)

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            register(with_quiet(function))
            return function

        return decorate


def with_quiet(function: Callable[..., Any]) -> Callable[..., Any]:
    """A command that also takes -q; --json is quiet by itself, so that nothing stands beside the JSON."""

    @wraps(function)
    def run(*, quiet: bool, **given: Any) -> Any:
        asides.quiet = quiet or bool(given.get("json_"))
        return function(**given)

    signature = inspect.signature(function)
    own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in signature.parameters.values()]
    added = inspect.Parameter("quiet", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Quiet)
    run.__signature__ = signature.replace(parameters=[*own, added])  # type: ignore[attr-defined]
    run.__annotations__ = {**function.__annotations__, "quiet": Quiet}
    return run


def say_next(*commands: tuple[object, ...]) -> None:
    """Print commands to go on with, as a shell takes them; the name of the program is put before each."""
    lines = [shlex.join(["profiler", *map(str, command)]) for command in commands]
    asides.print("\n".join(["", "Next:", *(f"  {line}" for line in lines)]))


def refuse_other(path: Path | None, read: Callable[[Path], object], what: str) -> None:
    """Raise, before long work, unless a file can be written there: only what `read` reads is replaced.

    Args:
        what: the file in words, such as "file of a circuit".

    Raises:
        ProfilerError: there is another file, or no folder for it.
    """
    if path is None:
        return
    if not path.parent.is_dir():
        raise ProfilerError(f"there is no folder {path.parent}: make it, or choose another file")
    if not path.exists():
        return
    try:
        read(path)
    except (ProfilerError, OSError, UnicodeDecodeError):
        raise ProfilerError(f"{path} is there and is no {what}: choose another file, or remove it") from None


def write_json(value: Any) -> None:
    """A value as JSON on a line of standard output."""
    write(json.dumps(_finite(value), ensure_ascii=False, default=str) + "\n")


def _finite(value: Any) -> Any:
    """The value with None for every number that JSON has no word for."""
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def offer(page: Path, said: str = "", *, opened: bool) -> None:
    """Say where a page is, or open it in the browser, too."""
    console.print(f"{page}{said}: {'opened' if opened else 'open it'} in a browser")
    if opened:
        webbrowser.open(page.resolve().as_uri())
