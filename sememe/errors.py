"""The two errors that a user may see as one clear line."""


class SememeError(Exception):
    """A stage cannot go on; the message says why and what to do. Exit status 1."""


class UsageError(SememeError, ValueError):
    """An argument is wrong; the message names it, its value and what is expected. Exit status 2."""
