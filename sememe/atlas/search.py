"""Searches in what lies beside an atlas: labels, the index of its examples, neurons, meanings."""

import sqlite3
import threading
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sememe.artefacts import is_finished, read_manifest, refuse_unfit
from sememe.atlas.columns import products
from sememe.atlas.index import EXAMPLES, HEAD, MEANINGS, NEURONS, Encoder
from sememe.atlas.labels import NAME as LABELS
from sememe.atlas.labels import Labels, matching
from sememe.atlas.query import Numbers, Ranked
from sememe.atlas.store import Atlas, mapped
from sememe.kernels.compiled import Array

INDEX = "index"
MEANING = "meanings"
LOOKED_AT = 1_024
"""Features that are compared in all dimensions of meaning."""
AT_A_TIME = 8
"""Parts in which these are read."""
NEAR = 200
"""Features that a search by meaning gives."""


class Writers(NamedTuple):
    """The features that write to a neuron, largest weights first."""

    feature: Numbers
    weight: npt.NDArray[np.float32]


class Search:
    """Searches an atlas can do; those it has nothing for are left out of ``ranked``.

    ``beside`` is the directory that holds what :mod:`sememe.atlas.index` made, in ``index`` and
    ``meanings``, and the labels. ``encoder`` loads what turns a query into a vector.

    Raises SememeError for an index of another atlas.
    """

    def __init__(
        self,
        atlas: Atlas,
        beside: Path | None = None,
        *,
        encoder: Callable[[], Encoder] | None = None,
    ) -> None:
        self.atlas = atlas
        self._load = encoder
        self._local = threading.local()
        self._index = self._made(beside, INDEX)
        self._meaning_folder = self._made(beside, MEANING)
        labels = beside / LABELS if beside is not None else None
        self.labels = Labels(labels) if labels is not None and labels.exists() else None
        self.ranked: dict[str, Callable[[str], Ranked]] = {}
        if self.labels is not None:
            self.ranked["label"] = self.labels.search
        if self._meaning_folder is not None and encoder is not None:
            self.ranked["meaning"] = self._meaning
        self.neurons: int | None = None
        if self._index is not None:
            self.ranked["example"] = self._example
            self._by_neuron = mapped(self._index / NEURONS)
            self.neurons = len(self._by_neuron["start"]) - 1

    def _made(self, beside: Path | None, name: str) -> Path | None:
        if beside is None or not is_finished(beside / name):
            return None
        made_from = read_manifest(beside / name, "index")["made_from"]["atlas"]
        refuse_unfit(str(beside / name), {"atlas": (made_from, self.atlas.manifest["hash"])})
        return beside / name

    def label(self, feature: int) -> str | None:
        """Return the label of a feature."""
        return self.labels.get(feature) if self.labels is not None else None

    def writers(self, neuron: int) -> Writers:
        """Return the features that have ``neuron`` among those they write to most."""
        start, stop = self._by_neuron["start"][neuron : neuron + 2]
        return Writers(
            self._by_neuron["feature"][start:stop], self._by_neuron["weight"][start:stop]
        )

    def _example(self, text: str) -> Ranked:
        if not hasattr(self._local, "database"):
            assert self._index is not None
            uri = (self._index / EXAMPLES).resolve().as_uri()
            self._local.database = sqlite3.connect(f"{uri}?mode=ro&immutable=1", uri=True)
        return matching(self._local.database, "words", text)

    @cached_property
    def _meanings(self) -> dict[str, Array]:
        return mapped(self._meaning_path)

    @property
    def _meaning_path(self) -> Path:
        assert self._meaning_folder is not None
        return self._meaning_folder / MEANINGS

    def _tails(self, which: Numbers) -> Array:
        """Return rows of ``tail``.

        Each row brings 64 KB of the file into memory, which stays until the file is let go.
        """
        parts = np.array_split(which, AT_A_TIME)
        return np.concatenate([mapped(self._meaning_path)["tail"][part] for part in parts])

    @cached_property
    def _encoder(self) -> Encoder:
        assert self._load is not None
        return self._load()

    def _meaning(self, text: str) -> Ranked:
        """Return the features whose examples mean most nearly what ``text`` says."""
        return nearest(self._meanings, self._tails, self._encoder([text])[0])


def nearest(
    meanings: Mapping[str, Array],
    tails: Callable[[Numbers], Array],
    vector: npt.NDArray[np.float32],
) -> Ranked:
    """Return the features of the largest cosines with ``vector``.

    All are compared in the dimensions of ``head``; the best of those in all dimensions, of which
    ``tails`` gives the rest.
    """
    head, step = meanings["head"], meanings["step"]
    turned = (vector @ meanings["turn"]).astype(np.float32)
    score = np.empty(len(head), np.float32)
    products(head, turned[:HEAD], step, score)
    best = np.arange(len(head))
    if len(head) > LOOKED_AT:
        best = np.sort(np.argpartition(score, -LOOKED_AT)[-LOOKED_AT:])
    numbers: Numbers = best.astype(np.int32)
    whole = score[numbers] + (tails(numbers).astype(np.float32) @ turned[HEAD:]) * step[numbers]
    order = np.argsort(-whole, kind="stable")[:NEAR]
    return Ranked(numbers[order], more=len(head) > NEAR)
