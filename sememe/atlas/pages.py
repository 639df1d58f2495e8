"""Everything known about the features, put together: their pages and the columns of the atlas."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import orjson
import torch
from jaxtyping import Float

from sememe.atlas.cofiring import Cofiring
from sememe.atlas.compiled_json import LARGEST, write_pairs
from sememe.atlas.examples import BlockExamples
from sememe.atlas.firings import Block, Firings
from sememe.atlas.neurons import MergedSums, basis, participation
from sememe.atlas.ranked import Ranked
from sememe.atlas.statistics import INTERVALS, Located, Statistics, Text
from sememe.atlas.store import STATUSES, Page
from sememe.atlas.tokens import TOKENS_SHOWN, TokenShares, peak_tokens
from sememe.atlas.weights import CHUNK, NEIGHBOURS_SHOWN, LogitEffects
from sememe.corpora.corpus import Corpus, Windows
from sememe.dictionaries.dictionary import Dictionary
from sememe.evaluation.metrics import DENSE, ULTRALOW
from sememe.kernels.compiled import Array


class Weights(NamedTuple):
    """What is known of the features from the weights alone."""

    decoder: Float[torch.Tensor, "features width"]
    """Unit decoder rows."""
    norm: Array
    """(features,) norms of the decoder rows."""
    alignment: Array
    """(features,) cosines of encoder and decoder rows."""
    effects: LogitEffects | None
    near: Ranked
    """Features with the nearest decoder rows."""


class Sources(NamedTuple):
    """What the firings point into."""

    text: Text
    corpus: Corpus
    windows: Windows
    vocabulary: int


class _Looked(NamedTuple):
    """What is known of a block of features from where they fire."""

    block: Block
    located: Located
    statistics: Statistics
    tokens: TokenShares
    cofiring: Ranked
    correlated: Ranked


class Pages:
    """Yields every feature's page; :attr:`columns` are complete when all have been yielded."""

    def __init__(
        self, firings: Firings, sums: MergedSums, weights: Weights, sources: Sources
    ) -> None:
        self.firings, self.sums, self.weights, self.sources = firings, sums, weights, sources
        self.cofiring = Cofiring(firings)
        self.columns = _columns(firings, weights, sources.corpus)

    def __iter__(self) -> Iterator[Page]:
        """Yield the pages; the next block is looked at while those of one are put together."""
        with ThreadPoolExecutor(1, thread_name_prefix="block") as ahead:
            coming = None
            for block in self.firings.blocks():
                looked, coming = coming, ahead.submit(self._look, block)
                if looked is not None:
                    yield from self._pages(looked.result())
            if coming is not None:
                yield from self._pages(coming.result())

    def _look(self, block: Block) -> _Looked:
        text = self.sources.text
        located = Located.of(block, text)
        statistics = Statistics.of(block, located, text, len(self.sources.corpus.sources))
        looked = _Looked(
            block,
            located,
            statistics,
            TokenShares.of(block, located, text, self.sources.vocabulary),
            self.cofiring.most_alike(block),
            self.sums.correlations(
                block.first, statistics.total, statistics.squares, self.firings.rows
            ),
        )
        self._fill(looked)
        return looked

    def _fill(self, looked: _Looked) -> None:
        """Fill the columns in for the features of a block."""
        statistics, columns = looked.statistics, self.columns
        mine = slice(looked.block.first, looked.block.first + looked.block.features)
        fired = np.maximum(statistics.fired, 1)
        columns["mean"][mine] = statistics.total / fired
        columns["mean_square"][mine] = statistics.squares / fired
        columns["maximum"][mine] = statistics.maximum
        columns["tokens"][mine] = peak_tokens(statistics, self.sources.text)
        columns["token_share"][mine] = looked.tokens.on.amount[:, 0]
        share = statistics.by_source / fired[:, None]
        there = statistics.fired > 0
        columns["source"][mine] = np.where(there, share.argmax(axis=1), -1)
        columns["source_share"][mine] = share.max(axis=1)

    def _pages(self, looked: _Looked) -> Iterator[Page]:
        block, statistics = looked.block, looked.statistics
        weights, sources = self.weights, self.sources
        examples = BlockExamples(
            block, looked.located, statistics, sources.text, sources.windows, sources.corpus
        )
        mine = slice(block.first, block.first + block.features)
        numbers = [self.columns[name][mine].tolist() for name in NUMBERS]
        lists: dict[str, list[Any]] = {
            **{name: _pairs(getattr(looked.tokens, name)) for name in TokenShares._fields},
            "neighbours": _pairs(weights.near.part(mine, NEIGHBOURS_SHOWN)),
            "cofiring": _pairs(looked.cofiring),
            "correlated": _pairs(looked.correlated),
            "basis": _pairs(basis(weights.decoder[mine])),
            "sources": _by_source(statistics, sources.corpus.sources),
        }
        lists["tokens"] = lists.pop("on")
        edges = _edges(0.0, statistics.maximum, statistics.histogram.shape[1])
        ends = statistics.maximum.astype(np.float64)[:, None] * np.arange(INTERVALS + 1) / INTERVALS
        bounds, counts = ends.round(4).tolist(), statistics.interval_counts().tolist()
        logits = _effects(weights.effects, mine)
        for i, fired in enumerate(statistics.fired.tolist()):
            top, *samples, inactive = examples.of(i)
            yield {
                "feature": block.first + i,
                **{name: number[i] for name, number in zip(NUMBERS, numbers, strict=True)},
                "count": fired,
                "maximum": float(statistics.maximum[i]),
                "status": STATUSES[self.columns["status"][block.first + i]],
                "histogram": {"edges": edges[i], "counts": statistics.histogram[i]},
                **{name: of[i] for name, of in lists.items()},
                "top": top,
                "intervals": _intervals(bounds[i], counts[i], samples) if fired else [],
                "inactive": inactive,
                **{name: of[i] for name, of in logits.items()},
            }


