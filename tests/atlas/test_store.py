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


def test_an_altered_page_is_noticed_when_it_is_read(tmp_path: Path) -> None:
    small(tmp_path)
    path = tmp_path / "features.sqlite"
    data = bytearray(path.read_bytes())
    place = data.rindex(b"\x28\xb5\x2f\xfd") + 12  # inside the last zstd frame
    data[place] ^= 1
    path.write_bytes(data)
    atlas = Atlas.open(tmp_path)
    with pytest.raises(SememeError, match=r"feature \d cannot be read"):
        [atlas.feature(number) for number in range(5)]
    path.write_bytes(data[:-1])
    with pytest.raises(SememeError, match=r"features\.sqlite has \d+ bytes"):
        Atlas.open(tmp_path)


def test_a_failed_write_leaves_no_file(tmp_path: Path) -> None:
    def pages() -> object:
        yield {"feature": 0}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atlas(tmp_path, pages(), {}, WORDS, config={}, made_from={})  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
