"""The figures of a training run as it goes: JSON lines beside the dictionary."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from sememe.artefacts import atomic_path, disk_error

NAME = "history.jsonl"
POINTS = 500
"""Lines of a whole run, about."""


class History:
    """Appends a line every so many steps: ``step``, ``tokens`` seen, and the figures.

    Nothing in it depends on the time. A run that goes on from a checkpoint first drops the lines
    after it, so that a killed and resumed run has the bytes of one that was not.
    """

    def __init__(self, directory: Path, steps: int, step: int = 0) -> None:
        """Go on after ``step`` of ``steps``."""
        self.path = directory / NAME
        self.every = math.ceil(steps / POINTS)
        self.steps = steps
        kept = [point for point in read_history(directory) if point["step"] <= step]
        with atomic_path(self.path) as partial:
            partial.write_text("".join(map(_line, kept)))

    def add(self, step: int, tokens: int, figures: Mapping[str, float]) -> None:
        """Append the line of ``step``, if it is due; what is not finite is null."""
        if step % self.every and step not in (1, self.steps):
            return
        shown = {
            name: float(f"{value:.5g}") if math.isfinite(value) else None
            for name, value in figures.items()
        }
        try:
            with self.path.open("a") as file:
                file.write(_line({"step": step, "tokens": tokens, **shown}))
        except OSError as error:
            raise disk_error(self.path, error) from error

    def keep(self) -> None:
        """Have what is written on the disk: a checkpoint is to follow."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())


def _line(point: Mapping[str, Any]) -> str:
    return json.dumps(point, allow_nan=False) + "\n"


def read_history(directory: Path) -> list[dict[str, Any]]:
    """Return the points of the run that trains, or has trained, the dictionary in ``directory``.

    A last line that is still being written is left out; without a history there are none.
    """
    path = directory / NAME
    if not path.exists():
        return []
    whole = path.read_bytes().rpartition(b"\n")[0]
    found: list[dict[str, Any]] = msgspec.json.decode(b"[%s]" % whole.replace(b"\n", b","))
    return found
