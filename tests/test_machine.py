"""What the machine is said to have left, from files as the system writes them."""

import shutil
from pathlib import Path

import pytest

from sememe.errors import SememeError
from sememe.machine import disk_free, memory_free, memory_used, nearest_folder

MIB = 1 << 20


def meminfo(path: Path, available: int) -> Path:
    path.write_text(f"MemTotal: 9999999 kB\nMemFree: 1 kB\nMemAvailable: {available >> 10} kB\n")
    return path


def test_memory_is_what_the_system_says_is_available(tmp_path: Path) -> None:
    assert memory_free(meminfo(tmp_path / "meminfo", 700 * MIB), tmp_path) == 700 * MIB


@pytest.mark.parametrize(
    ("folder", "names"),
    [
        (".", ("memory.max", "memory.current", "inactive_file")),
        (
            "memory",
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ),
    ],
)
def test_a_containers_limit_counts_less_what_it_uses_but_for_files_in_its_cache(
    folder: str, names: tuple[str, str, str], tmp_path: Path
) -> None:
    group = tmp_path / folder
    group.mkdir(exist_ok=True)
    limit, usage, cache = names
    (group / limit).write_text(f"{400 * MIB}\n")
    (group / usage).write_text(f"{300 * MIB}\n")
    (group / "memory.stat").write_text(f"anon 5\n{cache} {50 * MIB}\n")
    assert memory_free(meminfo(tmp_path / "meminfo", 700 * MIB), tmp_path) == 150 * MIB


def test_a_group_without_a_limit_sets_none(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5\n")
    (tmp_path / "memory.stat").write_text("inactive_file 0\n")
    assert memory_free(meminfo(tmp_path / "meminfo", 7 * MIB), tmp_path) == 7 * MIB


def test_a_system_that_says_nothing_still_has_an_answer(tmp_path: Path) -> None:
    assert memory_free(tmp_path / "missing", tmp_path) > 0


def test_memory_used_grows_with_what_is_held() -> None:
    before = memory_used()
    held = bytearray(b"x" * (64 * MIB))
    assert memory_used() - before > 32 * MIB
    assert held[-1] == ord("x")


def test_the_disk_is_that_of_the_nearest_folder(tmp_path: Path) -> None:
    place = tmp_path / "not" / "there"
    assert nearest_folder(place) == tmp_path
    assert disk_free(place) == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.05)
    (tmp_path / "file").write_text("")
    with pytest.raises(SememeError, match="file is a file"):
        nearest_folder(tmp_path / "file" / "run")
