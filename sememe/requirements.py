"""What disk and memory a job takes, from what its stages keep, and whether that fits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sememe.activations.rules import HarvestConfig
from sememe.activations.stream import BUFFER
from sememe.atlas.firings import BLOCK_ENTRIES, BLOCK_FEATURES
from sememe.atlas.statistics import INACTIVE, INTERVALS, SAMPLES, TOP, WIDTH
from sememe.atlas.weights import LOGIT_CHUNK
from sememe.corpora.corpus import Corpus
from sememe.errors import SememeError
from sememe.evaluation.splicing import EvaluateConfig
from sememe.machine import disk_free, memory_free, memory_used
from sememe.models.language_model import LanguageModel
from sememe.training.checkpoints import KEPT
from sememe.training.config import TrainConfig
from sememe.training.trainer import SAMPLE_ROWS

HELD_OUT = 0.05
"""Share of the tokens that training never sees, about (documents are drawn whole)."""
ROW_FACTS = 20
"""Bytes a row of a store beside the activations."""
PAGE = 9_000
"""Bytes of a feature's page in the atlas, with its share of the vocabulary."""
MOST_ACTIVE = 256
"""Features on one token, at most, where nothing sets their number."""
LIBRARIES = 500_000_000
"""Bytes that a job holds beside its model whatever it does: code and kernels that are loaded as
they are needed, and freed memory that does not go back to the system."""
LOGITS = 22
"""Bytes a logit while evaluating: three copies in bf16 and four in fp32."""
EXAMPLES = TOP + INTERVALS * SAMPLES + INACTIVE
"""Examples a feature, all of those of a block in memory while describing."""
EXAMPLE = 24 * WIDTH + 1000
"""Bytes of one, with the text around it, as arrays and as what is written."""


@dataclass(frozen=True)
class Work:
    """A job on one site, as far as its costs depend on it."""

    model: LanguageModel
    site: str
    tokens: int
    """Tokens of text, held-out ones included."""
    harvest: HarvestConfig
    train: TrainConfig
    fetched: float = 0.0
    """Megabytes of packages that the text is read from."""
    device: str = "cpu"
    """Where the dictionary is trained."""

    @property
    def held_out(self) -> int:
        """Tokens held out, about."""
        return round(self.tokens * HELD_OUT)

    @property
    def rows(self) -> int:
        """Activations to train on, about."""
        return self.tokens - self.held_out

    @property
    def spliced(self) -> int:
        """Held-out tokens on which the model goes on from reconstructions."""
        config = EvaluateConfig()
        return round(min(config.spliced_tokens, config.spliced_share * self.held_out))


class Need(NamedTuple):
    """What one stage takes, in bytes."""

    disk: int
    """Left by it."""
    scratch: int
    """More while it runs."""
    memory: int
    """Beyond what the process held before the job."""


def store_bytes(widths: int, rows: int, dtype: str) -> int:
    """Return the bytes of ``rows`` stored activations of ``widths`` numbers in all."""
    return rows * (widths * {"fp32": 4, "int8": 1}.get(dtype, 2) + ROW_FACTS)


def harvest_need(
    model: LanguageModel, sites: Sequence[str], tokens: int, config: HarvestConfig
) -> Need:
    """Return what harvesting takes: two shards, as rows and as the bytes to write, and a batch."""
    widths = sum(map(model.width, sites))
    shard = store_bytes(widths, min(tokens, config.shard_rows), config.dtype)
    settings = model.module.config.get_text_config()
    hidden = int(getattr(settings, "hidden_size", widths))
    inner = int(getattr(settings, "intermediate_size", 0) or 4 * hidden)
    batch = config.batch_tokens * (4 * (3 * inner + 6 * hidden) + 24 * widths)
    return Need(store_bytes(widths, tokens, config.dtype), 0, 4 * shard + batch)


