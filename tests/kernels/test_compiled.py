"""Compiled loops are kept on disk, and never outlive what they were compiled from."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sememe

HASH = """
from sememe.atlas.statistics import hashed
print(int(hashed(5, 7)))
"""
RANK = """
import numpy as np
from sememe.kernels.candidates import rank_rows
scores = np.array([[1.0, 3.0, 2.0]], np.float32).view(np.int32)
features, counts = np.array([[7, 8, 9]], np.int32), np.array([3], np.int32)
indices, values = np.empty((1, 3), np.int32), np.empty((1, 3), np.int32)
rank_rows(features, scores, counts, 3, indices, values)
print(indices[0].tolist())
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package, to be edited."""
    folder = tmp_path_factory.mktemp("copy") / "sememe"
    unused = shutil.ignore_patterns("__pycache__", "assets")
    shutil.copytree(Path(sememe.__file__).parent, folder, ignore=unused)
    return folder


def printed(program: str, copy: Path) -> str:
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=copy.parent, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def replace(source: Path, old: str, new: str) -> None:
    text = source.read_text()
    assert text.count(old) == 1
    source.write_text(text.replace(old, new))


def test_a_loop_is_compiled_again_when_one_that_it_calls_has_changed(copy: Path) -> None:
    assert printed(RANK, copy) == "[8, 9, 7]"
    assert list(copy.glob("kernels/__pycache__/candidates.rank_rows*.nbi"))
    replace(copy / "kernels/selection.py", "keys[other] > key", "keys[other] < key")
    assert printed(RANK, copy) == "[7, 9, 8]"


def test_a_loop_outside_the_kernels_is_compiled_again_when_it_has_changed(copy: Path) -> None:
    before = printed(HASH, copy)
    assert list(copy.glob("atlas/__pycache__/statistics.hashed*.nbi"))
    assert printed(HASH, copy) == before
    replace(copy / "atlas/statistics.py", "0x94D049BB133111EB", "0x94D049BB133111ED")
    assert printed(HASH, copy) != before
