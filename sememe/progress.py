"""How long work tells how far it is: one interface, silent by default."""

import time
from dataclasses import dataclass, field, replace


class Progress:
    """What a stage reports to; this one is silent, the command line shows bars."""

    def start(self, stage: str, total: int, unit: str, done: int = 0) -> None:
        """Begin ``stage`` of ``total`` units, ``done`` of which an earlier run has finished."""

    def advance(self, amount: int, **live: float) -> None:
        """Say that ``amount`` more units are done; ``live`` are figures to show beside the bar."""

    def finish(self, note: str = "") -> None:
        """End the stage, leaving ``note`` behind it."""

    def say(self, message: str) -> None:
        """Show one line that stays."""


@dataclass(frozen=True)
class Stage:
    """How far a stage is."""

    name: str
    total: int
    unit: str
    done: int
    before: int
    """Units that an earlier run had finished."""
    begun: float
    """When it began, by the monotonic clock."""
    ended: float | None = None
    note: str = ""

    @property
    def seconds(self) -> float:
        """How long it has been at work, or was."""
        return (self.ended or time.monotonic()) - self.begun

    @property
    def rate(self) -> float | None:
        """Units a second of this run; None before the first."""
        fresh = self.done - self.before
        return fresh / self.seconds if fresh and self.seconds else None


@dataclass
class KeptProgress(Progress):
    """Keeps what it is told, for other threads to look at, and passes it on."""

    told: Progress = field(default_factory=Progress)
    stages: dict[str, Stage] = field(default_factory=dict)
    """By name, in the order in which they began; each is replaced as a whole."""
    messages: list[str] = field(default_factory=list)
    _now: str = ""

    def start(self, stage: str, total: int, unit: str, done: int = 0) -> None:
        self._now = stage
        self.stages[stage] = Stage(stage, total, unit, done, done, time.monotonic())
        self.told.start(stage, total, unit, done)

    def advance(self, amount: int, **live: float) -> None:
        if stage := self.stages.get(self._now):
            self.stages[self._now] = replace(stage, done=stage.done + amount)
        self.told.advance(amount, **live)

    def finish(self, note: str = "") -> None:
        if stage := self.stages.get(self._now):
            ended = time.monotonic()
            self.stages[self._now] = replace(stage, done=stage.total, ended=ended, note=note)
        self.told.finish(note)

    def say(self, message: str) -> None:
        self.messages.append(message)
        self.told.say(message)
