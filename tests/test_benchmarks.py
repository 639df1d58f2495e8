"""Benchmarks print what others rely on. Their figures are nobody's test."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KEYS = {"acts_per_cpu_second", "ratio_dense_torch", "floor_fraction", "peak_mb", "cpu_seconds"}


@pytest.mark.parametrize("kind", ["topk", "jumprelu"])
def test_a_training_step_is_measured(kind: str) -> None:
    sizes = ["--d-in", "16", "--features", "64", "--batch", "128", "--k", "4", "--rounds", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.train_step", "--kind", kind, *sizes, "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert set(figures) >= KEYS
    assert all(figures[key] > 0 for key in KEYS)


def test_reading_and_mixing_of_a_stream_are_measured() -> None:
    sizes = ["--rows", "3000", "--width", "8", "--batch", "256", "--rounds", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.stream", *sizes, "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["rows"] == 3000
    keys = {"read_ratio", "rows_per_second", "unique_documents_ratio", "lag1_ratio"}
    assert all(figures[key] > 0 for key in keys)


def test_describing_is_measured_beside_encoding() -> None:
    sizes = ["--tokens", "3000", "--features", "128", "--k", "4"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.describe", *sizes, "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["features"] == 128
    keys = {"features_per_minute", "tokens_per_second", "ratio_encode", "peak_mb"}
    assert all(figures[key] > 0 for key in keys)
