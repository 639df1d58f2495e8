"""Texts with labels: the sets of sae-probes, read inside its package.

They are those of "Are sparse autoencoders useful?" (2502.16681). Some of their texts are also in
the default set of sources, without the labels.
"""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import zstandard
from jaxtyping import Bool

from sememe.corpora.archives import members
from sememe.errors import SememeError

_DATA = "sae_probes/data"


class LabelledSet(NamedTuple):
    """Texts of two classes; no text comes twice."""

    name: str
    texts: list[str]
    labels: Bool[np.ndarray, " texts"]
    """True for the class whose name sorts last."""


def labelled_rows(names: tuple[str, ...], path: Path) -> Iterator[tuple[str, str]]:
    """Yield (text, label) of the sets ``names`` in the package's file at ``path``."""
    found = 0
    for rows in _tables(path, *(f"cleaned_data/{name}.csv.zst" for name in names)):
        found += 1
        for row in rows:
            yield row["prompt"], row["target"]
    if found != len(names):
        raise _unexpected(path)


def text_labels(name: str, path: Path) -> dict[str, str]:
    """Return the label of each text of the set ``name``; SememeError if it is missing."""
    labels: dict[str, str] = {}
    for text, label in labelled_rows((name,), path):
        if text.strip():
            labels.setdefault(text, label)
    return labels


def labelled_set(name: str, path: Path) -> LabelledSet:
    """Return the set ``name``; SememeError if it is missing or has other than two classes."""
    labels = text_labels(name, path)
    classes = sorted(set(labels.values()))
    if len(classes) != 2:
        raise SememeError(f"the labelled set {name} has {len(classes)} classes; expected 2")
    of_text = np.array([label == classes[1] for label in labels.values()])
    return LabelledSet(name, list(labels), of_text)


def binary_sets(path: Path) -> list[str]:
    """Return the names of all sets of two classes, in the package's order."""
    for rows in _tables(path, "probing_datasets_MASTER.csv.zst"):
        binary = [row for row in rows if row["Data type"] == "Binary Classification"]
        return [Path(row["Dataset save name"]).stem for row in binary]
    raise _unexpected(path)


def _tables(path: Path, *patterns: str) -> Iterator[Iterator[dict[str, str]]]:
    for _, data in members(path, *(f"{_DATA}/{pattern}" for pattern in patterns)):
        raw = zstandard.ZstdDecompressor().stream_reader(data).read()
        csv.field_size_limit(1 << 24)
        yield csv.DictReader(io.StringIO(raw.decode("utf-8", "replace"), newline=""))


def _unexpected(path: Path) -> SememeError:
    return SememeError(
        f"{path} does not hold the labelled sets that sememe expects; delete it and run again"
    )
