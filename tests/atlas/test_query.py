"""Queries against plain loops over the columns."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sememe.atlas.query import Finder, Query, inside
from sememe.atlas.store import STATUSES, Atlas
from sememe.atlas.writing import write_atlas
from sememe.errors import UsageError

WORDS = [b" sea", b" ship", b"<script>", "é".encode(), b"\xe4\xb8", b" Sea", b"9"]
SOURCES = ["prose", "code", "mail"]
COUNT = 60


@pytest.fixture(scope="module")
def finder(tmp_path_factory: pytest.TempPathFactory) -> Finder:
    rng = np.random.default_rng(0)
    path: Path = tmp_path_factory.mktemp("query") / "atlas"
    columns = {
        "frequency": np.round(rng.random(COUNT), 1).astype(np.float32),
        "mean": rng.random(COUNT).astype(np.float32),
        "maximum": rng.integers(0, 4, COUNT).astype(np.float32),
        "status": rng.integers(0, 4, COUNT).astype(np.uint8),
        "source": rng.integers(-1, 3, COUNT).astype(np.int16),
        "cluster": rng.integers(-1, 2, COUNT).astype(np.int32),
        "x": rng.normal(size=COUNT).astype(np.float32),
        "y": rng.normal(size=COUNT).astype(np.float32),
        "promotes": rng.integers(-1, len(WORDS), (COUNT, 2)).astype(np.int32),
        "tokens": rng.integers(-1, len(WORDS), (COUNT, 3)).astype(np.int32),
    }
    columns["x"][5] = columns["y"][5] = np.nan
    write_atlas(
        path,
        [{"feature": number} for number in range(COUNT)],
        columns,
        WORDS,
        config={},
        made_from={},
        sources=SOURCES,
        clusters=[{"name": name, "size": 1, "x": 0.0, "y": 0.0} for name in "ab"],
    )
    return Finder(Atlas.open(path))


def words(finder: Finder, feature: int, *columns: str) -> list[str]:
    ids = np.concatenate([finder.atlas.columns[name][feature] for name in columns])
    return [WORDS[token].decode("utf-8", "replace").lower() for token in ids if token >= 0]


def passes(finder: Finder, query: Query, feature: int) -> bool:
    """Whether a feature passes the filters, by their words alone."""
    columns = {name: column[feature] for name, column in finder.atlas.columns.items()}
    looked_in = {"tokens": ["tokens", "promotes"], "fires": ["tokens"], "promotes": ["promotes"]}
    found = any(query.search.lower() in w for w in words(finder, feature, *looked_in[query.by]))
    return (
        (not query.search or found or query.search.strip() == str(feature))
        and (not query.status or STATUSES[columns["status"]] in query.status)
        and (
            not query.source
            or (columns["source"] >= 0 and SOURCES[columns["source"]] in query.source)
        )
        and (not query.cluster or columns["cluster"] in query.cluster)
        and all(low <= columns[name] <= high for name, low, high in query.ranges)
        and (query.only is None or feature in query.only)
    )


ranges = st.tuples(
    st.sampled_from(["frequency", "maximum", "x"]),
    st.sampled_from([-math.inf, 0.0, 0.3, 1.0]),
    st.sampled_from([0.5, 2.0, math.inf]),
)
queries = st.fixed_dictionaries(
    {
        "sort": st.sampled_from(["relevance", "feature", "token", "frequency", "maximum", "x"]),
        "descending": st.booleans(),
        "search": st.sampled_from(["", "sea", "SHIP", "<scr", "é", "9", "12", "nothing", "\ufffd"]),
        "by": st.sampled_from(["tokens", "fires", "promotes"]),
        "status": st.lists(st.sampled_from(STATUSES), max_size=2).map(tuple),
        "source": st.lists(st.sampled_from(SOURCES), max_size=2).map(tuple),
        "cluster": st.lists(st.integers(0, 2), max_size=2).map(tuple),
        "ranges": st.lists(ranges, max_size=2).map(tuple),
        "only": st.none() | st.lists(st.integers(0, COUNT - 1), max_size=30).map(tuple),
    }
)


@settings(max_examples=300, deadline=None)
@given(asked=queries)
def test_queries_find_what_a_loop_finds(finder: Finder, asked: dict[str, Any]) -> None:
    query = Query(**asked)
    found = finder.find(query, facets=True)
    expected = {number for number in range(COUNT) if passes(finder, query, number)}
    assert sorted(found.numbers.tolist()) == sorted(expected)
    assert found.total == len(expected)
    part = finder.find(query, 3, 4)
    assert part.numbers.tolist() == found.numbers[3:7].tolist()
    assert (part.total, part.facets) == (found.total, {})
    facets = found.facets
    status = finder.atlas.columns["status"]
    assert facets["status"] == {
        name: count
        for i, name in enumerate(STATUSES)
        if (count := sum(status[number] == i for number in expected))
    }
    in_source = [n for n in expected if finder.atlas.columns["source"][n] >= 0]
    assert sum(facets["source"].values()) == len(in_source)
    if query.sort not in ("relevance", "token"):
        values = np.arange(COUNT) if query.sort == "feature" else finder.atlas.columns[query.sort]
        shown = [value for value in values[found.numbers].tolist() if not math.isnan(value)]
        assert shown == sorted(shown, reverse=query.descending)


def test_ordinary_features_come_first_and_dead_ones_last(finder: Finder) -> None:
    status, frequency = finder.atlas.columns["status"], finder.atlas.columns["frequency"]

    def place(number: int) -> tuple[int, float, int]:
        name, share = STATUSES[status[number]], float(frequency[number])
        group = {"alive": int(share > 0.01), "dense": 2, "ultralow": 3, "dead": 4}[name]
        return group, -share, -number

    assert finder.find(Query(sort="relevance")).numbers.tolist() == sorted(range(COUNT), key=place)


def test_features_without_a_number_come_last_in_either_order(finder: Finder) -> None:
    assert finder.find(Query(sort="x")).numbers[-1] == 5
    assert finder.find(Query(sort="x", descending=False)).numbers[-1] == 5


def test_tokens_sort_by_alphabet(finder: Finder) -> None:
    numbers = finder.find(Query(sort="token", descending=False)).numbers.tolist()
    first = [finder.atlas.columns["promotes"][number, 0] for number in numbers]
    names = [
        WORDS[token].decode("utf-8", "replace").lower().strip() if token >= 0 else ""
        for token in first
    ]
    assert names == sorted(names)


corners = st.tuples(st.floats(-2, 2, width=32), st.floats(-2, 2, width=32))


@settings(max_examples=100, deadline=None)
@given(polygon=st.lists(corners, min_size=3, max_size=8).map(tuple))
def test_a_lasso_holds_what_a_ray_crosses_an_odd_number_of_times(
    finder: Finder, polygon: tuple
) -> None:
    x, y = finder.atlas.columns["x"], finder.atlas.columns["y"]
    for number, holds in enumerate(inside(x, y, polygon)):
        winding = 0
        for (x0, y0), (x1, y1) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
            if (y0 > y[number]) == (y1 > y[number]):
                continue
            at = x0 + (float(y[number]) - y0) / (y1 - y0) * (x1 - x0)
            if abs(at - x[number]) < 1e-5:  # too near to a side to say
                break
            winding += at > x[number]
        else:
            assert holds == winding % 2


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (Query(sort="size"), "sort 'size': expected one of feature"),
        (Query(sort="alignment"), "sort 'alignment': expected one of feature"),
        (Query(ranges=(("norm", 0.0, 1.0),)), "norm: this atlas has no such column"),
        (Query(source=("web",)), "source 'web': expected one of prose, code, mail"),
        (Query(search="a", by="meaning"), "by 'meaning': this atlas can be searched by tokens"),
    ],
)
def test_wrong_queries_are_refused(finder: Finder, query: Query, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        finder.find(query)
