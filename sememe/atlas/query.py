"""Find features: filters on columns, words in their tokens, sort orders, counts by group.

A query reads columns alone, never pages; over a million features it takes some milliseconds.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sememe.atlas.columns import among, between, holding, mark, post, take, tally
from sememe.atlas.store import STATUSES, Atlas
from sememe.errors import SememeError, UsageError

Numbers = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]
Starts = npt.NDArray[np.int64]

NUMERIC = (
    "frequency",
    "mean",
    "maximum",
    "mean_square",
    "norm",
    "alignment",
    "neurons",
    "token_share",
    "source_share",
    "other_cosine",
    "x",
    "y",
)
"""The columns of one number a feature: each can be sorted by, and filtered to a range."""
SORTS = ("relevance", "feature", "token", *NUMERIC)
TOKEN_COLUMNS = {"tokens": ("tokens", "promotes"), "fires": ("tokens",), "promotes": ("promotes",)}
"""Ways to look for text in tokens, and the columns that each looks in."""
COMMON = 0.01
"""Share of tokens above which features that are not yet dense tell little at a glance."""
_AFTER = {"alive": 0, "dense": 2, "ultralow": 3, "dead": 4}
KEPT = 16
"""Filters whose features are remembered, a byte a feature."""


@dataclass(frozen=True)
class Query:
    """Which features, and in what order."""

    sort: str = "frequency"
    """One of ``SORTS``; ``relevance`` is the order of a ranked search, else ordinary features
    first: those that fire on at most ``COMMON`` of the tokens by frequency, then the more frequent,
    the dense, the ultralow and the dead ones."""
    descending: bool = True
    search: str = ""
    """Text to look for; whatever its case in tokens, where it may also be a feature's number."""
    by: str = "tokens"
    """What ``search`` looks in: one of ``TOKEN_COLUMNS``, or of the ranked searches there are."""
    status: tuple[str, ...] = ()
    """Only features of one of these statuses."""
    source: tuple[str, ...] = ()
    """Only features whose main source is one of these."""
    cluster: tuple[int, ...] = ()
    """Only features of these clusters of the map."""
    ranges: tuple[tuple[str, float, float], ...] = ()
    """Columns with the lowest and the highest value that a feature may have."""
    lasso: tuple[tuple[float, float], ...] = ()
    """Only features inside this polygon on the map."""
    only: tuple[int, ...] | None = None
    """Only these features."""


class Ranked(NamedTuple):
    """What a ranked search found, best first."""

    numbers: Numbers
    more: bool = False
    """Whether there were more than it looked at: the rest is left out."""


class Found(NamedTuple):
    """The features of a query, in its order."""

    numbers: Numbers
    """Those that were asked for."""
    total: int
    more: bool
    """Whether a ranked search left some out."""
    facets: dict[str, dict[str, int]]
    """How many of all that were found have each status, main source and cluster."""


