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
