"""What the command line shows: progress on standard error, figures on standard output."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from sememe.progress import Progress

WIDE = 240
"""Columns of a table where standard output is no terminal."""
PLAIN_SECONDS = 10.0
"""How often a line is written where standard error is no terminal."""


class _Amount(ProgressColumn):
    """Done of total, and the rate."""

    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed
        shown = f"{task.completed:,.0f}/{task.total or 0:,.0f} {task.fields['unit']}"
        return Text(shown + (f" {rate:,.0f}/s" if rate else ""), style="cyan")


class BarProgress(Progress):
    """A bar a stage, which stays when the stage is over."""

    def __init__(self) -> None:
        self._bars = Bars(
            TextColumn("{task.description:<17}"),
            BarColumn(bar_width=24),
            _Amount(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            TextColumn("{task.fields[live]}", style="dim"),
            console=Console(stderr=True),
        )
        self._task: TaskID | None = None

    def __enter__(self) -> "BarProgress":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def start(self, stage: str, total: int, unit: str, done: int = 0) -> None:
        self._task = self._bars.add_task(stage, total=total, completed=done, unit=unit, live="")

    def advance(self, amount: int, **live: float) -> None:
        if self._task is None:
            return
        self._bars.advance(self._task, amount)
        if live:
            self._bars.update(self._task, live=_figures(live))

    def finish(self, note: str = "") -> None:
        if self._task is None:
            return
        total = next(task.total for task in self._bars.tasks if task.id == self._task)
        self._bars.update(self._task, completed=total)
        if note:
            self._bars.update(self._task, live=note)
        self._task = None

    def say(self, message: str) -> None:
        self._bars.console.print(message, markup=False, highlight=False)


@dataclass
class LineProgress(Progress):
    """A line now and then, for logs and pipes."""

    console: Console = field(default_factory=lambda: Console(stderr=True, soft_wrap=True))

    def __enter__(self) -> "LineProgress":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def start(self, stage: str, total: int, unit: str, done: int = 0) -> None:
        self._stage, self._total, self._unit = stage, total, unit
        self._done = self._before = done
        self._begun = self._told = time.monotonic()
        self.say(f"{stage}: {done:,} of {total:,} {unit}")

    def advance(self, amount: int, **live: float) -> None:
        self._done += amount
        now = time.monotonic()
        if now - self._told < PLAIN_SECONDS:
            return
        self._told = now
        rate = (self._done - self._before) / (now - self._begun)
        left = (self._total - self._done) / rate if rate else 0.0
        line = f"{self._stage}: {self._done:,} of {self._total:,} {self._unit}, {rate:,.0f}/s"
        self.say(f"{line}, {_clock(left)} left {_figures(live)}".rstrip())

    def finish(self, note: str = "") -> None:
        took = _clock(time.monotonic() - self._begun)
        self.say(f"{self._stage}: done in {took}{', ' if note else ''}{note}")

    def say(self, message: str) -> None:
        self.console.print(message, markup=False, highlight=False)


def terminal_progress() -> BarProgress | LineProgress:
    """Return bars where standard error is a terminal, lines elsewhere."""
    return BarProgress() if Console(stderr=True).is_terminal else LineProgress()


def _figures(live: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.3g}" for name, value in live.items())


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def print_heading(title: str) -> None:
    """Print what stands above a table, to standard output."""
    Console().print(Text(f"\n{title}", style="bold"))


def print_text(text: str) -> None:
    """Print a paragraph to standard output."""
    Console().print(Text(text))


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table to standard output; columns of numbers stand on the right."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for place, name in enumerate(header):
        numeric = bool(rows) and all(isinstance(row[place], int | float) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_shown(cell)) for cell in row))
    console = Console(soft_wrap=False)
    if not console.is_terminal:  # a file or a pipe has no edge to fold at
        console.width = max(console.width, WIDE)
    console.print(table)


def _shown(cell: object) -> str:
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