def train_need(config: TrainConfig, reads: int, writes: int, stored: int, rows: int) -> Need:
    """Return what training takes.

    ``reads`` and ``writes`` are the widths of the dictionary's sides, ``stored`` that of a row of
    the store, which counts as fp16. Weights come with their moments, perhaps a gradient, and a copy
    of all while a checkpoint is made. What the stream's buffer holds of the store is mapped; while
    it begins there are the sample and what is made of it. On the disk are the last checkpoints and
    the one being written.
    """
    weights = _weights(config, reads + writes)
    kept = 1 + (0 if config.optimiser == "adafactor" else 2 if config.beta1 else 1)
    mapped = 2 * stored * min(rows, BUFFER)
    sample = 4 * (reads + writes) * min(rows, SAMPLE_ROWS)
    matrices = (2 if getattr(config.nonlinearity, "k", 0) else 8) + 2 * len(config.objective[1:])
    steps = (4 * matrices * config.features + 16 * (reads + writes)) * config.batch
    checkpoints = rows * config.passes // config.batch // config.checkpoint_every
    return Need(
        weights,
        min(checkpoints, KEPT + 1) * kept * weights,
        (2 * kept + 1) * weights + mapped + max(steps, 4 * sample),
    )


def _weights(config: TrainConfig, widths: int) -> int:
    return 4 * config.features * (widths + 2)


def needs(work: Work) -> dict[str, Need]:
    """Return what each stage of the main job takes."""
    model, train = work.model, work.train
    width = model.width(work.site)
    active = getattr(train.nonlinearity, "k", 0) or min(MOST_ACTIVE, train.features)
    logits = min(EvaluateConfig().batch_logits, work.spliced * model.vocabulary)
    # what the kernels of training keep for the next step is still there in the stages after it
    kept = 16 * train.batch * train.features + 2 * _weights(train, 2 * width)
    effects = 4 * model.vocabulary * (6 * LOGIT_CHUNK + 2 * width)
    return {
        "corpus": Need(5 * work.tokens, 0, 64 * work.tokens),
        "harvest": harvest_need(model, (work.site,), work.tokens, work.harvest),
        "train": train_need(train, width, width, width, work.rows),
        "evaluate": Need(0, 0, kept + LOGITS * logits),
        "describe": Need(
            PAGE * train.features + 16 * model.vocabulary,
            12 * active * work.rows + 8 * width * train.features,
            kept
            + 2 * EXAMPLES * EXAMPLE * min(train.features, BLOCK_FEATURES)
            + 60 * BLOCK_ENTRIES
            + effects
            + 1200 * train.features
            + 12 * width * train.features
            + 16 * active * work.rows
            + (60 * active + 4 * width) * min(work.rows, work.harvest.shard_rows),
        ),
    }


class Totals(NamedTuple):
    """What a whole job takes at its worst moment, in bytes."""

    disk: int
    memory: int
    """Of the process, what it holds already included."""


def totals(needed: Mapping[str, Need]) -> Totals:
    """Return the most that is on the disk, and in memory, at any moment of the stages in order."""
    left, most = 0, 0
    for need in needed.values():
        left += need.disk
        most = max(most, left + need.scratch)
    peak = max(need.memory for need in needed.values())
    return Totals(most, memory_used() + LIBRARIES + peak)


def check_fits(out: Path, needed: Mapping[str, Need]) -> Totals:
    """Return the totals; SememeError, with the numbers, where they do not fit this machine.

    Nothing is written. What ``out`` holds already counts as written.
    """
    total = totals(needed)
    present = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    disk, memory = disk_free(out), memory_free() + memory_used()
    if total.disk - present > disk:
        stage = max(needed, key=lambda name: needed[name].disk + needed[name].scratch)
        raise SememeError(
            f"{out} needs {shown_size(total.disk - present)} of disk, {shown_size(disk)} are free "
            f"(most is for {stage}): free some space, or ask for fewer tokens or features"
        )
    if total.memory > memory:
        stage = max(needed, key=lambda name: needed[name].memory)
        raise SememeError(
            f"{stage} needs {shown_size(total.memory)} of memory, {shown_size(memory)} are "
            "available: ask for fewer features or smaller batches, or end other programs"
        )
    return total


def corpus_tokens(corpus: Corpus, *, held_out: bool) -> int:
    """Return the tokens of one side of a corpus."""
    return int(corpus.length[(corpus.held_out != 0) == held_out].sum())


def shown_size(size: int) -> str:
    """Return bytes as people say them."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
