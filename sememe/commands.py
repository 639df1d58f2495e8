"""The commands as dataclasses: their fields are the flags, their docstrings the help.

Heavy imports stay inside ``__call__``, so that ``sememe --help`` answers at once.
"""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from sememe.errors import UsageError
from sememe.studies.commands import Study
from sememe.terminal import print_table, terminal_progress

if TYPE_CHECKING:
    from sememe.training.config import TrainConfig

LISTED = ("label", "default", "megabytes", "licence", "covers")
"""Columns of the table of sources that fit a terminal; --json has them all."""
ModelDtype = Literal["auto", "fp32", "bf16"]
Recipe = Literal[
    "sememe",
    "towards_monosemanticity",
    "april_update",
    "january_2025",
    "openai_topk",
    "gated",
    "jumprelu",
    "batchtopk",
    "matryoshka",
    "lista_matryoshka",
    "topk",
]


@dataclass(frozen=True, kw_only=True)
class _Training:
    """Dials of training that several commands share."""

    recipe: Recipe = "topk"
    """Way to train: topk is the fastest, sememe the best at finding true features."""
    features: int = 9216
    """Number of features."""
    k: int | None = None
    """Features active on one token, for recipes with a budget; by default 32."""
    sparsity: float | None = None
    """Weight of the penalty that keeps features few, for recipes without a budget."""
    passes: int = 4
    """Times to go over the activations."""
    batch: int | None = None
    """Tokens a training step; by default the recipe's."""
    learning_rate: float | None = None
    """Learning rate after warm-up; by default the recipe's."""
    seed: int = 0
    """Of the choice of text, the first weights and the order of training."""

    def training(self) -> "TrainConfig":
        """Return the configuration of the trainer."""
        from sememe.training import recipes

        made = recipes.make(
            self.recipe,
            features=self.features,
            k=self.k,
            sparsity=self.sparsity,
            passes=self.passes,
        )
        own = {"batch": self.batch, "learning_rate": self.learning_rate}
        return replace(made, seed=self.seed, **{n: v for n, v in own.items() if v is not None})


