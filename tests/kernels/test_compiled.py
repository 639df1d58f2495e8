"""Compiled loops are kept on disk, and never outlive what they were compiled from."""

import shutil
import subprocess
import sys
from pathlib import Path

import sememe

RANK = """
import numpy as np
from sememe.kernels.candidates import rank_rows
scores = np.array([[1.0, 3.0, 2.0]], np.float32).view(np.int32)
features, counts = np.array([[7, 8, 9]], np.int32), np.array([3], np.int32)
indices, values = np.empty((1, 3), np.int32), np.empty((1, 3), np.int32)
rank_rows(features, scores, counts, 3, indices, values)
print(indices[0].tolist())
"""


def test_a_loop_is_compiled_again_when_one_that_it_calls_has_changed(tmp_path: Path) -> None:
    folder = tmp_path / "sememe"
    shutil.copytree(
        Path(sememe.__file__).parent, folder, ignore=shutil.ignore_patterns("__pycache__", "web")
    )

    def ranked() -> str:
        command = [sys.executable, "-c", RANK]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout.strip()

    assert ranked() == "[8, 9, 7]"
    assert list(folder.glob("kernels/__pycache__/candidates.rank_rows*.nbi"))
    source = folder / "kernels/selection.py"
    text = source.read_text()
    assert text.count("keys[other] > key") == 1
    source.write_text(text.replace("keys[other] > key", "keys[other] < key"))
    assert ranked() == "[7, 9, 8]"