class Finder:
    """Answers queries about an atlas; safe to share between threads.

    ``searches`` are ways to rank features by a text, by the name that :attr:`Query.by` gives them.
    """

    def __init__(
        self, atlas: Atlas, searches: Mapping[str, Callable[[str], Ranked]] | None = None
    ) -> None:
        self.atlas = atlas
        self.searches = dict(searches or {})
        self.sources: list[str] = list(map(str, atlas.manifest.get("sources", [])))
        self.numeric = tuple(name for name in NUMERIC if name in atlas.columns)
        self._order = lru_cache(maxsize=None)(self._sorted)
        self._passing = lru_cache(maxsize=KEPT)(self._mask)
        self._facets = lru_cache(maxsize=16 * KEPT)(self._tallied)

    def prepare(self) -> None:
        """Make now what the first queries would wait for."""
        self.find(Query(search="the"), limit=1, facets=True)
        self.find(Query(status=("alive",), ranges=(("frequency", 0.0, 1.0),)), limit=1)
        self._facets(Query())

    def find(
        self, query: Query, offset: int = 0, limit: int | None = None, *, facets: bool = False
    ) -> Found:
        """Return the features of ``query`` from ``offset``, at most ``limit`` of them.

        Only where ``facets`` are asked for are these counted. UsageError for a column, label or
        search that this atlas lacks.
        """
        ranked = query.search and query.by not in TOKEN_COLUMNS
        filters = replace(
            query, sort="feature", descending=True, search="" if ranked else query.search
        )
        mask = self._passing(filters)
        if ranked:
            found = self._searched(query)
            numbers = found.numbers if mask is None else found.numbers[mask[found.numbers]]
            if query.sort != "relevance":
                numbers = self._resorted(numbers, query)
            counts = self._counts(self._holding(numbers)) if facets else {}
            return Found(numbers[offset:][:limit], len(numbers), found.more, counts)
        order = self._order(query.sort, query.descending)
        counts = self._facets(filters) if facets else {}
        if mask is None:
            return Found(order[offset:][:limit], len(order), more=False, facets=counts)
        total = int(np.count_nonzero(mask))
        rest = max(total - offset, 0)
        shown = np.empty(rest if limit is None else min(rest, limit), np.int32)
        take(order, mask, offset, shown)
        return Found(shown, total, more=False, facets=counts)

    def _searched(self, query: Query) -> Ranked:
        if query.by not in self.searches:
            there = ", ".join((*TOKEN_COLUMNS, *self.searches))
            raise UsageError(f"by {query.by!r}: this atlas can be searched by {there}")
        return self.searches[query.by](query.search)

    def _resorted(self, numbers: Numbers, query: Query) -> Numbers:
        return numbers[_ordered(self._key(query.sort)[numbers], query.descending)]

    def _key(self, sort: str) -> Any:  # noqa: ANN401 - an array of any dtype
        if sort == "relevance":
            status, frequency = self.atlas.columns["status"], self.atlas.columns["frequency"]
            after = np.array([_AFTER[name] for name in STATUSES])[status]
            # Frequencies are at most 1: no group reaches into the one before it.
            return frequency - 2.0 * np.where((after == 0) & (frequency > COMMON), 1, after)
        if sort == "feature":
            return np.arange(self.atlas.features, dtype=np.int32)
        if sort == "token":
            return self._token_rank[self.atlas.columns["promotes"][:, 0]]
        if sort not in self.numeric:
            there = ", ".join(("feature", "token", *self.numeric))
            raise UsageError(f"sort {sort!r}: expected one of {there}")
        return self.atlas.columns[sort]

    def _sorted(self, sort: str, descending: bool) -> Numbers:
        """Return every feature in order; ties by feature number."""
        return _ordered(self._key(sort), descending).astype(np.int32)

    def _folded(self) -> list[str]:
        return [data.decode("utf-8", "replace").casefold() for data in self.atlas.vocabulary]

    @cached_property
    def _text(self) -> tuple[Bytes, Starts]:
        """The vocabulary's bytes, whatever their case, and where each token's begin."""
        folded = [text.encode() for text in self._folded()]
        starts = np.cumsum([0, *map(len, folded)], dtype=np.int64)
        return np.frombuffer(b"".join(folded), np.uint8), starts

    @cached_property
    def _token_rank(self) -> Numbers:
        """Each token's place in the alphabet of the vocabulary; the last entry is of no token."""
        names = [text.strip() for text in self._folded()]
        place = {name: rank for rank, name in enumerate(sorted({*names, ""}))}
        return np.array([place[name] for name in [*names, ""]], np.int32)

    @cached_property
    def _postings(self) -> dict[str, tuple[Starts, Numbers]]:
        """For each column of tokens its features by token, and where each token's begin."""
        found = {}
        for name in ("tokens", "promotes"):
            column = self.atlas.columns[name]
            starts = np.empty(len(self.atlas.vocabulary) + 1, np.int64)
            members = np.empty(np.count_nonzero(column >= 0), np.int32)
            post(column, starts, members)
            found[name] = starts, members
        return found

    def _mask(self, query: Query) -> Mask | None:
        """Return which features pass every filter; None where there is no filter."""
        if query == Query(sort="feature"):
            return None
        if query.search:
            mask = self._token_matches(query.search, query.by)
        else:
            mask = np.ones(self.atlas.features, bool)
        groups = {"status": query.status, "source": query.source, "cluster": query.cluster}
        for name, wanted in groups.items():
            if wanted:
                column, chosen = self._column(name), {*map(str, wanted)}
                if name == "source":
                    self._check_sources(chosen)
                among(column, np.array([False, *(g in chosen for g in self._groups[name])]), mask)
        for name, low, high in query.ranges:
            column = self._column(name)
            between(column, column.dtype.type(low), column.dtype.type(high), mask)
        if query.lasso:
            mask &= inside(self._column("x"), self._column("y"), query.lasso)
        if query.only is not None:
            mask &= self._holding(list(query.only))
        return mask

    def _column(self, name: str) -> npt.NDArray[Any]:
        if name not in self.atlas.columns:
            raise UsageError(f"{name}: this atlas has no such column; describe it anew")
        return self.atlas.columns[name]

    def _check_sources(self, labels: set[str]) -> None:
        for label in sorted(labels - {*self.sources}):
            raise UsageError(f"source {label[:80]!r}: expected one of {', '.join(self.sources)}")

    def _token_matches(self, search: str, by: str) -> Mask:
        matches = np.zeros(self.atlas.features, dtype=bool)
        if search.strip().isdecimal() and len(search) < 16 and int(search) < self.atlas.features:
            matches[int(search)] = True
        text, starts = self._text
        named = np.zeros(len(starts) - 1, bool)
        holding(text, starts, np.frombuffer(search.casefold().encode(), np.uint8), named)
        tokens = np.flatnonzero(named).astype(np.int32)
        for column in TOKEN_COLUMNS[by]:
            mark(*self._postings[column], tokens, matches)
        return matches

    @cached_property
    def _groups(self) -> dict[str, list[str]]:
        """The columns that are counted by, each with the names of its groups."""
        clusters = map(str, range(len(self.atlas.manifest.get("clusters", []))))
        groups = {"status": [*STATUSES], "source": self.sources, "cluster": [*clusters]}
        there = {name: labels for name, labels in groups.items() if name in self.atlas.columns}
        for name, labels in there.items():
            if (
                not -1
                <= self.atlas.columns[name].min()
                <= self.atlas.columns[name].max()
                < len(labels)
            ):
                raise SememeError(f"{self.atlas.path}: column {name} has groups without a name")
        return there

    def _tallied(self, filters: Query) -> dict[str, dict[str, int]]:
        """Return how many of the features that pass are in each group."""
        mask = self._passing(filters)
        return self._counts(np.ones(self.atlas.features, bool) if mask is None else mask)

    def _holding(self, numbers: Numbers | list[int]) -> Mask:
        mask = np.zeros(self.atlas.features, bool)
        mask[numbers] = True
        return mask

    def _counts(self, mask: Mask) -> dict[str, dict[str, int]]:
        """Return how many of these features are in each group."""
        found = {}
        for name, labels in self._groups.items():
            spread = np.zeros((4, 1 + len(labels)), np.int32)
            tally(self.atlas.columns[name], mask, spread)
            many = spread.sum(0)[1:]
            found[name] = {labels[group]: int(many[group]) for group in np.flatnonzero(many)}
        return found


