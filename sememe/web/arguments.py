"""Read the arguments of a request; what is wrong with one is said in one line."""

import re
from collections.abc import Mapping, Sequence

from sememe.errors import UsageError


def known(query: Mapping[str, str], names: Sequence[str]) -> None:
    """Refuse arguments that the address does not take."""
    for name in query:
        if name not in names:
            takes = f"one of {', '.join(names)}" if names else "no arguments"
            raise UsageError(f"argument {name!r}: expected {takes}")


def integer(
    query: Mapping[str, str], name: str, default: int, *, low: int = 0, high: int = 2**53
) -> int:
    """Return the whole number ``name`` between ``low`` and ``high``."""
    value = query.get(name, str(default))
    number = whole_number(value)
    if number is None or not low <= number <= high:
        raise UsageError(f"{name} {value[:80]!r}: expected a whole number from {low} to {high}")
    return number


def choice(query: Mapping[str, str], name: str, values: Sequence[str]) -> str:
    """Return the argument ``name``, one of ``values``; the first is the default."""
    value = query.get(name, values[0])
    if value not in values:
        raise UsageError(f"{name} {value[:80]!r}: expected one of {', '.join(values)}")
    return value


def whole_number(value: str) -> int | None:
    """Return the number that ``value`` writes in ASCII digits, None if it writes none."""
    return int(value) if re.fullmatch(r"[0-9]{1,15}", value) else None