NUMBERS = ("frequency", "mean", "mean_square", "norm", "alignment", "neurons", "token_share")
"""Columns that are numbers of a page as they are."""


def _columns(firings: Firings, weights: Weights, corpus: Corpus) -> dict[str, Array]:
    """Return the columns, those that need no look at the firings filled in."""
    features = firings.features
    frequency = firings.counts / firings.rows
    status = np.zeros(features, np.uint8)
    status[frequency > DENSE] = STATUSES.index("dense")
    status[frequency < ULTRALOW] = STATUSES.index("ultralow")
    status[firings.counts == 0] = STATUSES.index("dead")
    effects = weights.effects
    later = ("mean", "mean_square", "maximum", "token_share", "source_share")
    return {
        "frequency": frequency.astype(np.float32),
        **{name: np.zeros(features, np.float32) for name in later},
        "status": status,
        "promotes": effects.promotes.which if effects else np.full((features, 1), -1, np.int32),
        "tokens": np.full((features, TOKENS_SHOWN), -1, np.int32),
        "source": np.full(features, -1, np.int16),
        "norm": weights.norm,
        "alignment": weights.alignment,
        "neurons": participation(weights.decoder),
    }


def weights_of(
    dictionary: Dictionary,
    directions: Float[torch.Tensor, "features width"],
    effects: LogitEffects | None,
    near: Ranked,
) -> Weights:
    """Return what the weights of a dictionary of one site say; ``directions`` are unit rows."""
    encoder, decoder = dictionary.W_enc.detach().float(), dictionary.W_dec.detach().float()
    parts = zip(encoder.split(CHUNK), directions.split(CHUNK), strict=True)
    along = torch.cat([torch.linalg.vecdot(*part) for part in parts])
    return Weights(
        directions,
        decoder.norm(dim=1).numpy(),
        (along / encoder.norm(dim=1).clamp_min(1e-12)).numpy(),
        effects,
        near,
    )


def _pairs(ranked: Ranked) -> list[orjson.Fragment]:
    """Return every feature's list as JSON."""
    features, shown = ranked.which.shape
    largest = np.abs(ranked.amount).max(initial=0.0)
    room = 2 + shown * (len("[,-.0000],") + 10 + len(str(int(min(largest, LARGEST)))))
    text, ends = np.empty((features, room), np.uint8), np.empty(features, np.int64)
    write_pairs(text, ends, *ranked)
    return [
        orjson.Fragment(own[:end].tobytes()) for own, end in zip(text, ends.tolist(), strict=True)
    ]


def _by_source(statistics: Statistics, labels: Sequence[str]) -> list[list[list[object]]]:
    """Return every feature's sources, the most frequent first, with their shares of its firings."""
    counts = statistics.by_source
    order = np.argsort(-counts, axis=1, kind="stable")
    ranked = np.take_along_axis(counts, order, axis=1)
    shares = (ranked / np.maximum(statistics.fired, 1)[:, None]).round(4).tolist()
    return [
        [[labels[number], share] for number, share in zip(numbers[:some], own, strict=False)]
        for numbers, own, some in zip(
            order.tolist(), shares, (ranked > 0).sum(axis=1).tolist(), strict=True
        )
    ]


def _edges(low: Array | float, high: Array, bins: int) -> Array:
    edges = np.linspace(low, high, bins + 1, axis=1, dtype=np.float64).round(5)
    return np.ascontiguousarray(edges)


def _intervals(bounds: list[float], counts: list[int], samples: list[Any]) -> list[Page]:
    """Return a page's intervals, the highest first."""
    return [
        {
            "low": bounds[number],
            "high": bounds[number + 1],
            "count": counts[number],
            "examples": samples[number],
        }
        for number in reversed(range(INTERVALS))
    ]


def _effects(effects: LogitEffects | None, features: slice) -> dict[str, list[Any]]:
    """Return the part of some features' pages about the logits."""
    if effects is None:
        count = features.stop - features.start
        return {"promotes": [[]] * count, "suppresses": [[]] * count, "logits": [None] * count}
    counts = effects.histogram[features]
    edges = _edges(effects.low[features], effects.high[features], counts.shape[1])
    return {
        "promotes": _pairs(effects.promotes.part(features)),
        "suppresses": _pairs(effects.suppresses.part(features)),
        "logits": [{"edges": a, "counts": b} for a, b in zip(edges, counts, strict=True)],
    }
