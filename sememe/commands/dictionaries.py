"""The commands of a dictionary: train it, describe it."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from sememe.commands.dials import ModelDtype, Training
from sememe.commands.figures import show
from sememe.errors import UsageError
from sememe.terminal import terminal_progress

if TYPE_CHECKING:
    from sememe.activations.buffered import BufferedStream
    from sememe.activations.in_order import InOrder
    from sememe.activations.live import LiveStream
    from sememe.activations.stream import Stream
    from sememe.atlas.store import Atlas
    from sememe.dictionaries.dictionary import Dictionary
    from sememe.progress import Progress
    from sememe.run import Run
    from sememe.training.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Train(Training):
    """Train a dictionary on stored activations, or on a model's as it reads text."""

    activations: Positional[str | None] = None
    """Directory or URL of the store; none with --live."""
    live: str | None = None
    """Train on this model's activations as it reads, without a store; needs --corpus, --reads.
    The figures say how many tokens were read and left out."""
    corpus: Path | None = None
    """Directory of the corpus that the live model reads."""
    context: int | None = None
    """Longest stretch of a document that the live model reads at once, in tokens; else 256."""
    buffer: int | None = None
    """Activations of the live model held in memory to be mixed; else 131,072."""
    kl: float | None = None
    """Weight of the KL divergence of the live model's predictions, in nats a token, when it goes on
    from reconstructions (end to end); batches are whole stretches of text then. A dictionary that
    predicts zero has a squared error of the site's width."""
    model_dtype: ModelDtype = "auto"
    """What the live model computes in."""
    accept_terms: bool = False
    """Accept the terms of a live model that has them (Gemma)."""
    out: Path
    """Directory of the dictionary."""
    reads: tuple[str, ...] = ()
    """Sites to encode; by default the store's only one. Several make a crosscoder."""
    writes: tuple[str, ...] = ()
    """Sites to reconstruct; by default those read. Another one makes a transcoder."""
    skip: bool = False
    """Let a matrix pass the input to the output beside the features (transcoders)."""
    json: bool = False
    """Print JSON."""

    def __call__(self) -> None:
        from sememe.activations.stream import Stream
        from sememe.planner import announce_train
        from sememe.training.devices import check_device
        from sememe.training.loop import train

        config = self.training()
        check_device(self.device)
        with terminal_progress() as progress:
            stream = self._live(progress) if self.live else self._stored(progress)
            reads = self.reads or stream.sites
            writes = self.writes or reads
            announce_train(stream, self.out, config, reads, writes, self.device, progress)
            dictionary = train(
                stream,
                config,
                self.out,
                reads=reads,
                writes=writes,
                device=self.device,
                progress=progress,
            )
        tokens = {} if isinstance(stream, Stream) else {"tokens": stream.tokens}
        show({**dictionary.manifest["figures"], **tokens, "out": str(self.out)}, self.json)

    def _stored(self, progress: "Progress") -> "Stream":
        from sememe.activations.store import Activations
        from sememe.activations.stream import Stream

        if self.activations is None:
            raise UsageError("what to train on is needed: a store's directory, or --live MODEL")
        for name in ("corpus", "context", "buffer", "kl"):
            if getattr(self, name) is not None:
                raise UsageError(f"--{name} is for --live MODEL, but a store was given")
        stored = Activations.open(self.activations, progress=progress)
        if not self.reads and len(stored.sites) > 1:
            raise UsageError(f"--reads is needed: {self.activations} holds {stored.sites}")
        reads = self.reads or tuple(stored.sites)
        return Stream(stored, tuple(dict.fromkeys((*reads, *self.writes))))

    def training(self) -> "TrainConfig":
        """Return the configuration of the trainer, the KL divergence among its terms if asked."""
        from sememe.dictionaries.objectives import Divergence

        made = replace(super().training(), skip=self.skip)
        if self.kl is None:
            return made
        if not 0 < self.kl < math.inf:
            raise UsageError(f"--kl is {self.kl}; expected a positive number")
        return replace(made, objective=(*made.objective, Divergence(self.kl)))

    def _live(self, progress: "Progress") -> "BufferedStream | LiveStream":
        from sememe.activations.buffered import BUFFER, BufferedStream
        from sememe.activations.live import LiveStream
        from sememe.activations.rules import HarvestConfig
        from sememe.corpora.corpus import Corpus
        from sememe.models.load import load_model
        from sememe.models.reading import check_replaceable

        if self.activations is not None:
            raise UsageError(f"both {self.activations} and --live {self.live} were given: choose")
        if self.corpus is None or not self.reads:
            raise UsageError("--live needs --corpus DIR, the text to read, and --reads SITE")
        if self.kl is not None and self.buffer is not None:
            raise UsageError("--buffer mixes single tokens, but --kl runs on from whole stretches")
        assert self.live is not None
        model = load_model(
            self.live,
            dtype=self.model_dtype,
            accept_terms=self.accept_terms,
            progress=progress,
        )
        corpus, config = Corpus.open(self.corpus), HarvestConfig()
        sites = tuple(dict.fromkeys((*self.reads, *self.writes)))
        if self.context is not None:
            config = replace(config, context=self.context)
        if self.kl is not None:
            check_replaceable(model, (self.writes or self.reads)[0])
            return LiveStream(model, corpus, sites, config)
        buffer = BUFFER if self.buffer is None else self.buffer
        return BufferedStream(model, corpus, sites, config, buffer=buffer)