@dataclass(frozen=True, kw_only=True)
class Map(_Training):
    """Take a model apart: corpus, harvest, train, evaluate, describe. Resumes where it was."""

    model: Positional[str]
    """A packaged model (smollm2-135m, gemma3-270m), a directory, or a hub id."""
    site: str | None = None
    """Where to read the model; by default the residual stream after its middle layer."""
    tokens: int = 1_000_000
    """Tokens of text, those of the held-out twentieth of the documents included."""
    text: tuple[str, ...] = ()
    """Sources (`sememe corpus --list`) or paths of your own text; by default the default set."""
    context: int = 256
    """Longest stretch of a document that the model reads at once, in tokens."""
    model_dtype: ModelDtype = "auto"
    """What the model computes in; auto is bf16 where the processor is made for it."""
    accept_terms: bool = False
    """Accept the terms of a model that has them (Gemma)."""
    out: Path | None = None
    """Directory of the run; by default runs/MODEL."""
    serve: bool = False
    """Show the atlas in the browser when it is done."""
    port: int = 8765
    """Port to serve on; 0 takes any free one."""
    json: bool = False
    """Print the figures as one JSON object."""

    def __call__(self) -> None:
        from sememe.activations.rules import HarvestConfig
        from sememe.job import MapConfig, map_model

        if self.serve:
            from sememe.web.server import check_ready

            check_ready(self.port)
        out = self.out or Path("runs") / Path(self.model).name
        config = MapConfig(
            model=self.model,
            site=self.site,
            tokens=self.tokens,
            text=self.text,
            seed=self.seed,
            model_dtype=self.model_dtype,
            accept_terms=self.accept_terms,
            harvest=HarvestConfig(context=self.context),
            train=self.training(),
        )
        with terminal_progress() as progress:
            figures = map_model(config, out, progress=progress)
        _show(figures, self.json)
        if self.serve:
            Serve(run=out, port=self.port)()
        elif not self.json:
            sys.stdout.write(f"\nLook at it: sememe serve {out}\n")


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Gather text and write it as token shards, or list where text comes from."""

    list: bool = False
    """Print the table of sources with licences and sizes."""
    model: str = "smollm2-135m"
    """Whose tokenizer to use."""
    tokens: int = 1_000_000
    """Tokens of text."""
    text: tuple[str, ...] = ()
    """Sources or paths of your own text; by default the default set."""
    held_out: float = 0.05
    """Share of the documents that training never sees."""
    seed: int = 0
    """Of the choice of documents."""
    accept_terms: bool = False
    """Accept the terms of a model that has them (Gemma)."""
    out: Path | None = None
    """Directory of the corpus."""
    json: bool = False
    """Print JSON."""

    def __call__(self) -> None:
        from sememe.corpora.build import build_corpus
        from sememe.corpora.sources import source_table

        if self.list:
            rows = source_table()
            if self.json:
                _show({"sources": rows}, as_json=True)
                return
            print_table(
                ("source", "default", "MB", "licence", "what it is"),
                [[row[name] for name in LISTED] for row in rows],
            )
            return
        out = _needed(self.out)
        from sememe.models.load import load_model

        with terminal_progress() as progress:
            model = load_model(self.model, accept_terms=self.accept_terms, progress=progress)
            corpus = build_corpus(
                out,
                model.tokenizer,
                tokens=self.tokens,
                sources=[*self.text] or None,
                seed=self.seed,
                held_out=self.held_out,
                progress=progress,
            )
        facts = {name: corpus.manifest[name] for name in ("tokens", "documents", "held_out_tokens")}
        if self.json:
            _show({**facts, "sources": corpus.manifest["sources"], "out": str(out)}, as_json=True)
            return
        columns = ("label", "documents", "tokens")
        print_table(
            ("source", *columns[1:]),
            [[row[name] for name in columns] for row in corpus.manifest["sources"]],
        )
        _show({**facts, "out": str(out)}, as_json=False)


@dataclass(frozen=True, kw_only=True)
class Harvest:
    """Run a model over a corpus and store its activations at some sites."""

    model: Positional[str]
    """A packaged model, a directory, or a hub id."""
    corpus: Path
    """Directory of the corpus."""
    sites: tuple[str, ...]
    """Sites to store; `sememe sites MODEL` lists them."""
    out: Path
    """Directory of the store."""
    held_out: bool = False
    """Read the held-out documents instead of the training ones."""
    rules_of: Path | None = None
    """A store whose token rules to apply, so that held-out activations match the training ones."""
    context: int = 256
    """Longest stretch of a document that the model reads at once, in tokens."""
    dtype: Literal["auto", "fp16", "bf16", "fp32"] = "auto"
    """Of the store; auto is fp16 unless the activations are too large for it."""
    model_dtype: ModelDtype = "auto"
    """What the model computes in."""
    accept_terms: bool = False
    """Accept the terms of a model that has them (Gemma)."""
    json: bool = False
    """Print JSON."""

    def __call__(self) -> None:
        from sememe.activations.harvest import harvest
        from sememe.activations.rules import HarvestConfig, TokenRules
        from sememe.activations.store import Activations
        from sememe.corpora.corpus import Corpus as OpenCorpus
        from sememe.models.load import load_model

        corpus = OpenCorpus.open(self.corpus)
        rules = TokenRules.of(Activations.open(self.rules_of)) if self.rules_of else None
        with terminal_progress() as progress:
            model = load_model(
                self.model,
                dtype=self.model_dtype,
                accept_terms=self.accept_terms,
                progress=progress,
            )
            stored = harvest(
                model,
                corpus,
                list(self.sites),
                self.out,
                held_out=self.held_out,
                config=HarvestConfig(context=self.context, dtype=self.dtype),
                rules=rules,
                progress=progress,
            )
        _show(
            {"rows": stored.rows, "sites": stored.manifest["sites"], "out": str(self.out)},
            self.json,
        )


@dataclass(frozen=True, kw_only=True)
class Train(_Training):
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
        from sememe.training.loop import train

        stored = Activations.open(self.activations)
        if not self.reads and len(stored.sites) > 1:
            raise UsageError(f"--reads is needed: {self.activations} holds {stored.sites}")
        reads = self.reads or tuple(stored.sites)
        writes = self.writes or reads
        with terminal_progress() as progress:
            dictionary = train(
                Stream(stored, tuple(dict.fromkeys((*reads, *writes)))),
                replace(self.training(), skip=self.skip),
                self.out,
                reads=reads,
                writes=writes,
                made_from=provenance(stored),
                progress=progress,
            )
        _show({**dictionary.manifest["figures"], "out": str(self.out)}, self.json)


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
            _show(report, as_json=True)
            return
        plain = {
            name: value for name, value in report.items() if isinstance(value, str | float | int)
        }
        entropies = {f"cross_entropy {name}": v for name, v in report["cross_entropy"].items()}
        _show({**plain, **entropies}, as_json=False)


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
        _show({**facts, **atlas.manifest["statuses"], "out": str(run.atlas)}, self.json)


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Show a run in the browser, on this machine only."""

    run: Positional[Path]
    """What `sememe map` made."""
    port: int = 8765
    """Port to listen on; 0 takes any free one."""

    def __call__(self) -> None:
        from sememe.activations.rules import TokenRules
        from sememe.activations.store import Activations
        from sememe.artefacts import read_json, refuse_unfit
        from sememe.atlas.store import Atlas
        from sememe.dictionaries.dictionary import Dictionary
        from sememe.job import Run
        from sememe.web.live import LivePrompt
        from sememe.web.server import serve

        run = Run(self.run)
        atlas = Atlas.open(run.atlas)
        held_out = Activations.open(run.held_out, verify=False)
        dictionary = Dictionary.load(run.dictionary)
        made_from = atlas.manifest["made_from"]["dictionary"]
        refuse_unfit(str(run.atlas), {"dictionary": (made_from, dictionary.manifest["hash"])})
        window = held_out.manifest["config"]["window"]
        prompt = LivePrompt(run.load_model, dictionary, TokenRules.of(held_out), window)
        report = read_json(run.report) if run.report.exists() else {}

        def announce(url: str) -> None:
            sys.stdout.write(f"sememe shows {self.run} at\n\n    {url}\n\nCtrl-C ends it.\n")
            sys.stdout.flush()

        serve(atlas, port=self.port, prompt=prompt, report=report, announce=announce)


