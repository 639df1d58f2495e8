"""Describe every feature of a dictionary in one pass over the activations.

The pass encodes each activation once and keeps its code (a few hundred bytes a token) beside the
atlas until it is written; everything after it reads codes, never activations. A killed pass goes on
at the first shard whose codes are missing.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from safetensors import SafetensorError

from sememe.activations.store import Activations
from sememe.artefacts import begin, is_finished, refuse_unfit, write_bytes
from sememe.atlas.examples import Contexts, Examples, choose, pages_of_examples
from sememe.atlas.statistics import INTERVALS, Codes, FirstLook, SecondLook
from sememe.atlas.store import STATUSES, Atlas, Page
from sememe.atlas.tokens import active_tokens, peak_tokens
from sememe.atlas.weights import Ranked, logit_effects, neighbours
from sememe.atlas.writing import write_atlas
from sememe.corpora.corpus import Corpus, Windows
from sememe.dictionaries.dictionary import Dictionary
from sememe.evaluation.evaluate import DENSE
from sememe.kernels.compiled import Array
from sememe.models.language_model import LanguageModel
from sememe.progress import Progress

ULTRALOW = 1e-6
"""A feature that fires on a smaller share of tokens than this is ultralow."""


def describe(
    model: LanguageModel,
    dictionary: Dictionary,
    activations: Activations,
    corpus: Corpus,
    out: Path,
    *,
    progress: Progress | None = None,
) -> Atlas:
    """Write the atlas of ``dictionary`` over the stored activations that it reads.

    Raises SememeError when the parts do not belong together.
    """
    progress = progress or Progress()
    site = dictionary.site
    dictionary.check_fits(model_hash=model.hash, site=site, width=activations.width(site))
    refuse_unfit(
        str(activations.path),
        {"corpus": (activations.manifest["made_from"]["corpus"], corpus.hash)},
    )
    made_from = {
        "model": model.hash,
        "model_name": model.name,
        "corpus": corpus.hash,
        "activations": activations.hash,
        "dictionary": dictionary.manifest["hash"],
    }
    begin(out, made_from)
    if is_finished(out):
        return Atlas.open(out)
    reader = _Reader(dictionary, activations, corpus, site, out / "codes")
    progress.start("describe", activations.rows, "tokens")
    first = FirstLook.empty(dictionary.config.features, len(corpus.sources))
    for shard in range(activations.shards):
        codes = reader.codes(shard)
        first.add(codes)
        progress.advance(len(codes.place))
    second = SecondLook.empty(first.maximum)
    for shard in range(activations.shards):
        second.add(reader.codes(shard))
    chosen = choose(first, second)
    contexts = Contexts.empty(len(chosen.row))
    for shard in range(activations.shards):
        contexts.fill(chosen, reader.codes(shard), corpus, reader.windows)
    with torch.no_grad():
        decoder = torch.nn.functional.normalize(dictionary.W_dec.detach().float(), dim=1)
        effects = logit_effects(model, decoder, site)
        near = neighbours(decoder)
    tokens = active_tokens(chosen, contexts, second.interval_counts())
    peaks = peak_tokens(chosen, contexts, dictionary.config.features)
    statistics = _columns(first, activations.rows, effects, peaks)
    pages = _pages(first, second, chosen, contexts, corpus, statistics, effects, tokens, near)
    atlas = write_atlas(
        out,
        pages,
        statistics,
        model.tokenizer.bytes_of,
        config={"intervals": INTERVALS, "dense": DENSE, "ultralow": ULTRALOW},
        made_from=made_from,
        model=model.name,
        site=site,
        tokens=activations.rows,
        sources=corpus.sources,
        statuses={
            name: int((statistics["status"] == number).sum())
            for number, name in enumerate(STATUSES)
        },
        alive=int((first.fired > 0).sum()),
        l0=float(first.fired.sum() / activations.rows),
    )
    shutil.rmtree(out / "codes", ignore_errors=True)
    progress.finish(f"{int((first.fired > 0).sum()):,} features fire")
    return atlas


class _Reader:
    """Codes of a store's shards: encoded once, kept until the atlas is written."""

    def __init__(
        self,
        dictionary: Dictionary,
        activations: Activations,
        corpus: Corpus,
        site: str,
        folder: Path,
    ) -> None:
        self.dictionary, self.activations, self.corpus = dictionary, activations, corpus
        self.site, self.folder = site, folder
        config = activations.manifest["config"]
        self.windows: Windows = corpus.windows(config["window"], config["held_out"])

    def codes(self, shard: int) -> Codes:
        """Return the codes of one shard, from the disk if they are there."""
        path = self.folder / f"codes-{shard:05d}.safetensors"
        start, stop = self.activations.shard_starts[shard : shard + 2]
        if not path.exists():
            write_bytes(path, safetensors.numpy.save(self._encode(shard)))
        try:
            stored = safetensors.numpy.load_file(path)
        except SafetensorError:  # damaged while the pass was interrupted
            path.unlink()
            return self.codes(shard)
        place = self.activations.read("place", start, stop).numpy()
        document = self.activations.read("document", start, stop).numpy()
        position = self.activations.read("position", start, stop).numpy()
        return Codes(
            stored["indices"],
            stored["values"],
            start,
            place,
            place - position,
            self.corpus.source[document],
        )

    def _encode(self, shard: int) -> dict[str, Array]:
        with torch.no_grad():
            parts = [
                self.dictionary.encode(rows.values)
                for rows in self.activations.in_order(self.site, shard=shard)
            ]
        widest = max(part.indices.shape[1] for part in parts)
        pad = [(0, widest - part.indices.shape[1]) for part in parts]
        return {
            name: np.concatenate(
                [
                    np.pad(getattr(part, name).numpy(), ((0, 0), p))
                    for part, p in zip(parts, pad, strict=True)
                ]
            )
            for name in ("indices", "values")
        }


