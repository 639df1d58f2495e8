"""The two errors that a user may see as one clear line, and a check that raises one."""


class SememeError(Exception):
    """A stage cannot go on; the message says why and what to do. Exit status 1."""


class UsageError(SememeError, ValueError):
    """An argument is wrong; the message names it, its value and what is expected. Exit status 2."""


def check_number(name: str, value: float, low: float, high: float) -> None:
    """Raise UsageError unless ``value`` lies between ``low`` and ``high``."""
    if not low <= value <= high:
        raise UsageError(f"{name} is {value}; expected {low:g} to {high:g}")
