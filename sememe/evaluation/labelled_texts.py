"""Texts of several classes, and of two labels at once, as their tokens' activations.

The sets are those of sae-probes. Of each text the last tokens are read, and all of them count that
the token rules keep.

Axis names: rows = tokens that count, texts = those drawn, width = of an activation.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from sememe.activations.rules import TokenRules
from sememe.corpora.fetch import fetch
from sememe.corpora.labelled import text_labels
from sememe.corpora.sources import SETS
from sememe.errors import SememeError
from sememe.evaluation.arms import Arm
from sememe.evaluation.readings import all_activations, kept
from sememe.evaluation.sections import NotApplicableError, SuiteName
from sememe.progress import Progress

CLASSES = 5
"""Of a set, at most: the commonest."""


@dataclass(frozen=True)
class Common:
    """Two sets of two classes that have texts in common."""

    names: tuple[str, str]
    """What the two labels are called."""
    first: str
    second: str

    def groups(self, path: Path) -> list[list[str]]:
        """Return the texts of each combination of labels: neither, second, first, both."""
        one, two = (text_labels(name, path) for name in (self.first, self.second))
        found: list[list[str]] = [[], [], [], []]
        for text in one:
            if text in two:
                first, second = (found[text] == max(found.values()) for found in (one, two))
                found[2 * first + second].append(text)
        return found


@dataclass(frozen=True)
class Sources:
    """Two sets that have a label in common; the other label is which of them a text is from."""

    names: tuple[str, str]
    """What the two labels are called."""
    first: tuple[str, str, str]
    """A set, and its labels for texts without and with it."""
    second: tuple[str, str, str]

    def groups(self, path: Path) -> list[list[str]]:
        """Return the texts of each combination of labels: neither, second, first, both."""
        of_source = [(text_labels(name, path), both) for name, *both in (self.first, self.second)]
        return [
            [text for text, found in labels.items() if found == both[label]]
            for label in (0, 1)
            for labels, both in of_source
        ]


@dataclass(frozen=True)
class Effort:
    """How much of what is read."""

    sets: tuple[str, ...]
    """Sets of three classes or more."""
    pairs: tuple[Common | Sources, ...]
    """Texts with two labels."""
    train: int
    """Texts of a class, or of a pair's quadrant, that probes are fitted to, at most."""
    test: int
    """Texts that they are held to, at most; half as many as for fitting where there are few."""
    tokens: int = 64
    """Of a text, the last ones."""


_MOVIES, _SHOP = ("113_movie_sent", "0", "1"), ("157_amazon_5star", "0", "1")
_RESTAURANTS = ("112_amzn_rev", "0", "4")
_STANDARD = Effort(
    ("97_news_class", "17_world_country"),
    (
        Sources(("praise", "restaurant, not film"), _MOVIES, _RESTAURANTS),
        Common(("man", "American"), "5_hist_fig_ismale", "6_hist_fig_isamerican"),
    ),
    train=80,
    test=40,
)
EFFORTS: dict[SuiteName, Effort] = {
    "quick": _STANDARD,
    "standard": _STANDARD,
    "full": Effort(
        (*_STANDARD.sets, "103_it_tick", "101_disease_class", "27_art_type"),
        (
            *_STANDARD.pairs,
            Sources(("praise", "goods, not film"), _MOVIES, _SHOP),
            Sources(("praise", "goods, not restaurant"), _RESTAURANTS, _SHOP),
            Common(("man", "politician"), "5_hist_fig_ismale", "7_hist_fig_ispolitician"),
            Common(("man", "actor"), "56_wikidatasex_or_gender", "61_wikidata_occupation_isactor"),
        ),
        train=200,
        test=100,
    ),
}


class Texts(NamedTuple):
    """Texts as activations."""

    values: Float[Tensor, "rows width"]
    text: Int64[np.ndarray, " rows"]
    """The text of each row."""
    total: int
    """How many texts there are."""

    @property
    def present(self) -> Bool[np.ndarray, " texts"]:
        """Which have a token that counts."""
        return np.bincount(self.text, minlength=self.total) > 0

    def averaging(self) -> scipy.sparse.csr_array:
        """Return what takes rows to the means of texts, (texts, rows); 0 where there is no row."""
        rows = np.bincount(self.text, minlength=self.total)
        entries = (1 / rows[self.text], (self.text, np.arange(len(self.text))))
        return scipy.sparse.csr_array(entries, shape=(self.total, len(self.text)))


