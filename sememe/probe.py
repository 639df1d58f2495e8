"""How long stages take, from running the real ones on a few thousand tokens in a scratch folder.

The folder is beside the output; each stage is scaled by what it grows with.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import UInt32

from sememe.activations.batches import window_batches
from sememe.activations.harvest import harvest
from sememe.activations.rules import TokenRules
from sememe.activations.store import Activations
from sememe.activations.stream import Stream
from sememe.artefacts import disk_error, fingerprint
from sememe.atlas.describe import describe
from sememe.corpora.corpus import Corpus
from sememe.dictionaries.dictionary import Dictionary
from sememe.dictionaries.initialisation import geometric_median
from sememe.errors import SememeError
from sememe.evaluation.evaluate import Report, evaluate
from sememe.evaluation.metrics import Moments
from sememe.evaluation.splicing import EvaluateConfig
from sememe.machine import is_running, nearest_folder
from sememe.models.language_model import LanguageModel
from sememe.requirements import (
    Work,
)
from sememe.training.checkpoints import save_checkpoint
from sememe.training.config import TrainConfig
from sememe.training.trainer import SAMPLE_ROWS, Trainer

DOCUMENT_LENGTHS = (14, 23, 33, 43, 54, 68, 124, 201, 431, 1183)
"""Tokens of ten documents that stand for those of the default text: its .05 to .95 quantiles."""
PROBE_TOKENS = 8_192
"""Tokens that the probe harvests."""
HELD_OUT_WINDOWS = 4
LONGEST_WINDOW = 512
"""Documents that it holds out, and their length at most; each is one window."""
PROBE_STEPS = 10
FIRST_STEPS = 3
DEAD_STEPS = 4
"""Steps that are timed, those before them that are not, and those with dead features."""
DEAD_ONE_IN = 32
REVIVING_STEPS = 75
"""Share of features that die early, and the steps that it takes to bring them back (LOG.md)."""
SPLICED_WINDOWS = 2
PAGES = (256, 1024)
UNPACKING = 0.075
"""Seconds for reading and cleaning a megabyte of packages, on a usual processor."""
LOOK_SECONDS = 3.5e-7
"""Seconds for all that is counted of one firing while describing, on a usual processor (LOG.md)."""
Result = TypeVar("Result")


def probe(work: Work, out: Path) -> dict[str, float]:
    """Return the seconds that each stage will take, from running it on a small sample.

    Text is made of random tokens in documents as long as those of the default text. Writes to a
    scratch folder beside ``out`` and removes it.
    """
    with scratch_folder(out) as folder:
        return Probe(work, (work.site,), folder).seconds()


SCRATCH = ".sememe-plan-"


@contextmanager
def scratch_folder(out: Path) -> Iterator[Path]:
    """Make a folder beside ``out`` for a probe; those of probes that were killed are removed."""
    folder = nearest_folder(out)
    for stale in folder.glob(f"{SCRATCH}*"):
        process = stale.name.removeprefix(SCRATCH).partition("-")[0]
        if not process.isdigit() or not is_running(int(process)):
            shutil.rmtree(stale, ignore_errors=True)
    try:
        prefix = f"{SCRATCH}{os.getpid()}-"
        with tempfile.TemporaryDirectory(prefix=prefix, dir=folder) as scratch:
            yield Path(scratch)
    except OSError as error:
        raise disk_error(folder, error) from error
    except FloatingPointError as error:
        raise SememeError(f"training on the sample diverged: {error}") from None


class Probe:
    """The stages of the main job on a sample, each timed and scaled by what it grows with."""

    def __init__(self, work: Work, sites: Sequence[str], folder: Path) -> None:
        self.work, self.sites, self.folder = work, sites, folder
        self.active = getattr(work.train.nonlinearity, "k", 0)
        self.window = work.harvest.context - (0 if work.model.tokenizer.bos is None else 1)
        self.corpus = self._text(PROBE_TOKENS)

    @torch.no_grad()
    def seconds(self) -> dict[str, float]:
        """Return the seconds by stage."""
        work = self.work
        corpus = self._corpus()
        held_out, stored, harvesting = self.harvest()
        dictionary, training = self._train(stored)
        values = stored.read(work.site, 0, min(stored.rows, 4096)).float()
        dictionary.encode(values)
        encoding, code = timed(lambda: dictionary.encode(values))
        rebuilding, _ = timed(lambda: Moments.of(values, dictionary.decode(code)))
        encoded, rebuilt = encoding / len(values), (encoding + rebuilding) / len(values)
        return {
            "corpus": corpus,
            "harvest": harvesting,
            "train": training,
            "evaluate": work.held_out * rebuilt + self._splice(dictionary, held_out, rebuilt),
            "describe": work.rows * (encoded + LOOK_SECONDS * code.indices.shape[1])
            + self._describe(dictionary, stored),
        }

    def harvest(self) -> tuple[Activations, Activations, float]:
        """Return a store of either side, held out first, and the seconds for all tokens."""
        held_out, _ = self._harvested("first", held_out=True)  # a first pass is slower
        rules = TokenRules.of(held_out)
        _, least = self._harvested("few", held_out=True, rules=rules)
        stored, seconds = self._harvested("activations", held_out=False, rules=rules)
        each = max(0.0, seconds - least) / (stored.rows - held_out.rows)
        shard = self._text(self.work.harvest.shard_rows)
        each *= self._padding(shard) / self._padding(self.corpus)
        return held_out, stored, least + each * self.work.tokens

    def _corpus(self) -> float:
        """Return the seconds for reading the packages and tokenising; they may have to be fetched.

        How long packages take to read is an estimate, not measured.
        """
        tokenizer, count = self.work.model.tokenizer, 4096
        text = tokenizer.decode(self.corpus.tokens(0, count).tolist())
        seconds, ids = timed(lambda: tokenizer.encode(text))
        return UNPACKING * self.work.fetched + seconds * self.work.tokens / max(1, len(ids))

    def _text(self, tokens: int) -> "RandomCorpus":
        held_out = min(self.window, LONGEST_WINDOW)
        return RandomCorpus(self.work.model, tokens, HELD_OUT_WINDOWS, held_out)

    def _padding(self, corpus: Corpus) -> float:
        """Return how many tokens the model reads for one of a shard; more in a small one."""
        windows = corpus.windows(self.window, held_out=False)
        batches = window_batches(
            corpus,
            windows,
            range(len(windows.start)),
            batch_tokens=self.work.harvest.batch_tokens,
            bos=self.work.model.tokenizer.bos,
        )
        return sum(batch.ids.numel() for batch in batches) / int(windows.length.sum())

    def _harvested(
        self, name: str, *, held_out: bool, rules: TokenRules | None = None
    ) -> tuple[Activations, float]:
        """Return a store of one side of the corpus, and its seconds."""
        work = self.work
        seconds, stored = timed(
            lambda: harvest(
                work.model,
                self.corpus,
                self.sites,
                self.folder / name,
                held_out=held_out,
                config=work.harvest,
                rules=rules,
            )
        )
        return stored, seconds

    def _train(self, stored: Activations) -> tuple[Dictionary, float]:
        """Return what a short run leaves, and the seconds that the whole run will take."""
        work, site = self.work, (self.work.site,)
        stream = Stream(stored, site)
        dictionary, seconds = timed_training(
            stream, work.train, site, site, work.rows, self.folder, work.device
        )
        dictionary.save(self.folder / "dictionary", made_from=stored.manifest["made_from"])
        return dictionary, seconds

    def _splice(self, dictionary: Dictionary, held_out: Activations, rebuilt: float) -> float:
        """Return the seconds for all spliced tokens, given those of a rebuilt one."""

        def spliced(tokens: int) -> Report:
            return evaluate(
                self.work.model,
                dictionary,
                held_out,
                self.corpus,
                self.folder / f"report-{tokens}.json",
                config=EvaluateConfig(spliced_tokens=tokens, spliced_share=1.0),
            )

        first, _ = timed(lambda: spliced(1))  # is slower, in the job too
        seconds, report = timed(
            lambda: spliced(SPLICED_WINDOWS * held_out.rows // HELD_OUT_WINDOWS)
        )
        tokens: int = report["spliced_tokens"]
        each = max(0.0, seconds - held_out.rows * rebuilt) / tokens
        return first + each * self.work.spliced

    def _describe(self, dictionary: Dictionary, stored: Activations) -> float:
        """Return the seconds for the pages of all features, from those of a few and of more."""
        features = dictionary.config.features
        few, more = (min(features, max(count, self.active)) for count in PAGES)
        first = self._pages(dictionary, stored, few, "first")  # is slower, in the job too
        least = self._pages(dictionary, stored, few, "few")
        if more == few:
            return first
        each = max(0.0, self._pages(dictionary, stored, more, "more") - least) / (more - few)
        return first + (features - few) * each

    def _pages(self, dictionary: Dictionary, stored: Activations, count: int, name: str) -> float:
        """Return the seconds of describing the first ``count`` features."""
        some = Dictionary(replace(dictionary.config, features=count))
        whole = dictionary.state_dict()
        for key, part in some.state_dict().items():
            part.copy_(whole[key][tuple(slice(size) for size in part.shape)])
        some.save(self.folder / name, made_from=stored.manifest["made_from"])
        return timed(
            lambda: describe(
                self.work.model, some, stored, self.corpus, self.folder / f"{name}-atlas"
            )
        )[0]


@torch.enable_grad()
def timed_training(
    stream: Stream,
    config: TrainConfig,
    reads: Sequence[str],
    writes: Sequence[str],
    rows: int,
    folder: Path,
    device: str,
) -> tuple[Dictionary, float]:
    """Return what a short run on ``stream`` leaves, and the seconds of the whole run on ``rows``.

    The short run goes through the whole schedule. Then some features are called dead, which makes a
    step slower: in a whole run some are for about as many steps as it takes to notice, and for
    those that revive them. ``folder`` is for a checkpoint.
    """
    steps, passes = FIRST_STEPS + PROBE_STEPS, config.passes
    short = replace(
        config,
        passes=-(-(steps + DEAD_STEPS) * config.batch // stream.rows),
        dead_tokens=config.dead_after(rows),
    )
    begin, trainer = timed(lambda: Trainer(stream, short, tuple(reads), tuple(writes), device))
    sample = stream.sample(SAMPLE_ROWS)
    centring, _ = timed(lambda: geometric_median(sample))
    begin += centring * (min(rows, SAMPLE_ROWS) / len(sample) - 1)
    batches = stream.batches(config.batch, short.passes, 0)
    trainer.steps = steps

    def advance(count: int) -> float:
        begun = time.perf_counter()
        for _ in range(count):
            trainer.advance(next(batches))
        return (time.perf_counter() - begun) / count

    advance(FIRST_STEPS)
    plain = advance(PROBE_STEPS)
    dead = torch.arange(config.features) % DEAD_ONE_IN == 0
    slower = 0.0
    for _ in range(DEAD_STEPS):
        trainer.silent[dead] = trainer.dead_after
        slower += max(0.0, advance(1) - plain) / DEAD_STEPS
    saving, _ = timed(lambda: save_checkpoint(folder, 1, trainer.tensors(), {}))
    count = rows * passes // config.batch
    reviving = min(count / 2, trainer.dead_after / config.batch + REVIVING_STEPS)
    seconds = begin + count * plain + reviving * slower
    return trainer.dictionary.cpu(), seconds + count // config.checkpoint_every * saving


class RandomCorpus(Corpus):
    """Random tokens in memory, in documents as long as those of the default text."""

    def __init__(self, model: LanguageModel, tokens: int, held_out: int, window: int) -> None:
        """Make about ``tokens`` to train on, then ``held_out`` documents of one window each.

        Held-out text is run in batches of like lengths, so that whole windows stand for it.
        """
        whole, rest = divmod(tokens, sum(DOCUMENT_LENGTHS))
        more = int(np.searchsorted(np.cumsum(DOCUMENT_LENGTHS), rest))
        count = max(1, whole * len(DOCUMENT_LENGTHS) + more)
        lengths = np.resize(DOCUMENT_LENGTHS, count), np.full(held_out, window)
        self.path = Path("random tokens")
        self.length = np.concatenate(lengths).astype(np.int32)
        self.start = np.cumsum(self.length, dtype=np.int64) - self.length
        self.held_out = np.repeat(np.array([0, 1], np.uint8), [count, held_out])
        self.source = np.zeros(len(self.length), np.int16)
        self.offset, self.first = self.start, np.zeros_like(self.start)
        self.sources = ["random"]
        ordinary = np.setdiff1d(np.arange(model.tokenizer.vocabulary), [*model.tokenizer.special])
        total = int(self.length.sum())
        self._ids = np.random.default_rng(0).choice(ordinary, total).astype(np.uint32)
        self.manifest = {"tokens": total, "made_from": {"tokenizer": model.tokenizer.hash}}
        self.hash = fingerprint(self._ids.tolist())

    def tokens(self, start: int, stop: int) -> UInt32[np.ndarray, " tokens"]:
        """Return the token ids of the global indices ``start`` to ``stop``."""
        return self._ids[start:stop]


def timed(function: Callable[[], Result]) -> tuple[float, Result]:
    """Return the seconds that a call takes, and what it returns."""
    begun = time.perf_counter()
    result = function()
    return time.perf_counter() - begun, result
