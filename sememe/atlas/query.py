"""Find features: filters on columns, words in their tokens, sort orders, counts by group.

A query reads columns alone, never pages; over a million features it takes some milliseconds.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse

from sememe.atlas.store import STATUSES, Atlas
from sememe.errors import UsageError
from sememe.kernels.compiled import count, mark

Numbers = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]

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
    "x",
    "y",
)
"""The columns of one number a feature: each can be sorted by, and filtered to a range."""
SORTS = ("relevance", "feature", "token", *NUMERIC)
TOKEN_COLUMNS = {"tokens": ("tokens", "promotes"), "fires": ("tokens",), "promotes": ("promotes",)}
"""Ways to look for text in tokens, and the columns that each looks in."""
KEPT = 16


@dataclass(frozen=True)
class Query:
    """Which features, and in what order."""

    sort: str = "frequency"
    """One of ``SORTS``; ``relevance`` is the order of a ranked search, else by frequency."""
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
    more: bool


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
        self._find = lru_cache(maxsize=KEPT)(self._answer)
        self._facets = lru_cache(maxsize=KEPT)(self._counted)
        self._passing = lru_cache(maxsize=KEPT)(self._mask)

    def prepare(self) -> None:
        """Make now what the first queries would wait for."""
        self._order("frequency")
        self.facets(Query())
        self._token_matches("the", "tokens")

    def find(self, query: Query) -> Found:
        """Return the features of ``query``; the last few answers are kept.

        UsageError for a column, label or search that this atlas lacks.
        """
        if query.by in TOKEN_COLUMNS:
            return self._find(query)
        return self._answer(query)  # what it searches in may have changed

    def _answer(self, query: Query) -> Found:
        mask = self._passing(_unordered(query))
        ranked = None
        if query.search and query.by not in TOKEN_COLUMNS:
            ranked = self._searched(query)
            numbers = ranked.numbers if mask is None else ranked.numbers[mask[ranked.numbers]]
            if query.sort != "relevance":
                numbers = self._resorted(numbers, query)
            return Found(numbers, ranked.more)
        order = self._order("frequency" if query.sort == "relevance" else query.sort)
        if query.descending:
            order = order[::-1]
        return Found(order if mask is None else order[mask[order]], more=False)

    def _searched(self, query: Query) -> Ranked:
        if query.by not in self.searches:
            there = ", ".join((*TOKEN_COLUMNS, *self.searches))
            raise UsageError(f"by {query.by!r}: this atlas can be searched by {there}")
        return self.searches[query.by](query.search)

    def _resorted(self, numbers: Numbers, query: Query) -> Numbers:
        order = np.argsort(self._key(query.sort)[numbers], kind="stable")
        return numbers[order[::-1] if query.descending else order]

    def _key(self, sort: str) -> Any:  # noqa: ANN401 - an array of any dtype
        if sort == "feature":
            return np.arange(self.atlas.features, dtype=np.int32)
        if sort == "token":
            return self._token_rank[self.atlas.columns["promotes"][:, 0]]
        if sort not in self.numeric:
            there = ", ".join(("feature", "token", *self.numeric))
            raise UsageError(f"sort {sort!r}: expected one of {there}")
        return self.atlas.columns[sort]

    def _sorted(self, sort: str) -> Numbers:
        """Return every feature in ascending order; ties by feature number."""
        key = self._key(sort)
        if np.issubdtype(key.dtype, np.floating):
            key = np.where(np.isnan(key), -np.inf, key)  # none comes last of the largest
        return np.argsort(key, kind="stable").astype(np.int32)

    @cached_property
    def _folded(self) -> list[str]:
        return [data.decode("utf-8", "replace").casefold() for data in self.atlas.vocabulary]

    @cached_property
    def _token_rank(self) -> Numbers:
        """Each token's place in the alphabet of the vocabulary; the last entry is of no token."""
        names = [text.strip() for text in self._folded]
        place = {name: rank for rank, name in enumerate(sorted({*names, ""}))}
        return np.array([place[name] for name in [*names, ""]], np.int32)

    @cached_property
    def _postings(self) -> dict[str, Any]:
        """For each column of tokens the features by token, as a matrix of (features, tokens)."""
        shape = (self.atlas.features, len(self.atlas.vocabulary))
        found = {}
        for name in ("tokens", "promotes"):
            column = self.atlas.columns[name]
            there = column >= 0
            bounds = np.concatenate([[0], np.cumsum(there.sum(1))])
            ids = column[there]
            matrix = scipy.sparse.csr_matrix((np.ones(len(ids), bool), ids, bounds), shape)
            found[name] = matrix.tocsc()
        return found

    def _mask(self, query: Query) -> Mask | None:
        """Return which features pass every filter; None where there is no filter."""
        columns, parts = self.atlas.columns, []
        if query.search and query.by in TOKEN_COLUMNS:
            parts.append(self._token_matches(query.search, query.by))
        if query.status:
            wanted = [STATUSES.index(name) for name in query.status]
            parts.append(np.isin(columns["status"], wanted))
        if query.source:
            parts.append(np.isin(self._column("source"), list(map(self._source, query.source))))
        if query.cluster:
            parts.append(np.isin(self._column("cluster"), query.cluster))
        for name, low, high in query.ranges:
            values = self._column(name)
            parts.append((values >= low) & (values <= high))
        if query.lasso:
            parts.append(inside(self._column("x"), self._column("y"), query.lasso))
        if query.only is not None:
            chosen = np.zeros(self.atlas.features, bool)
            chosen[list(query.only)] = True
            parts.append(chosen)
        return np.logical_and.reduce(parts) if parts else None

    def _column(self, name: str) -> npt.NDArray[Any]:
        if name not in self.atlas.columns:
            raise UsageError(f"{name}: this atlas has no such column; describe it anew")
        return self.atlas.columns[name]

    def _source(self, label: str) -> int:
        if label not in self.sources:
            raise UsageError(f"source {label[:80]!r}: expected one of {', '.join(self.sources)}")
        return self.sources.index(label)

    def _token_matches(self, search: str, by: str) -> Mask:
        matches = np.zeros(self.atlas.features, dtype=bool)
        if search.strip().isdecimal() and len(search) < 16 and int(search) < self.atlas.features:
            matches[int(search)] = True
        wanted = search.casefold()
        named = [number for number, text in enumerate(self._folded) if wanted in text]
        tokens = np.array(named, np.int32)
        for column in TOKEN_COLUMNS[by]:
            matrix = self._postings[column]
            mark(matrix.indptr, matrix.indices, tokens, matches)
        return matches

    def facets(self, query: Query) -> dict[str, dict[str, int]]:
        """Return how many of what a query finds have each status, main source and cluster."""
        if query.by not in TOKEN_COLUMNS:
            return self._counted(query)
        return self._facets(_unordered(query))

    def _counted(self, query: Query) -> dict[str, dict[str, int]]:
        if query.search and query.by not in TOKEN_COLUMNS:
            numbers = self.find(query).numbers
        elif (mask := self._passing(query)) is None:
            numbers = self._order("feature")
        else:
            numbers = np.flatnonzero(mask).astype(np.int32)
        groups: dict[str, list[str]] = {"status": list(STATUSES)}
        if "source" in self.atlas.columns:
            groups["source"] = self.sources
        if "cluster" in self.atlas.columns:
            named = self.atlas.manifest.get("clusters", [])
            groups["cluster"] = [str(number) for number in range(len(named))]
        counts = {}
        for name, labels in groups.items():
            number = np.zeros(len(labels), np.int64)
            count(self.atlas.columns[name], numbers, number)
            pairs = zip(labels, number.tolist(), strict=True)
            counts[name] = {label: many for label, many in pairs if many}
        return counts


def _unordered(query: Query) -> Query:
    """Return a query with the same filters, whatever its order."""
    return replace(query, sort="feature", descending=True)


def inside(
    x: npt.NDArray[Any], y: npt.NDArray[Any], polygon: tuple[tuple[float, float], ...]
) -> Mask:
    """Return which points lie inside a polygon, by the even-odd rule; NaN lies outside."""
    corners = np.array(polygon, np.float32)
    low, high = corners.min(0), corners.max(0)
    near = np.flatnonzero((x >= low[0]) & (x <= high[0]) & (y >= low[1]) & (y <= high[1]))
    px, py = x[near], y[near]
    odd = np.zeros(len(near), bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if y0 == y1:
            continue
        crosses = (y0 > py) != (y1 > py)
        odd ^= crosses & (px < x0 + (py - y0) * (x1 - x0) / (y1 - y0))
    mask = np.zeros(len(x), bool)
    mask[near] = odd
    return mask
