import gc
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from sememe.activations.store import Activations
from sememe.errors import SememeError, UsageError
from tests.activations.stores import SITE, make_store


def test_rows_come_back_across_shards(tmp_path: Path) -> None:
    values = torch.randn(100, 4)
    store = make_store(tmp_path, values, [30, 50, 20])
    assert torch.equal(store.read(SITE, 25, 85), values[25:85])
    assert torch.equal(store.read("place", 29, 81), torch.arange(29, 81))
    rebuilt = torch.cat([rows.values for rows in store.in_order(SITE, chunk=7)])
    assert torch.equal(rebuilt, values)
    starts = [rows.start for rows in store.in_order(SITE, chunk=30)]
    assert starts == [0, 30, 60, 80]


def test_an_altered_byte_is_found_and_its_file_named(tmp_path: Path) -> None:
    make_store(tmp_path, torch.randn(100, 4), [50, 50])
    path = tmp_path / "shard-00001.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(SememeError, match=r"shard-00001\.safetensors has checksum"):
        Activations.open(tmp_path)


def test_a_truncated_and_a_missing_file_are_named(tmp_path: Path) -> None:
    make_store(tmp_path, torch.randn(100, 4), [50, 50])
    path = tmp_path / "shard-00000.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(SememeError, match=r"shard-00000\.safetensors has \d+ bytes"):
        Activations.open(tmp_path)
    path.unlink()
    with pytest.raises(SememeError, match=r"shard-00000\.safetensors is missing"):
        Activations.open(tmp_path)


def test_wrong_requests_name_what_is_there(tmp_path: Path) -> None:
    store = make_store(tmp_path, torch.randn(10, 4), [10])
    with pytest.raises(UsageError, match=r"layers\.9\.resid.*layers\.0\.resid"):
        store.scale("layers.9.resid")
    with pytest.raises(UsageError, match=r"rows 20 to 30.*rows 0 to 10"):
        store.read(SITE, 20, 30)
    with pytest.raises(SememeError, match="does not exist"):
        Activations.open(tmp_path / "nowhere")


def test_rows_are_taken_in_any_order_across_shards(tmp_path: Path) -> None:
    values = torch.randn(100, 4).half()
    store = make_store(tmp_path, values, [30, 0, 50, 20])
    numbers = np.array([99, 0, 30, 29, 79, 80, 5, 5])
    assert torch.equal(store.take(SITE, numbers), values[numbers])
    assert store.take("place", numbers).tolist() == numbers.tolist()
    for wrong in ([], [3, 100], [-1]):
        with pytest.raises(UsageError, match="has rows 0 to 100"):
            store.take(SITE, np.array(wrong, np.int64))


def test_the_disk_is_asked_for_the_bytes_of_the_rows_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = torch.randn(100, 4)
    store = make_store(tmp_path, values, [30, 0, 50, 20])
    asked: list[bytes] = []

    def advise(descriptor: int, start: int, size: int, _advice: int) -> None:
        assert size <= 100
        asked.append(os.pread(descriptor, size, start))

    monkeypatch.setattr(os, "posix_fadvise", advise)
    monkeypatch.setattr("sememe.activations.shard_file.ASKED", 100)
    store.expect((SITE, "place"), np.array([8, 16, 24, 48, 76, 96]), 8)
    rows = torch.tensor([*range(8, 32), *range(48, 56), *range(76, 84), *range(96, 100)])
    first, second, last = rows[rows < 30], rows[(rows >= 30) & (rows < 80)], rows[rows >= 80]
    parts = [part for rows in (first, second, last) for part in (values[rows], rows)]
    assert b"".join(asked) == b"".join(part.numpy().tobytes() for part in parts)


def test_a_closed_store_lets_go_of_its_files_and_reads_on(tmp_path: Path) -> None:
    values = torch.randn(100, 4)
    store = make_store(tmp_path, values, [50, 50])
    numbers = np.arange(100)

    def held() -> int:
        maps = Path("/proc/self/maps").read_text().count(f"{tmp_path}/shard-")
        links = (str(link.resolve()) for link in Path("/proc/self/fd").iterdir())
        return maps + sum(str(tmp_path) in link for link in links)

    store.take(SITE, numbers)
    assert held() >= 4
    store.close()
    gc.collect()
    assert held() == 0
    assert torch.equal(store.take(SITE, numbers), values)