@dataclass(frozen=True, kw_only=True)
class Sites:
    """List the sites of a model with their widths."""

    model: Positional[str]
    """A packaged model, a directory, or a hub id."""
    accept_terms: bool = False
    """Accept the terms of a model that has them (Gemma)."""
    json: bool = False
    """Print JSON."""

    def __call__(self) -> None:
        from sememe.models.load import load_model

        with terminal_progress() as progress:
            model = load_model(self.model, accept_terms=self.accept_terms, progress=progress)
            sites = model.sites()
        rows = [{"site": site.name, "width": site.width} for site in sites]
        if self.json:
            _show({"model": model.name, "sites": rows}, as_json=True)
        else:
            print_table(("site", "width"), [[site.name, site.width] for site in sites])


COMMANDS: dict[str, Callable[..., Any]] = {
    "map": Map,
    "corpus": Corpus,
    "harvest": Harvest,
    "train": Train,
    "evaluate": Evaluate,
    "describe": Describe,
    "serve": Serve,
    "sites": Sites,
    "study": Study,
}


def _needed(out: Path | None) -> Path:
    if out is None:
        raise UsageError("--out DIR is needed: where to write what is made")
    return out


def _show(figures: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(figures, ensure_ascii=False) + "\n")
        return
    flat: list[tuple[str, object]] = []
    for name, value in figures.items():
        if isinstance(value, Mapping):
            flat += [(f"{name} {key}", part) for key, part in value.items()]
        else:
            flat.append((name, value))
    print_table(("", ""), flat)
