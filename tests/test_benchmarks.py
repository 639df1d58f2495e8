"""Benchmarks print what others rely on. Their figures are nobody's test."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.train_step import Settings, config, hold_dead
from sememe.activations.stream import MemoryStream
from sememe.dictionaries.dictionary import Dictionary
from sememe.training.trainer import Trainer

ROOT = Path(__file__).parents[1]
KEYS = {"acts_per_cpu_second", "ratio_dense_torch", "floor_fraction", "peak_mb", "cpu_seconds"}
STEP = ["train_step", "--d-in", "16", "--features", "64", "--batch", "128", "--k", "4"]


def ran(*words: str) -> subprocess.CompletedProcess[str]:
    name, *options = words
    return subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("options", [[], ["--kind", "jumprelu"], ["--dead", "0.25"]])
def test_a_training_step_is_measured(options: list[str]) -> None:
    done = ran(*STEP, "--rounds", "1", *options, "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    keys = KEYS | ({"dead", "ratio_dead"} if "--dead" in options else set())
    assert set(figures) >= keys
    assert all(figures[key] > 0 for key in keys)


def test_features_held_dead_are_what_auxk_teaches() -> None:
    settings = Settings(features=64, batch=32, k=4, dead=0.25)
    stream = MemoryStream(torch.randn(256, 16, generator=torch.Generator().manual_seed(0)))
    for share, moved in ((0.25, True), (0.0, False)):
        trainer = Trainer(stream, config(settings), stream.sites, stream.sites)
        with torch.no_grad():
            trainer.dictionary.b_enc[:16] = -100.0  # so that nothing else teaches them
        before = trainer.dictionary.W_dec.detach().clone()
        hold_dead(trainer, share)
        trainer.advance(next(stream.batches(32, 1, 0)))
        changed = (trainer.dictionary.W_dec - before).abs().amax(1) > 2e-6  # more than rounding
        assert bool(changed[:16].any()) == moved
        assert changed[16:].any()


def test_a_table_is_printed_where_no_json_is_asked_for() -> None:
    done = ran(*STEP, "--rounds", "1")
    assert done.returncode == 0, done.stderr
    assert "ratio_dense_torch" in done.stdout


def test_reading_and_mixing_of_a_stream_are_measured() -> None:
    sizes = ["--rows", "3000", "--width", "8", "--batch", "256", "--rounds", "1"]
    done = ran("stream", *sizes, "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["rows"] == 3000
    keys = {
        "read_ratio",
        "cold_read_ratio",
        "rows_per_second",
        "unique_documents_ratio",
        "lag1_ratio",
    }
    assert all(figures[key] > 0 for key in keys)


def test_optimisers_are_compared_on_one_store(small_run: Path) -> None:
    words = ["optimisers", "--activations", str(small_run / "activations"), "--features", "48"]
    words += ["--k", "4", "--batch", "128", "--steps", "40", "--json"]
    done = ran(*words)
    assert done.returncode == 0, done.stderr
    rows = {row["optimiser"]: row for row in json.loads(done.stdout)["rows"]}
    width = Dictionary.load(small_run / "dictionary").config.width
    weights = 4 * (2 * 48 * width + 48 + width)
    assert rows["adam, beta1 .9"]["state_bytes"] == 2 * weights
    assert rows["adam, beta1 0"]["state_bytes"] == weights
    assert rows["adafactor"]["state_bytes"] == 4 * (2 * (48 + width) + 48 + width)
    assert all(0 < row["fvu"] < 1 and row["cpu_seconds"] > 0 for row in rows.values())


def test_recipes_are_compared_on_one_store(small_run: Path) -> None:
    words = ["optimisers", "--activations", str(small_run / "activations"), "--features", "48"]
    words += [
        "--k",
        "4",
        "--batch",
        "128",
        "--steps",
        "40",
        "--recipes",
        "topk",
        "sememe",
        "--json",
    ]
    done = ran(*words)
    assert done.returncode == 0, done.stderr
    rows = {row["recipe"]: row for row in json.loads(done.stdout)["rows"]}
    assert list(rows) == ["topk", "sememe"]
    assert all(0 < row["fvu"] < 1 and 3 < row["l0"] < 5 for row in rows.values())


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ([*STEP, "--dead", "1.5"], 2, "dead is 1.5; expected 0 to 1"),
        ([*STEP, "--dead", "-0.1"], 2, "dead is -0.1; expected 0 to 1"),
        (["optimisers", "--activations", "nowhere"], 1, "nowhere does not exist"),
        (["optimisers", "--activations", "STORE", "--steps", "2"], 2, "steps is 2; expected more"),
        (["optimisers", "--activations", "STORE", "--site", "a"], 2, "site 'a' is not in"),
        (
            ["optimisers", "--activations", "STORE", "--recipes", "gated"],
            2,
            "recipe gated has none",
        ),
        (["optimisers", "--activations", "STORE", "--k", "0"], 2, "k is 0; expected 1 to 2304"),
    ],
)
def test_wrong_settings_are_one_line(
    words: list[str], status: int, said: str, small_run: Path
) -> None:
    places = {"STORE": str(small_run / "activations")}
    done = ran(*(places.get(word, word) for word in words))
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_describing_is_measured_beside_encoding() -> None:
    done = ran("describe", "--tokens", "3000", "--features", "128", "--k", "4", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["features"] == 128
    keys = {"features_per_minute", "tokens_per_second", "ratio_encode", "peak_mb"}
    assert all(figures[key] > 0 for key in keys)


def test_what_watching_costs_a_training_is_measured() -> None:
    sizes = ["--features", "64", "--width", "16", "--batch", "64", "--steps", "5"]
    done = ran("watching", *sizes, "--rounds", "2", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert all(figures[key] > 0 for key in ("cpu_ratio", "wall_ratio", "look_share"))
    done = ran("watching", *sizes, "--rounds", "1")
    assert done.returncode == 2
    assert "rounds is 1; expected 2 or more" in done.stderr


def test_interventions_are_measured(small_run: Path) -> None:
    words = ["--run", str(small_run), "--tokens", "20", "--texts", "2", "--length", "16"]
    done = ran("intervene", *words, "--per-text", "4", "--rounds", "1", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["identity_exact"] is True
    keys = ("attribution_seconds", "attribution_cpu_seconds", "active_features", "steer_ratio")
    assert all(figures[key] > 0 for key in keys)
    assert -1 <= figures["attribution_correlation"] <= 1
    assert figures["monitor_overhead"] > -1
    assert figures["correlation_pairs"] == 8
    done = ran("intervene", *words, "--rounds", "0")
    assert done.returncode == 2
    assert "rounds is 0; expected 1 or more" in done.stderr
