"""Progress on the terminal: a bar over the steps of a patch or a check, and over the tokens of a pass."""

from types import TracebackType

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from profiler.cli.terminal.console import asides
from profiler.results import Step

WIDEST_TEXT = 60
"""Characters of a step's text that fit beside the bar; a longer one is cut."""


class StepBar:
    """A bar over the steps that a long call reports; its notes are printed above the bar."""

    def __init__(self) -> None:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
        )
        self._progress = Progress(*columns, console=asides)
        self._task = self._progress.add_task("", total=1)

    def __enter__(self) -> "StepBar":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, step: Step) -> None:
        """Draw a step, or print a note."""
        if step.is_note:
            asides.print(step.text)
            return
        text = step.text if len(step.text) <= WIDEST_TEXT else step.text[: WIDEST_TEXT - 1] + "…"
        self._progress.update(self._task, description=text, completed=step.done, total=step.total)


def token_bar() -> Progress:
    """A bar over tokens, with tokens/s and the time that is left."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:,.0f} tokens"),
        TextColumn("{task.fields[rate]}", markup=False),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=asides)
