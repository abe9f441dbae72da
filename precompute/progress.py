"""How a run tells a person where it is: progress bars on a terminal, plain lines elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Reporter(Protocol):
    """Receives what a run does."""

    def say(self, line: str) -> None: ...

    def stage(self, name: str, total: int, done: int, unit: str) -> None:
        """A stage begins, of which `done` of `total` units are there already."""

    def advance(self, units: int) -> None: ...


class Silent:
    """Says nothing: for tests and notebooks."""

    def say(self, line: str) -> None: ...

    def stage(self, name: str, total: int, done: int, unit: str) -> None: ...

    def advance(self, units: int) -> None: ...


class _Bars:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def say(self, line: str) -> None:
        self._progress.console.print(line, highlight=False, markup=False)

    def stage(self, name: str, total: int, done: int, unit: str) -> None:
        self._task = self._progress.add_task(name, total=total, completed=done, unit=unit)

    def advance(self, units: int) -> None:
        if self._task is not None:
            self._progress.advance(self._task, units)


class _Lines:
    """One line for every tenth of a stage, for logs."""

    def __init__(self, console: Console) -> None:
        self._console, self._name, self._total, self._done, self._unit = console, "", 1, 0, ""

    def say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def stage(self, name: str, total: int, done: int, unit: str) -> None:
        self._name, self._total, self._done, self._unit = name, max(total, 1), done, unit
        self.say(f"{name}: {done} of {total} {unit}")

    def advance(self, units: int) -> None:
        before, self._done = self._done, self._done + units
        if before * 10 // self._total != self._done * 10 // self._total:
            self.say(f"{self._name}: {self._done} of {self._total} {self._unit}")


@contextmanager
def reporting() -> Iterator[Reporter]:
    """A reporter for the standard error stream."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield _Bars(progress)
