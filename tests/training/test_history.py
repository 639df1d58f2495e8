"""What training leaves of its figures as it goes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sememe.dictionaries import TopK
from sememe.errors import SememeError
from sememe.progress import Progress
from sememe.training import TrainConfig, train
from sememe.training.history import NAME, POINTS, History, read_history
from tests.training.worlds import world

CONFIG = TrainConfig(
    features=64, nonlinearity=TopK(4), batch=256, passes=2, checkpoint_every=7, learning_rate=3e-3
)


class Told(Progress):
    """Keeps the figures that training tells at every step."""

    def __init__(self) -> None:
        self.figures: list[dict[str, float]] = []

    def advance(self, amount: int, **live: float) -> None:
        self.figures.append(live)


class StoppedError(Exception):
    """Raised in the middle of training."""


def test_every_point_has_what_the_progress_was_told_and_the_loss(tmp_path: Path) -> None:
    stream, _ = world(rows=4000)
    told = Told()
    train(stream, CONFIG, tmp_path / "d", progress=told)
    points = read_history(tmp_path / "d")
    steps = [point["step"] for point in points]
    assert steps == list(range(1, len(told.figures) + 1))
    for point in points:
        assert point["tokens"] == 256 * point["step"]
        expected = told.figures[point["step"] - 1]
        assert {name: point[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    assert 0 < points[-1]["loss"] < points[0]["loss"]


def test_looking_changes_nothing_and_sees_every_checkpoint(tmp_path: Path) -> None:
    stream, _ = world(rows=4000)
    seen = []
    train(stream, CONFIG, tmp_path / "seen", look=lambda _, tokens: seen.append(tokens))
    train(stream, CONFIG, tmp_path / "not")
    last = read_history(tmp_path / "not")[-1]["tokens"]
    assert seen == list(range(7 * 256, last, 7 * 256))
    for path in (tmp_path / "not").iterdir():
        assert (tmp_path / "seen" / path.name).read_bytes() == path.read_bytes()


def test_a_stopped_run_goes_on_with_one_history_whatever_the_last_line(tmp_path: Path) -> None:
    stream, _ = world(rows=4000)
    train(stream, CONFIG, tmp_path / "whole")
    out = tmp_path / "stopped"

    def stop(_: object, tokens: int) -> None:
        if tokens == 14 * 256:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(stream, CONFIG, out, look=stop)
    later = '{"step": 15, "tokens": 3840, "fvu": 9}\n{"step": 16, "tok'
    with (out / NAME).open("a") as file:
        file.write(later)
    train(stream, CONFIG, out)
    assert (out / NAME).read_bytes() == (tmp_path / "whole" / NAME).read_bytes()


def test_a_long_run_leaves_a_bounded_number_of_lines(tmp_path: Path) -> None:
    history = History(tmp_path, 123_457)
    for step in range(1, 123_458):
        history.add(step, step, {"fvu": 1 / step, "loss": float("nan")})
    points = read_history(tmp_path)
    assert POINTS - 10 < len(points) <= POINTS + 2
    assert (points[0]["step"], points[-1]["step"]) == (1, 123_457)
    assert points[-1]["loss"] is None


def test_without_a_history_there_are_no_points(tmp_path: Path) -> None:
    assert read_history(tmp_path) == []
    (tmp_path / NAME).write_text(json.dumps({"step": 1})[:-3])
    assert read_history(tmp_path) == []


def test_a_history_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    history = History(tmp_path / "d", 10)
    (tmp_path / "d" / NAME).unlink()
    (tmp_path / "d" / NAME).mkdir()
    with pytest.raises(SememeError, match=r"cannot write .*history\.jsonl"):
        history.add(1, 1, {"fvu": 0.5})


def test_how_often_checkpoints_are_written_does_not_matter(tmp_path: Path) -> None:
    stream, _ = world(rows=4000)
    train(stream, CONFIG, tmp_path / "often")
    train(stream, replace(CONFIG, checkpoint_every=1000), tmp_path / "never")
    often, never = (read_history(tmp_path / name) for name in ("often", "never"))
    assert often == never
