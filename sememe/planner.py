"""What jobs will take, said before they begin: :mod:`sememe.requirements`, and time by a probe."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sememe.activations.buffered import BufferedStream
from sememe.activations.live import LiveStream
from sememe.activations.rules import HarvestConfig
from sememe.activations.stream import Stream
from sememe.artefacts import is_finished
from sememe.corpora.corpus import Corpus
from sememe.errors import SememeError
from sememe.machine import disk_free, memory_free, memory_used
from sememe.models.language_model import LanguageModel
from sememe.probe import PROBE_TOKENS, Probe, probe, scratch_folder, timed_training
from sememe.progress import Progress
from sememe.requirements import (
    Totals,
    Work,
    check_fits,
    corpus_tokens,
    harvest_need,
    needs,
    shown_size,
    train_need,
)
from sememe.training.config import TrainConfig

WORTH_A_PROBE = 20 * PROBE_TOKENS
"""Tokens from which on a job begins with the probe."""
PREDICTIONS = 6
"""Copies of a batch's predictions that training end to end holds."""


def plan_work(work: Work, out: Path, loading: float) -> dict[str, Any]:
    """Return the figures that `sememe plan --json` prints; SememeError if the job cannot fit.

    ``loading`` is how many seconds the model took to load.
    """
    needed = needs(work)
    total = check_fits(out, needed)
    begun = time.perf_counter()
    seconds = {"load": loading, **probe(work, out)}
    return {
        "model": work.model.name,
        "site": work.site,
        "tokens": work.tokens,
        "features": work.train.features,
        "disk_bytes": total.disk,
        "disk_free_bytes": disk_free(out),
        "memory_bytes": total.memory,
        "memory_free_bytes": memory_free() + memory_used(),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "total_seconds": round(sum(seconds.values()), 1),
        "probe_seconds": round(time.perf_counter() - begun, 1),
    }


def announce_harvest(
    model: LanguageModel,
    corpus: Corpus,
    sites: Sequence[str],
    out: Path,
    config: HarvestConfig,
    *,
    held_out: bool,
    progress: Progress,
) -> None:
    """Say what a harvest takes that is not done; SememeError if it cannot fit."""
    if is_finished(out) or not sites:
        return
    tokens = corpus_tokens(corpus, held_out=held_out)
    total = check_fits(out, {"harvest": harvest_need(model, sites, tokens, config)})

    def seconds() -> float:
        work = Work(model, sites[0], tokens, config, TrainConfig())
        with scratch_folder(out) as folder:
            return Probe(work, sites, folder).harvest()[2]

    _announce(f"harvesting {tokens:,} tokens", out, tokens, total, seconds, progress)


def announce_train(
    stream: Stream | BufferedStream | LiveStream,
    out: Path,
    config: TrainConfig,
    reads: Sequence[str],
    writes: Sequence[str],
    device: str,
    progress: Progress,
) -> None:
    """Say what a training takes that is not done; SememeError if it cannot fit.

    On a live model it takes the buffer and the passes of the model too, end to end its predictions;
    how long these take is not measured.
    """
    if is_finished(out):
        return
    width = dict(zip(stream.sites, stream.widths, strict=True))
    read, written, row = (
        sum(width[site] for site in sites) for sites in (reads, writes, {*reads, *writes})
    )
    tokens = stream.rows * config.passes
    if isinstance(stream, Stream):
        need = train_need(config, read, written, row, stream.rows)
    else:
        need = train_need(config, read, written, 0, stream.rows)
        held = stream.buffer if isinstance(stream, BufferedStream) else config.batch
        reading = harvest_need(stream.model, stream.sites, held, stream.config)
        need = need._replace(memory=need.memory + reading.memory + reading.disk)
    if isinstance(stream, LiveStream):
        logits = PREDICTIONS * 4 * config.batch * stream.model.vocabulary
        need = need._replace(memory=need.memory + logits)
    total = check_fits(out, {"train": need})

    def seconds() -> float:
        with scratch_folder(out) as folder:
            if isinstance(stream, Stream):
                return timed_training(stream, config, reads, writes, stream.rows, folder, device)[1]
            work = Work(stream.model, stream.sites[0], tokens, stream.config, config)
            _, stored, reading = Probe(work, stream.sites, folder).harvest()
            sample = Stream(stored, stream.sites)
            training = timed_training(sample, config, reads, writes, stream.rows, folder, device)
            return reading + training[1]

    timed = None if isinstance(stream, LiveStream) else seconds
    _announce(f"training on {tokens:,} activations", out, tokens, total, timed, progress)


def _announce(
    what: str,
    out: Path,
    tokens: int,
    total: Totals,
    seconds: Callable[[], float] | None,
    progress: Progress,
) -> None:
    """Say in a line what a stage takes, its time only where that is worth measuring."""
    line = f"{what} takes {shown_size(total.disk)} of disk, {shown_size(total.memory)} of memory"
    if seconds and tokens >= WORTH_A_PROBE and not out.exists():
        try:
            line += f" and about {shown_time(seconds())}"
        except SememeError as error:
            line += f"; how long could not be measured: {error}"
    progress.say(line)


def shown_time(seconds: float) -> str:
    """Return seconds as people say them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, odd = divmod(minutes, 60)
    if hours:
        return f"{hours} h {odd} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
