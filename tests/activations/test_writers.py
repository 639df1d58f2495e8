"""Several processes write one store, and any of them may be killed at any moment."""

import fcntl
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from sememe.activations.harvest import harvest
from sememe.activations.rules import HarvestConfig
from sememe.activations.store import Activations
from sememe.artefacts import lock
from sememe.corpora.corpus import Corpus
from sememe.errors import SememeError
from sememe.models.language_model import LanguageModel

WRITERS, KILLS = 4, 30
CONFIG = HarvestConfig(context=32, dtype="fp32", batch_tokens=256, shard_rows=64)
SITES = ["layers.1.resid"]


def files(path: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in path.iterdir() if not p.name.startswith(".")}


def a_writer(model: LanguageModel, corpus: Corpus, out: Path) -> int:
    """Begin to harvest in a child process; return its number."""
    child = os.fork()
    if child:
        return child
    torch.set_num_threads(1)
    status = 1
    try:
        harvest(model, corpus, SITES, out, config=CONFIG, share=True)
        status = 0
    finally:
        os._exit(status)


def test_killed_writers_leave_a_whole_store(
    tmp_path: Path, tiny_llama: LanguageModel, corpus: Corpus
) -> None:
    """Kills at random moments, again and again until there were 30; every store is verified."""
    torch.set_num_threads(1)  # nothing runs in this process that a child would lack
    alone = harvest(tiny_llama, corpus, SITES, tmp_path / "alone", config=CONFIG)
    assert alone.shards > 80
    draw = random.Random(0)
    kills = round_number = together = 0
    while kills < KILLS or together <= KILLS / 3:  # enough fell while shards were being made
        out = tmp_path / f"shared-{round_number}"
        round_number += 1
        writers = [a_writer(tiny_llama, corpus, out) for _ in range(WRITERS)]
        made_by_then = 0
        while writers:
            time.sleep(draw.uniform(0.005, 0.06))
            made = len(list(out.glob("shard-*"))) if out.exists() else 0
            victim = draw.choice(writers)
            if made < alone.shards and (kills < KILLS or together <= KILLS / 3):
                os.kill(victim, signal.SIGKILL)
                _, status = os.waitpid(victim, 0)
                if os.WIFSIGNALED(status):
                    kills += 1
                    together += made > made_by_then > 0
                    made_by_then = made
                writers[writers.index(victim)] = a_writer(tiny_llama, corpus, out)
                continue
            _, status = os.waitpid(victim, 0)
            assert os.waitstatus_to_exitcode(status) == 0
            writers.remove(victim)
        stored = Activations.open(out, verify=True)
        assert stored.hash == alone.hash
        assert files(out) == files(tmp_path / "alone")
        assert not list(out.glob(".*.partial"))


def test_a_writer_that_does_not_share_is_refused_while_others_are_at_work(tmp_path: Path) -> None:
    ready, done = os.pipe(), os.pipe()
    if not (child := os.fork()):
        lock(tmp_path, shared=True)
        os.write(ready[1], b"x")
        os.read(done[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    try:
        with pytest.raises(SememeError, match="another sememe is at work"):
            lock(tmp_path)
        lock(tmp_path, shared=True)
    finally:
        os.write(done[1], b"x")
        os.waitpid(child, 0)


def test_writers_with_other_arguments_are_refused(
    tmp_path: Path, tiny_llama: LanguageModel, corpus: Corpus
) -> None:
    child = a_writer(tiny_llama, corpus, tmp_path)
    os.waitpid(child, 0)
    with pytest.raises(SememeError, match=r"layers\.0\.resid"):
        harvest(tiny_llama, corpus, ["layers.0.resid"], tmp_path, config=CONFIG, share=True)


def test_the_last_to_leave_clears_up_and_who_comes_meanwhile_waits(
    tmp_path: Path, tiny_llama: LanguageModel, corpus: Corpus
) -> None:
    out = tmp_path / "out"
    harvest(tiny_llama, corpus, SITES, out, config=CONFIG, share=True)
    left = out / ".manifest.json.1.partial"  # of one that was killed when others had finished
    left.write_bytes(b"x")
    ready = os.pipe()
    if not (child := os.fork()):  # it is alone with the directory for a while
        descriptor = os.open(out / ".lock", os.O_RDWR)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.write(ready[1], b"x")
        time.sleep(0.5)
        os._exit(0)
    os.read(ready[0], 1)
    harvest(tiny_llama, corpus, SITES, out, config=CONFIG, share=True)
    os.waitpid(child, 0)
    assert not left.exists()