class Classes(NamedTuple):
    """A set of several classes."""

    name: str
    classes: list[str]
    texts: Texts
    label: Int64[np.ndarray, " texts"]
    """Place of the text's class."""
    test: Bool[np.ndarray, " texts"]


class Pair(NamedTuple):
    """Texts with two labels, as many of each of the four combinations."""

    names: tuple[str, str]
    texts: Texts
    labels: Bool[np.ndarray, "texts two"]
    test: Bool[np.ndarray, " texts"]
    half: Bool[np.ndarray, " texts"]
    """Every other text for fitting of each combination."""


def read_classes(arm: Arm, name: str, effort: Effort, seed: int, progress: Progress) -> Classes:
    """Draw as many texts of each class and read them."""
    labels = text_labels(name, _package(progress))
    classes = sorted(label for label, _ in Counter(labels.values()).most_common(CLASSES))
    groups = [[text for text, label in labels.items() if label == each] for each in classes]
    drawn, tests = _draw(groups, effort, seed)
    size = len(drawn) // len(groups)
    test = np.tile(np.arange(size) < tests, len(groups))
    texts = _read(arm, name, drawn, effort, seed)
    return Classes(name, classes, texts, np.arange(len(drawn)) // size, test)


def read_pair(
    arm: Arm, pair: Common | Sources, effort: Effort, seed: int, progress: Progress
) -> Pair:
    """Draw as many texts of each combination of two labels and read them."""
    drawn, tests = _draw(pair.groups(_package(progress)), effort, seed)
    size = len(drawn) // 4
    place = np.tile(np.arange(size), 4)
    texts = _read(arm, asdict(pair), drawn, effort, seed)
    kinds = np.array([(a, b) for a in (False, True) for b in (False, True)])
    labels = np.repeat(kinds, size, axis=0)
    return Pair(pair.names, texts, labels, place < tests, (place >= tests) & (place % 2 == 0))


def _package(progress: Progress) -> Path:
    try:
        return fetch(SETS, progress)
    except SememeError as error:
        raise NotApplicableError(f"the labelled sets are not there: {error}") from None


def _draw(groups: Sequence[list[str]], effort: Effort, seed: int) -> tuple[list[str], int]:
    """Return as many texts of every group, one group after the other, and how many are tests."""
    smallest = min(len(group) for group in groups)
    tests = min(effort.test, smallest // 3)
    size = tests + min(effort.train, smallest - tests)
    generator = np.random.default_rng(seed)
    orders = [generator.permutation(len(group))[:size] for group in groups]
    drawn = [group[n] for group, order in zip(groups, orders, strict=True) for n in order.tolist()]
    return drawn, tests


def _read(arm: Arm, name: object, texts: list[str], effort: Effort, seed: int) -> Texts:
    """Return the tokens that count, from disk if they were read before."""
    rules = TokenRules.of(arm.held_out)
    limit = rules.norm_limits.get(arm.site)
    made_from = ["pooled", arm.model.hash, arm.model.dtype, arm.site, SETS.sha256, name]

    def make() -> dict[str, Tensor]:
        last = min(effort.tokens, arm.model.context - 1)
        encoded = [ids[-last:] for ids in arm.model.tokenizer.encode_batch(texts)]
        values = all_activations(arm.model, arm.site, encoded)
        keep = rules.keep(torch.tensor([i for ids in encoded for i in ids]), {arm.site: values})
        text = torch.arange(len(texts)).repeat_interleave(torch.tensor([len(i) for i in encoded]))
        dtype = torch.bfloat16 if arm.model.dtype == "bf16" else torch.float32
        return {"values": values[keep].to(dtype), "text": text[keep]}

    found = kept(
        [*made_from, effort.train, effort.test, effort.tokens, seed, limit, sorted(rules.special)],
        make,
    )
    return Texts(found["values"].float(), found["text"].numpy(), len(texts))