@dataclass(frozen=True, kw_only=True)
class Describe:
    """Make the atlas of a run's dictionary: every feature's page."""

    run: Positional[Path]
    """What `sememe map` made, or the same directories made stage by stage."""
    part: str | None = None
    """Only read a part of the store, such as 2/8, the second of eight, and leave what the atlas
    needs of it. Parts can be made at the same time; without this option they are put together."""
    live: bool = False
    """Let the model read the corpus again by the dictionary's token rules, instead of a store: the
    figures are the same. The run needs a corpus and a dictionary alone."""
    beside: Path | None = None
    """Another run of the same site: its map is kept, and these features are placed on it."""
    json: bool = False
    """Print JSON."""

    def __call__(self) -> None:
        from sememe.activations.in_order import LiveRows
        from sememe.atlas.describe import describe, live_rows
        from sememe.corpora.corpus import Corpus
        from sememe.dictionaries.dictionary import Dictionary
        from sememe.job import open_run
        from sememe.run import Run

        rows: InOrder
        with terminal_progress() as progress:
            if self.live:
                run = Run(self.run)
                dictionary, corpus = Dictionary.load(run.dictionary), Corpus.open(run.corpus)
                rows = live_rows(run.load_model(progress), dictionary, corpus)
            else:
                run, dictionary, rows, _, corpus = open_run(self.run)
            if self.part is not None:
                done = self._part(self.part, run, dictionary, rows, progress)
            else:
                atlas = describe(
                    rows.model if isinstance(rows, LiveRows) else run.load_model(progress),
                    dictionary,
                    rows,
                    corpus,
                    run.atlas,
                    beside=self._other(),
                    progress=progress,
                )
                known = ("features", "alive", "tokens", "l0")
                facts = {name: atlas.manifest[name] for name in known}
                done = {**facts, **atlas.manifest["statuses"], "out": str(run.atlas)}
        show(done, self.json)

    def _part(
        self,
        part: str,
        run: "Run",
        dictionary: "Dictionary",
        activations: "InOrder",
        progress: "Progress",
    ) -> dict[str, object]:
        from sememe.atlas.describe import PARTS
        from sememe.atlas.parts import describe_part, shards_of

        if self.beside is not None:
            raise UsageError("--beside is for the whole atlas, but --part was given")
        shards = shards_of(part, activations.shards)
        starts = activations.shard_starts
        tokens = starts[shards.stop] - starts[shards.start]
        folder = run.atlas / PARTS
        progress.start(f"describe {part}", tokens, "tokens")
        describe_part(dictionary, activations, folder, shards, progress=progress)
        progress.finish()
        return {"shards": len(shards), "tokens": tokens, "out": str(folder)}

    def _other(self) -> "tuple[Atlas, Dictionary] | None":
        from sememe.atlas.store import Atlas
        from sememe.dictionaries.dictionary import Dictionary
        from sememe.run import Run

        if self.beside is None:
            return None
        other = Run(self.beside)
        return Atlas.open(other.atlas), Dictionary.load(other.dictionary)