def _ordered(key: npt.NDArray[Any], descending: bool) -> npt.NDArray[np.int64]:
    """Return the places of ``key`` in order; those of NaN come last, whichever the order."""
    order = np.argsort(key, kind="stable")
    if not descending:
        return order
    none = np.count_nonzero(np.isnan(key)) if np.issubdtype(key.dtype, np.floating) else 0
    return np.roll(order[::-1], -none)


def inside(
    x: npt.NDArray[Any], y: npt.NDArray[Any], polygon: tuple[tuple[float, float], ...]
) -> Mask:
    """Return which points lie inside a polygon, by the even-odd rule; NaN lies outside."""
    corners = np.array(polygon, np.float32)
    low, high = corners.min(0), corners.max(0)
    near = np.flatnonzero((x >= low[0]) & (x <= high[0]) & (y >= low[1]) & (y <= high[1]))
    px, py = x[near].astype(np.float64), y[near].astype(np.float64)
    odd = np.zeros(len(near), bool)
    for (x0, y0), (x1, y1) in zip(
        corners.tolist(), np.roll(corners, -1, axis=0).tolist(), strict=True
    ):
        if y0 == y1:
            continue
        crosses = (y0 > py) != (y1 > py)
        odd ^= crosses & (px < x0 + (py - y0) * (x1 - x0) / (y1 - y0))
    mask = np.zeros(len(x), bool)
    mask[near] = odd
    return mask