def _columns(
    first: FirstLook, rows: int, effects: tuple[Ranked, Ranked] | None, peaks: Ranked
) -> dict[str, Array]:
    frequency = first.fired / rows
    status = np.zeros(len(frequency), np.uint8)
    status[frequency > DENSE] = STATUSES.index("dense")
    status[frequency < ULTRALOW] = STATUSES.index("ultralow")
    status[first.fired == 0] = STATUSES.index("dead")
    promotes = effects[0].which if effects else np.full((len(frequency), 1), -1)
    return {
        "frequency": frequency.astype(np.float32),
        "mean": (first.total / np.maximum(first.fired, 1)).astype(np.float32),
        "maximum": first.maximum,
        "status": status,
        "promotes": promotes.astype(np.int32),
        "tokens": peaks.which,
    }


def _pages(
    first: FirstLook,
    second: SecondLook,
    chosen: Examples,
    contexts: Contexts,
    corpus: Corpus,
    columns: dict[str, Array],
    effects: tuple[Ranked, Ranked] | None,
    tokens: Ranked,
    near: Ranked,
) -> Iterator[Page]:
    counts = second.interval_counts()
    bins = second.histogram.shape[1]
    features = len(first.fired)
    listed = pages_of_examples(chosen, contexts, corpus, features)
    for feature, (top, samples) in enumerate(listed):
        maximum = float(first.maximum[feature])
        intervals = [
            {
                "low": round(maximum * number / INTERVALS, 4),
                "high": round(maximum * (number + 1) / INTERVALS, 4),
                "count": int(counts[feature, number]),
                "examples": samples[number],
            }
            for number in reversed(range(INTERVALS))
        ]
        fired = int(first.fired[feature])
        by_source = first.by_source[feature] / max(fired, 1)
        page: Page = {
            "feature": feature,
            "frequency": float(columns["frequency"][feature]),
            "count": fired,
            "mean": float(columns["mean"][feature]),
            "maximum": maximum,
            "status": STATUSES[columns["status"][feature]],
            "histogram": {
                "edges": [round(maximum * edge / bins, 5) for edge in range(bins + 1)],
                "counts": second.histogram[feature].tolist(),
            },
            "tokens": _pairs(tokens, feature),
            "top": top,
            "intervals": intervals if fired else [],
            "promotes": _pairs(effects[0], feature) if effects else [],
            "suppresses": _pairs(effects[1], feature) if effects else [],
            "neighbours": _pairs(near, feature),
            "sources": [
                [corpus.sources[number], round(float(by_source[number]), 4)]
                for number in np.argsort(-by_source, kind="stable")
                if by_source[number] > 0
            ],
        }
        yield page


def _pairs(ranked: Ranked, feature: int) -> list[list[Any]]:
    return [
        [int(which), round(float(amount), 4)]
        for which, amount in zip(ranked.which[feature], ranked.amount[feature], strict=True)
        if which >= 0
    ]
