"""What it costs a training to be watched: a page that asks every 1.5 s, and early features.

Two trainers take the same steps by turns, one watched over the real server by another process that
asks as the page does, so that other work on the machine meets both alike. Times are of the whole
process, its server included. Run it as ``python -m benchmarks.watching``.
"""

import multiprocessing
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin would count as work

import httpx
import numpy as np
import torch

from benchmarks import command
from sememe.activations.stream import MemoryStream
from sememe.atlas.early import BLOCK, BLOCKS, early_features
from sememe.errors import UsageError
from sememe.progress import KeptProgress
from sememe.run import Run
from sememe.training.config import TrainConfig
from sememe.training.history import History
from sememe.training.trainer import Trainer
from sememe.watching import JobView
from sememe.web.listener import Listener
from sememe.web.server import make_waiting_app

EVERY = 1.5
"""Seconds between two questions of the page."""
ROWS = 65_536
CHECKPOINT = TrainConfig.checkpoint_every


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    features: int = 9216
    """Features of the dictionary."""
    width: int = 576
    """Width of the activations, which are random: nothing is to be learnt."""
    batch: int = 2048
    """Activations a step."""
    steps: int = 20
    """Steps of a turn."""
    rounds: int = 10
    """Turns of each."""
    json: bool = False
    """Print one JSON object."""


def ask(address: str, asking: Event, ended: Event, taken: Any) -> None:  # noqa: ANN401
    """Ask for /job.json as the page does, while ``asking`` is set."""
    url = httpx.URL(address)
    with httpx.Client(base_url=url.copy_with(path="/", query=None), timeout=60) as client:
        client.get(address)
        while not ended.is_set():
            if asking.is_set():
                begun = time.perf_counter()
                client.get("/job.json").raise_for_status()
                taken.put(time.perf_counter() - begun)
            asking.wait(EVERY)
            time.sleep(EVERY)


def measure(settings: Settings) -> dict[str, Any]:
    """Train by turns; return the figures."""
    if settings.rounds < 2:
        raise UsageError(f"rounds is {settings.rounds}; expected 2 or more: the first warms up")
    generator = torch.Generator().manual_seed(0)
    stream = MemoryStream(torch.randn(ROWS, settings.width, generator=generator))
    config = TrainConfig(features=settings.features, batch=settings.batch, learning_rate=1e-6)
    trainers = [Trainer(stream, config, stream.sites, stream.sites) for _ in range(2)]
    with tempfile.TemporaryDirectory() as folder, Listener(0) as listener:
        run, progress = Run(Path(folder)), KeptProgress()
        run.dictionary.mkdir()
        history = History(run.dictionary, 500)
        for step in range(1, 501):  # as long as it becomes
            history.add(step, step, dict.fromkeys(("fvu", "l0", "dead", "loss"), 1 / step))
        progress.start("train", 10**9, "activations")
        view = JobView(run, "random", progress)
        listener.app = make_waiting_app(view, token=listener.token, port=listener.port)
        listener.start(progress.say)
        context = multiprocessing.get_context("spawn")
        asking, ended, taken = context.Event(), context.Event(), context.Queue()
        page = context.Process(target=ask, args=(listener.address, asking, ended, taken))
        page.start()
        try:
            turns = _turns(settings, trainers, stream, progress, history, asking)
        finally:
            ended.set()
            page.join()
        answers = [taken.get() for _ in range(taken.qsize())]
    alone, watched = turns
    step = statistics.median(cpu for cpu, _ in alone) / settings.steps
    return {
        "features": settings.features,
        "width": settings.width,
        "batch": settings.batch,
        "step_cpu_seconds": step,
        "cpu_ratio": _ratio(watched, alone, 0),
        "wall_ratio": _ratio(watched, alone, 1),
        "questions": len(answers),
        "answer_ms": 1e3 * statistics.median(answers) if answers else None,
        "look_share": _look(trainers[0], stream) / (CHECKPOINT * step),
    }


def _turns(
    settings: Settings,
    trainers: list[Trainer],
    stream: MemoryStream,
    progress: KeptProgress,
    history: History,
    asking: Event,
) -> list[list[tuple[float, float]]]:
    """Return the CPU and wall-clock seconds of every turn: alone, and watched."""
    found: list[list[tuple[float, float]]] = [[], []]
    config = trainers[0].config
    wanted = settings.steps * settings.rounds
    batches = stream.batches(config.batch, -(-wanted // stream.steps(config.batch, 1)), 0)
    for number in range(settings.rounds):
        rows = [next(batches) for _ in range(settings.steps)]
        for watched in (0, 1) if number % 2 else (1, 0):
            trainer = trainers[watched]
            (asking.set if watched else asking.clear)()
            cpu, wall = time.process_time(), time.perf_counter()
            for batch in rows:
                trainer.advance(batch)
                figures = trainer.figures()
                if watched:
                    progress.advance(len(batch), **figures)
                    history.add(500, 500, {**figures, "loss": trainer.mean_loss})
            found[watched].append((time.process_time() - cpu, time.perf_counter() - wall))
        asking.clear()
    return [turns[1:] for turns in found]


def _ratio(
    watched: list[tuple[float, float]], alone: list[tuple[float, float]], which: int
) -> float:
    pairs = zip(watched, alone, strict=True)
    return statistics.median(one[which] / other[which] for one, other in pairs)


def _look(trainer: Trainer, stream: MemoryStream) -> float:
    """Return the CPU seconds of a look at early features."""
    rows = stream.sample(BLOCKS * BLOCK)
    numbers = np.arange(len(rows))
    facts = {"token": numbers % 5000, "document": numbers // 500}
    facts |= {"position": numbers % 500, "place": numbers}
    taken = []
    for _ in range(5):
        begun = time.process_time()
        early_features(trainer.dictionary, rows, facts)
        taken.append(time.process_time() - begun)
    return statistics.median(taken)


if __name__ == "__main__":
    command.run(Settings, measure, __doc__)
