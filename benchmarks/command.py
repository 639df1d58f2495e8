"""What every benchmark's command line does: read the settings, measure, print the figures."""

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import tyro

from sememe.commands.figures import show
from sememe.errors import SememeError, UsageError
from sememe.terminal import print_table


class Settings(Protocol):
    """A dataclass whose fields are the options."""

    json: bool
    """Print one JSON object."""


Given = TypeVar("Given", bound=Settings)


def run(
    settings: type[Given],
    measure: Callable[[Given], dict[str, Any]],
    about: str | None,
    columns: Sequence[str] = (),
) -> None:
    """Print what ``measure`` makes of the command line's settings, and exit as sememe does.

    One JSON object, or a table of the figures and one of their ``rows``, which share their keys:
    of ``columns``, or of all.
    """
    given = tyro.cli(settings, description=about)
    try:
        figures = measure(given)
    except SememeError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2 if isinstance(error, UsageError) else 1)
    if given.json:
        print(json.dumps(figures))
        return
    rows = figures.pop("rows", [])
    show(figures, as_json=False)
    if rows:
        shown = columns or tuple(rows[0])
        print_table(shown, [[row[name] for name in shown] for row in rows])
