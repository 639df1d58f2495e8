"""How commands print what they found."""

import json
import sys
from collections.abc import Mapping
from typing import Any

from sememe.terminal import print_table


def show(figures: Mapping[str, Any], as_json: bool) -> None:
    """Print figures on standard output: one JSON object, or a table of names and values."""
    if as_json:
        sys.stdout.write(json.dumps(figures, ensure_ascii=False) + "\n")
        return
    flat: list[tuple[str, object]] = []
    for name, value in figures.items():
        if isinstance(value, Mapping):
            flat += [(f"{name} {key}", part) for key, part in value.items()]
        else:
            flat.append((name, value))
    print_table(("", ""), flat)


def short(figure: Mapping[str, float | None] | None) -> str:
    """Return the value of an estimate."""
    return "-" if figure is None or figure["value"] is None else f"{figure['value']:.3g}"


def with_interval(figure: Mapping[str, float | None] | None) -> str:
    """Return the value of an estimate with its interval."""
    if figure is None or figure["low"] is None:
        return short(figure)
    return f"{figure['value']:.3g} ({figure['low']:.3g} to {figure['high']:.3g})"
