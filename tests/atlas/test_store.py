from pathlib import Path

import numpy as np
import pytest

from sememe.artefacts import read_manifest
from sememe.atlas.store import Atlas
from sememe.atlas.writing import write_atlas
from sememe.errors import SememeError, UsageError

WORDS = [b" sea", b" ship", b"<script>", "é".encode(), b"\xe4\xb8", b" Sea", b"9"]


def small(path: Path) -> Atlas:
    pages = [{"feature": number, "text": "ü\u202e" * number} for number in range(5)]
    columns = {
        "frequency": np.array([0.5, 0.1, 0.0, 0.1, 0.2], np.float32),
        "mean": np.arange(5, dtype=np.float32),
        "maximum": np.array([5, 4, 0, 2, 1], np.float32),
        "status": np.array([2, 0, 1, 0, 0], np.uint8),
        "promotes": np.array([[1, 6], [0, -1], [3, 3], [2, 2], [5, 4]], np.int32),
        "tokens": np.array([[3, -1], [3, 1], [-1, -1], [4, 4], [2, 6]], np.int32),
    }
    return write_atlas(path, pages, columns, WORDS, config={}, made_from={"model": "m"}, site="s")


def test_pages_come_back_as_written(tmp_path: Path) -> None:
    atlas = small(tmp_path)
    assert atlas.features == 5
    assert atlas.feature(3) == {"feature": 3, "text": "ü\u202e" * 3}
    assert atlas.token_bytes([4, 0]) == [b"\xe4\xb8", b" sea"]
    assert Atlas.open(tmp_path).manifest["site"] == "s"


@pytest.mark.parametrize("number", [-1, 5, 10**12])
def test_no_such_feature(tmp_path: Path, number: int) -> None:
    with pytest.raises(UsageError, match=f"feature {number}: expected a number from 0 to 4"):
        small(tmp_path).feature(number)


@pytest.mark.parametrize(
    ("sort", "descending", "expected"),
    [
        ("feature", False, [0, 1, 2, 3, 4]),
        ("frequency", True, [0, 4, 3, 1, 2]),
        ("maximum", False, [2, 4, 3, 1, 0]),
        ("token", False, [3, 1, 4, 0, 2]),  # <script>, sea, Sea, ship, é
    ],
)
def test_rows_are_sorted(tmp_path: Path, sort: str, descending: bool, expected: list[int]) -> None:
    total, rows = small(tmp_path).rows(sort=sort, descending=descending)
    assert total == 5
    assert [row["feature"] for row in rows] == expected


def test_rows_are_paged(tmp_path: Path) -> None:
    total, rows = small(tmp_path).rows(sort="feature", descending=False, offset=3, limit=5)
    assert (total, [row["feature"] for row in rows]) == (5, [3, 4])


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ("sea", {1, 4}),  # promoted by 1 and, capitalised, by 4
        ("SHIP", {0, 1}),  # promoted by 0, fires 1
        ("<script", {3, 4}),
        ("2", {2}),  # a number is a feature
        ("9", {0, 4}),  # also a token
        ("nothing", set()),
    ],
)
def test_search_finds_tokens_and_numbers(tmp_path: Path, search: str, expected: set[int]) -> None:
    total, rows = small(tmp_path).rows(search=search)
    assert {row["feature"] for row in rows} == expected
    assert total == len(expected)


def test_an_unknown_sort_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="sort 'size': expected one of feature"):
        small(tmp_path).rows(sort="size")


def test_the_same_atlas_has_the_same_bytes(tmp_path: Path) -> None:
    small(tmp_path / "a")
    small(tmp_path / "b")
    for name in ("features.sqlite", "columns.safetensors", "manifest.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_an_altered_atlas_is_noticed(tmp_path: Path) -> None:
    small(tmp_path)
    path = tmp_path / "columns.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(SememeError, match=r"columns\.safetensors has checksum"):
        Atlas.open(tmp_path)
    assert read_manifest(tmp_path, "atlas")["features"] == 5


def test_a_failed_write_leaves_no_file(tmp_path: Path) -> None:
    def pages() -> object:
        yield {"feature": 0}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atlas(tmp_path, pages(), {}, WORDS, config={}, made_from={})  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
