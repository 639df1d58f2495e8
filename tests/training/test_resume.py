"""Training that is killed and started again ends with the same bytes."""

import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sememe.activations.stream import Stream
from sememe.dictionaries import TopK
from sememe.errors import SememeError
from sememe.progress import Progress
from sememe.training import Resampling, TrainConfig, train
from tests.activations.stores import SITE, make_store
from tests.training.test_train import KINDS
from tests.training.worlds import world

ROOT = Path(__file__).parents[2]
CONFIG = TrainConfig(
    features=128,
    nonlinearity=TopK(4),
    batch=256,
    passes=6,
    checkpoint_every=7,
    learning_rate=3e-3,
)


RESAMPLING = {"resampling": Resampling(every=11, times=9, silent=3, rows=900)}
ALL = {
    **KINDS,
    "resampled": RESAMPLING,
    "adafactor": {"optimiser": "adafactor", **RESAMPLING},
    "without momentum": {"beta1": 0.0},
}


class StoppedError(Exception):
    """Raised in the middle of training."""


class StopAt(Progress):
    def __init__(self, steps):
        self.left = steps

    def advance(self, amount, **live):
        self.left -= 1
        if not self.left:
            raise StoppedError


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def a_run(kind, out, passes=6, **options):
    stream, _ = world(rows=5000)
    return train(stream, replace(CONFIG, passes=passes, **ALL[kind]), out, **options)


@pytest.mark.parametrize("kind", sorted(ALL))
def test_stopped_at_any_step_and_gone_on_is_the_same_run(kind, tmp_path):
    a_run(kind, tmp_path / "whole", passes=2)
    for steps in (8, 30):
        out = tmp_path / f"stopped-{steps}"
        with pytest.raises(StoppedError):
            a_run(kind, out, passes=2, progress=StopAt(steps))
        assert len(list(out.glob("checkpoint-*.json"))) <= 2
        a_run(kind, out, passes=2)
        assert contents(out) == contents(tmp_path / "whole")


def test_how_often_checkpoints_are_written_does_not_matter(tmp_path):
    a_run("topk", tmp_path / "whole")
    stream, _ = world(rows=5000)
    train(stream, replace(CONFIG, checkpoint_every=3), tmp_path / "often")
    assert contents(tmp_path / "often") == contents(tmp_path / "whole")


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path):
    a_run("topk", tmp_path / "whole")
    out = tmp_path / "damaged"
    with pytest.raises(StoppedError):
        a_run("topk", out, progress=StopAt(30))
    newest = sorted(out.glob("*.safetensors"))[-1]
    newest.write_bytes(newest.read_bytes()[:-10])
    a_run("topk", out)
    assert contents(out) == contents(tmp_path / "whole")


def test_when_every_checkpoint_is_damaged_it_says_so(tmp_path):
    with pytest.raises(StoppedError):
        a_run("topk", tmp_path, progress=StopAt(30))
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(SememeError, match="checkpoint-00000028 was altered or truncated"):
        a_run("topk", tmp_path)


def test_checkpoints_of_another_run_are_refused(tmp_path):
    with pytest.raises(StoppedError):
        a_run("topk", tmp_path, progress=StopAt(30))
    with pytest.raises(SememeError, match=r"nonlinearity=.*'topk'.*, now nonlinearity=.*'relu'"):
        a_run("relu", tmp_path)


def test_killed_without_warning_at_random_moments_ends_with_the_same_bytes(tmp_path):
    a_run("topk", tmp_path / "whole")
    out = tmp_path / "killed"
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, '.');"
        "from tests.training.test_resume import a_run;"
        "print('ready', flush=True); a_run('topk', Path(sys.argv[1]))"
    )
    draw = random.Random(0)
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    kills = 0
    while not (out / "manifest.json").exists():
        assert kills < 40
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(out)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
        )
        assert process.stdout.readline() == b"ready\n"
        before = _newest(out)
        while process.poll() is None and _newest(out) == before:
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.03))
        if kills < 4:
            kills += process.poll() is None
            process.kill()
        process.wait()
        process.stdout.close()
    assert kills >= 1
    assert contents(out) == contents(tmp_path / "whole")


def _newest(out):
    return max((p.name for p in out.glob("checkpoint-*.json")), default="")


def test_a_run_goes_on_in_the_same_order_of_rows_alone(tmp_path):
    torch.manual_seed(0)
    store = make_store(tmp_path / "store", torch.randn(2000, 8), [2000])
    config = replace(CONFIG, features=16, passes=2)
    with pytest.raises(StoppedError):
        train(Stream(store, (SITE,)), config, tmp_path / "d", progress=StopAt(12))
    with pytest.raises(SememeError, match=r"order=.*'buffer': 1048576.*, now order=.*512"):
        train(Stream(store, (SITE,), buffer=512), config, tmp_path / "d")
