"""Dictionaries that other packages wrote, read as our own.

A format is a module with one function from a directory to :class:`Foreign`: our orientation of the
weights, nothing computed twice, and the reason where the format can say what a
:class:`~sememe.dictionaries.Dictionary` cannot.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from sememe.dictionaries.dictionary import Dictionary
from sememe.dictionaries.foreign import dictionary_learning, saelens, sparsify
from sememe.dictionaries.foreign.weights import Foreign, sites_of
from sememe.errors import SememeError, UsageError

__all__ = ["FORMATS", "Format", "Imported", "read_foreign"]

Format = Literal["auto", "saelens", "sparsify", "dictionary_learning"]

FORMATS: dict[str, tuple[tuple[str, ...], Callable[[Path], Foreign]]] = {
    "saelens": ((saelens.WEIGHTS,), saelens.read),
    "sparsify": ((sparsify.WEIGHTS,), sparsify.read),
    "dictionary_learning": (
        (dictionary_learning.WEIGHTS, dictionary_learning.PICKLE),
        dictionary_learning.read,
    ),
}
"""By name: the files that tell a format, and what reads it."""


class Imported(NamedTuple):
    """A dictionary, and where it came from."""

    dictionary: Dictionary
    format: str
    files: dict[str, str]
    """xxh3 checksums of the files that were read, by name."""


def read_foreign(
    directory: Path,
    format: Format = "auto",
    *,
    sites: tuple[str, ...] = (),
    scale: float | None = None,
) -> Imported:
    """Return the dictionary in ``directory``; codes and reconstructions are its package's own.

    Decoder rows get norm 1 where the kind allows it, so that a value of the code is the peer's
    times the norm that the row had. ``sites`` names what is read, and what is written if that is
    another site, in place of what the files say. ``scale`` is what activations were multiplied by
    in training, for files that leave it out.

    Raises SememeError for what cannot be represented, with the reason.
    """
    found = _format_of(directory) if format == "auto" else format
    if found not in FORMATS:
        raise UsageError(f"format is {format!r}; expected one of {', '.join(get_args(Format))}")
    foreign = FORMATS[found][1](directory)
    if scale is not None:
        foreign = foreign.scaled_by(scale)
    dictionary = foreign.dictionary(sites_of(foreign, sites))
    return Imported(dictionary, found, foreign.files)


def _format_of(directory: Path) -> str:
    """Return the one format whose weights lie in ``directory``."""
    fitting = [
        name
        for name, (files, _) in FORMATS.items()
        if any((directory / file).exists() for file in files)
    ]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UsageError(f"{directory} holds {' and '.join(fitting)} files: give --format")
    inside = sorted(
        path.parent.name
        for files, _ in FORMATS.values()
        for file in files
        for path in directory.glob(f"*/{file}")
    )
    if inside:
        raise UsageError(f"{directory} holds {', '.join(inside)}: give one of these folders")
    expected = ", ".join(file for files, _ in FORMATS.values() for file in files)
    raise SememeError(f"{directory} holds no dictionary of a known format; expected {expected}")
