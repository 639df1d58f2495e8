"""The commands of a dictionary: train, evaluate, describe it."""

from dataclasses import dataclass, replace
from pathlib import Path

from tyro.conf import Positional

from sememe.commands.dials import Training
from sememe.commands.figures import show
from sememe.errors import UsageError
from sememe.terminal import terminal_progress


@dataclass(frozen=True, kw_only=True)
class Train(Training):
    """Train a dictionary on stored activations."""

    activations: Positional[Path]
    """Directory of the store."""
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
        from sememe.activations.store import Activations
        from sememe.activations.stream import Stream
        from sememe.job import provenance
        from sememe.planner import check_train
        from sememe.training.loop import train

        stored = Activations.open(self.activations)
        if not self.reads and len(stored.sites) > 1:
            raise UsageError(f"--reads is needed: {self.activations} holds {stored.sites}")
        reads = self.reads or tuple(stored.sites)
        writes = self.writes or reads
        config = replace(self.training(), skip=self.skip)
        check_train(stored, self.out, config, reads, writes)
        with terminal_progress() as progress:
            dictionary = train(
                Stream(stored, tuple(dict.fromkeys((*reads, *writes)))),
                config,
                self.out,
                reads=reads,
                writes=writes,
                made_from=provenance(stored),
                progress=progress,
            )
        show({**dictionary.manifest["figures"], "out": str(self.out)}, self.json)


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Evaluate a run's dictionary on held-out text."""

    run: Positional[Path]
    """What `sememe map` made."""
    json: bool = False
    """Print the whole report as JSON."""

    def __call__(self) -> None:
        from sememe.evaluation.evaluate import evaluate
        from sememe.job import open_run

        run, dictionary, _, held_out, corpus = open_run(self.run)
        with terminal_progress() as progress:
            model = run.load_model(progress)
            report = evaluate(model, dictionary, held_out, corpus, run.report, progress=progress)
        if self.json:
            show(report, as_json=True)
            return
        plain = {
            name: value for name, value in report.items() if isinstance(value, str | float | int)
        }
        entropies = {f"cross_entropy {name}": v for name, v in report["cross_entropy"].items()}
        show({**plain, **entropies}, as_json=False)


@dataclass(frozen=True, kw_only=True)
class Describe:
    """Make the atlas of a run's dictionary: every feature's page."""

    run: Positional[Path]
    """What `sememe map` made, or the same directories made stage by stage."""
    json: bool = False
    """Print JSON."""

    def __call__(self) -> None:
        from sememe.atlas.describe import describe
        from sememe.job import open_run

        run, dictionary, stored, _, corpus = open_run(self.run)
        with terminal_progress() as progress:
            model = run.load_model(progress)
            atlas = describe(model, dictionary, stored, corpus, run.atlas, progress=progress)
        facts = {name: atlas.manifest[name] for name in ("features", "alive", "tokens", "l0")}
        show({**facts, **atlas.manifest["statuses"], "out": str(run.atlas)}, self.json)
