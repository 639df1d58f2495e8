"""What is told of a run while it is at work and afterwards."""

import json
import shutil
from pathlib import Path

import pytest

from sememe.artefacts import read_json
from sememe.progress import KeptProgress, Progress
from sememe.run import Run
from sememe.watching import JobView

STAGES = ["corpus", "harvest", "harvest held-out", "train", "evaluate", "describe"]


class Noted(Progress):
    """Notes every call."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def start(self, stage: str, total: int, unit: str, done: int = 0) -> None:
        self.calls.append(("start", stage, total, unit, done))

    def advance(self, amount: int, **live: float) -> None:
        self.calls.append(("advance", amount, live))

    def finish(self, note: str = "") -> None:
        self.calls.append(("finish", note))

    def say(self, message: str) -> None:
        self.calls.append(("say", message))


def test_what_is_kept_is_passed_on_and_counted() -> None:
    told = Noted()
    kept = KeptProgress(told)
    kept.advance(3)
    kept.start("train", 100, "activations", 40)
    kept.advance(20, fvu=0.5)
    stage = kept.stages["train"]
    assert (stage.done, stage.before, stage.ended) == (60, 40, None)
    assert stage.rate is not None
    assert stage.rate == pytest.approx(20 / stage.seconds, rel=0.5)
    kept.say("slow")
    kept.finish("over")
    stage = kept.stages["train"]
    assert (stage.done, stage.note) == (100, "over")
    took = stage.seconds
    assert stage.seconds == took
    assert told.calls == [
        ("advance", 3, {}),
        ("start", "train", 100, "activations", 40),
        ("advance", 20, {"fvu": 0.5}),
        ("say", "slow"),
        ("finish", "over"),
    ]
    assert kept.messages == ["slow"]


def test_a_finished_run_is_told_from_its_files(small_run: Path) -> None:
    job = JobView(Run(small_run), ready=True)()
    assert [(stage.name, stage.state) for stage in job.stages] == [(s, "done") for s in STAGES]
    took = read_json(small_run / "seconds.json")
    assert {s.name: s.seconds for s in job.stages if s.name in took} == {
        name: took[name] for name in took if name != "load"
    }
    lines = (small_run / "dictionary" / "history.jsonl").read_text().splitlines()
    points = [json.loads(line) for line in lines]
    assert job.curves.l0 == [point["l0"] for point in points]
    assert job.activations == points[-1]["tokens"]
    assert job.early is None


def test_stages_of_a_run_that_goes_on(small_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    shutil.rmtree(run / "atlas")
    (run / "dictionary" / "manifest.json").unlink()
    (run / "report.json").unlink()
    kept = KeptProgress()
    view = JobView(Run(run), "m", kept)

    def states() -> list[str]:
        return [stage.state for stage in view().stages]

    assert states() == ["done", "done", "done", "waiting", "waiting", "waiting"]
    kept.start("train", 1000, "activations", 500)
    kept.advance(100)
    assert states() == ["done", "done", "done", "running", "waiting", "waiting"]
    train = view().stages[3]
    assert (train.done, train.total) == (600, 1000)
    assert train.rate is not None
    assert train.left == pytest.approx(400 / train.rate, rel=0.5)
    kept.finish()
    assert states() == ["done", "done", "done", "done", "running", "waiting"]
    assert view().activations == 1000


def test_a_run_that_has_not_begun_has_nothing_to_show(tmp_path: Path) -> None:
    job = JobView(Run(tmp_path / "none"), "m", KeptProgress())()
    assert {stage.state for stage in job.stages} == {"waiting"}
    assert job.curves.tokens == []
    assert job.activations is None
