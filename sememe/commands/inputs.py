"""The commands of what goes in: models' sites, text, activations."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from sememe.commands.dials import ModelDtype
from sememe.commands.figures import show
from sememe.errors import UsageError
from sememe.terminal import print_table, terminal_progress

LISTED = ("label", "default", "megabytes", "licence", "covers")
"""Columns of the table of sources that fit a terminal; --json has them all."""


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
            sites, parts = model.sites(), model.part_sites()
        rows = [{"site": site.name, "width": site.width} for site in sites]
        if self.json:
            others = [{"site": name, "width": width} for name, width in parts]
            show({"model": model.name, "sites": rows, "parts": others}, as_json=True)
        else:
            print_table(("site", "width"), sites)
            print_table(("part of a site", "width"), parts)


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
                show({"sources": rows}, as_json=True)
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
            show({**facts, "sources": corpus.manifest["sources"], "out": str(out)}, as_json=True)
            return
        columns = ("label", "documents", "tokens")
        print_table(
            ("source", *columns[1:]),
            [[row[name] for name in columns] for row in corpus.manifest["sources"]],
        )
        show({**facts, "out": str(out)}, as_json=False)


@dataclass(frozen=True, kw_only=True)
class Harvest:
    """Run a model over a corpus and store its activations at some sites."""

    model: Positional[str]
    """A packaged model, a directory, or a hub id."""
    corpus: Path
    """Directory of the corpus."""
    sites: tuple[str, ...]
    """Sites to store; `sememe sites MODEL` lists them."""
    out: str
    """Directory of the store, or a URL (s3://bucket/folder), which one process at a time writes."""
    held_out: bool = False
    """Read the held-out documents instead of the training ones."""
    share: bool = False
    """Share the work with other processes that run the same command, each with this option."""
    rules_of: str | None = None
    """A store whose token rules to apply, so that held-out activations match the training ones."""
    context: int = 256
    """Longest stretch of a document that the model reads at once, in tokens."""
    dtype: Literal["auto", "fp16", "bf16", "fp32", "int8"] = "auto"
    """Of the store; auto is fp16 unless the activations are too large for it. int8 takes half of
    its room and says what that costs: `sememe activations info`."""
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
        from sememe.objects import place
        from sememe.planner import announce_harvest

        out = place(self.out)
        corpus = OpenCorpus.open(self.corpus)
        rules = (
            TokenRules.of(Activations.open(self.rules_of, verify=False)) if self.rules_of else None
        )
        with terminal_progress() as progress:
            model = load_model(
                self.model,
                dtype=self.model_dtype,
                accept_terms=self.accept_terms,
                progress=progress,
            )
            config = HarvestConfig(context=self.context, dtype=self.dtype)
            if isinstance(out, Path):
                announce_harvest(
                    model,
                    corpus,
                    self.sites,
                    out,
                    config,
                    held_out=self.held_out,
                    progress=progress,
                )
            stored = harvest(
                model,
                corpus,
                list(self.sites),
                out,
                held_out=self.held_out,
                config=config,
                rules=rules,
                share=self.share,
                progress=progress,
            )
        show(
            {"rows": stored.rows, "sites": stored.manifest["sites"], "out": str(out)},
            self.json,
        )


def _needed(out: Path | None) -> Path:
    if out is None:
        raise UsageError("--out DIR is needed: where to write what is made")
    return out
