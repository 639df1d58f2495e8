"""The main job: corpus, harvest, train, evaluate, describe, in one resumable run directory."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sememe.activations.harvest import check_context, harvest
from sememe.activations.rules import HarvestConfig, TokenRules
from sememe.activations.store import Activations
from sememe.activations.stream import Stream
from sememe.artefacts import is_finished, lock, read_json, write_json
from sememe.atlas.describe import describe
from sememe.atlas.early import Early, EarlyLooks
from sememe.atlas.store import Atlas
from sememe.corpora.build import build_corpus
from sememe.corpora.corpus import Corpus
from sememe.corpora.inputs import resolve
from sememe.dictionaries.dictionary import Dictionary
from sememe.errors import SememeError
from sememe.evaluation.evaluate import Report, evaluate
from sememe.models.language_model import LanguageModel
from sememe.models.load import load_model
from sememe.models.reading import check_replaceable
from sememe.planner import WORTH_A_PROBE, plan_work, shown_time
from sememe.probe import probe
from sememe.progress import Progress
from sememe.requirements import Work, check_fits, needs
from sememe.run import SECONDS, Run
from sememe.training.config import TrainConfig
from sememe.training.devices import check_device
from sememe.training.loop import train


@dataclass(frozen=True)
class MapConfig:
    """What the main job is asked for."""

    model: str
    """A packaged model's name, a directory, or a hub id."""
    site: str | None = None
    """Where to read the model; by default the residual stream after its middle layer."""
    tokens: int = 1_000_000
    """Tokens of text, held-out ones included."""
    text: tuple[str, ...] = ()
    """Labels of sources, or paths of your own text; by default the default set of sources."""
    seed: int = 0
    """Of the choice of text, the first weights and the order of training."""
    model_dtype: Literal["auto", "fp32", "bf16"] = "auto"
    """What the model computes in; auto is bf16 where the processor is made for it."""
    accept_terms: bool = False
    """Accept the terms of a model that has them (Gemma)."""
    harvest: HarvestConfig = field(default_factory=HarvestConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    device: str = "cpu"
    """Where the dictionary is trained: cpu, cuda or cuda:N. All else runs on the CPU."""


def middle_site(model: LanguageModel) -> str:
    """Return the residual stream after the model's middle layer."""
    layers = [site.name for site in model.sites() if site.name.endswith(".resid")]
    if not layers:
        raise SememeError(
            f"{model.name} has no named layers: choose a --site from `sememe sites {model.name}`"
        )
    return layers[max(0, len(layers) // 2 - 1)]


def plan(config: MapConfig, out: Path, *, progress: Progress | None = None) -> dict[str, Any]:
    """Return what the main job would take: disk, memory, and seconds by stage from a short probe.

    Nothing is kept in ``out``. SememeError, with the numbers, when the job cannot fit; UsageError
    for the arguments that :func:`map_model` refuses.
    """
    begun = time.perf_counter()
    work = _work(config, progress or Progress())
    loading = time.perf_counter() - begun
    return plan_work(work, out, loading)


def _work(config: MapConfig, progress: Progress) -> Work:
    """Load the model, hold the arguments to it, and return the job on it."""
    check_device(config.device)
    model = load_model(
        config.model, dtype=config.model_dtype, accept_terms=config.accept_terms, progress=progress
    )
    site = config.site or middle_site(model)
    width = model.width(site)
    check_context(model, config.harvest)
    check_replaceable(model, site)  # as the evaluation will
    config.train.dictionary((site,), (site,), (width,), (width,))
    packages = {source.package for source in resolve(list(config.text) or None)}
    megabytes = float(sum(package.megabytes for package in packages if package))
    return Work(model, site, config.tokens, config.harvest, config.train, megabytes, config.device)


def _announce(work: Work, run: Run, progress: Progress) -> None:
    """Refuse a job that cannot fit, and say how long one will take that begins and is long."""
    check_fits(run.path, needs(work))
    if work.tokens < WORTH_A_PROBE or is_finished(run.corpus):
        return
    try:
        seconds = probe(work, run.path)
    except SememeError as error:  # the sample is random tokens: the text itself may do
        progress.say(f"how long this will take could not be measured: {error}")
        return
    stages = ", ".join(f"{name} {shown_time(value)}" for name, value in seconds.items())
    progress.say(f"this will take about {shown_time(sum(seconds.values()))}: {stages}")


def map_model(
    config: MapConfig,
    out: Path,
    *,
    progress: Progress | None = None,
    early: Callable[[Early], None] | None = None,
) -> dict[str, Any]:
    """Run every stage into ``out`` and return the headline figures.

    Called again with the same arguments it goes on where it was, and returns at once when done.
    ``early`` is given features of the dictionary while it is in training, now and then.
    Each stage refuses what was made with other arguments: SememeError names both values. So does a
    job that would not fit on the disk or in memory, before it writes anything.
    """
    progress = progress or Progress()
    begun = time.perf_counter()
    work = _work(config, progress)
    model, site = work.model, work.site
    loading = time.perf_counter() - begun
    run = Run(out)
    done_before = is_finished(run.atlas)
    if not done_before:
        _announce(work, run, progress)
    clock = _Clock(out / SECONDS)
    lock(out)
    clock.counting = not done_before
    clock.add("load", loading)
    with clock("corpus"):
        corpus = build_corpus(
            run.corpus,
            model.tokenizer,
            tokens=config.tokens,
            sources=list(config.text) or None,
            seed=config.seed,
            progress=progress,
        )
    with clock("harvest"):
        stored = harvest(
            model, corpus, [site], run.activations, config=config.harvest, progress=progress
        )
        held_out = harvest(
            model,
            corpus,
            [site],
            run.held_out,
            held_out=True,
            config=config.harvest,
            rules=TokenRules.of(stored),
            progress=progress,
        )
    with clock("train"):
        dictionary = train(
            Stream(stored, (site,)),
            config.train,
            run.dictionary,
            device=config.device,
            progress=progress,
            look=early and EarlyLooks(stored, site, model.tokenizer.bytes_of, early, progress),
        )
    stored.close()
    with clock("evaluate"):
        report = evaluate(model, dictionary, held_out, corpus, run.report, progress=progress)
    with clock("describe"):
        atlas = describe(model, dictionary, stored, corpus, run.atlas, progress=progress)
    if done_before:
        progress.say(f"{out} was done already")
    return headline(run, report, atlas)


def headline(run: Run, report: Report, atlas: Atlas) -> dict[str, Any]:
    """Return the figures that `sememe map --json` prints."""
    return {
        "model": report["model"],
        "site": report["site"],
        "features": atlas.features,
        "tokens": atlas.manifest["tokens"],
        "fvu": report["fvu"],
        "l0": report["l0"],
        "alive": atlas.manifest["alive"] / atlas.features,
        "loss_recovered_zero": report["loss_recovered_zero"],
        "loss_recovered_mean": report["loss_recovered_mean"],
        "seconds": read_json(run.path / SECONDS),
        "out": str(run.path),
    }


def open_run(path: Path) -> tuple[Run, Dictionary, Activations, Activations, Corpus]:
    """Open what `map`, or its stages one by one, left in ``path``."""
    run = Run(path)
    return (
        run,
        Dictionary.load(run.dictionary),
        Activations.open(run.activations),
        Activations.open(run.held_out),
        Corpus.open(run.corpus),
    )


class _Clock:
    """Adds up the seconds of each stage over every run of the same command."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counting = True
        self.before: dict[str, float] = read_json(path) if path.exists() else {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - begun)

    def add(self, stage: str, seconds: float) -> None:
        """Add ``seconds`` to what ``stage`` has taken so far, unless the run was done before."""
        if not self.counting:
            return
        self.before[stage] = round(self.before.get(stage, 0.0) + seconds, 2)
        write_json(self.path, self.before)
