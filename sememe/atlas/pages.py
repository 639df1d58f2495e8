"""Everything known about the features, put together: their pages and the columns of the atlas."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from sememe.atlas.cofiring import Cofiring
from sememe.atlas.examples import BlockExamples
from sememe.atlas.firings import Block, Firings
from sememe.atlas.neurons import NeuronSums, basis, participation
from sememe.atlas.ranked import Ranked
from sememe.atlas.statistics import INTERVALS, Located, Statistics, Text
from sememe.atlas.store import STATUSES, Page
from sememe.atlas.tokens import TOKENS_SHOWN, TokenShares, peak_tokens
from sememe.atlas.weights import NEIGHBOURS_SHOWN, LogitEffects
from sememe.corpora.corpus import Corpus, Windows
from sememe.dictionaries.dictionary import Dictionary
from sememe.evaluation.health import DENSE, ULTRALOW
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
        self, firings: Firings, sums: NeuronSums, weights: Weights, sources: Sources
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
        decoder = weights.decoder[block.first : block.first + block.features]
        made_of = basis(decoder)
        counts = statistics.interval_counts()
        near = Ranked(*(part[:, :NEIGHBOURS_SHOWN] for part in weights.near))
        for i in range(block.features):
            feature = block.first + i
            fired, maximum = int(statistics.fired[i]), float(statistics.maximum[i])
            top, samples, inactive = examples.of(i)
            page: Page = {
                "feature": feature,
                **{name: float(self.columns[name][feature]) for name in NUMBERS},
                "count": fired,
                "maximum": maximum,
                "status": STATUSES[self.columns["status"][feature]],
                "histogram": {
                    "edges": _edges(0.0, maximum, statistics.histogram.shape[1]),
                    "counts": statistics.histogram[i],
                },
                "tokens": looked.tokens.on.pairs(i),
                "before": looked.tokens.before.pairs(i),
                "after": looked.tokens.after.pairs(i),
                "top": top,
                "intervals": _intervals(maximum, counts[i], samples) if fired else [],
                "inactive": inactive,
                **_effects(weights.effects, feature),
                "neighbours": near.pairs(feature),
                "cofiring": looked.cofiring.pairs(i),
                "correlated": looked.correlated.pairs(i),
                "basis": made_of.pairs(i),
                "sources": self._by_source(statistics.by_source[i], fired),
            }
            yield page

    def _by_source(self, counts: Array, fired: int) -> list[list[object]]:
        """Return the labels of the sources on which a feature fires, with their shares of that."""
        order = np.argsort(-counts, kind="stable").tolist()
        shares = (counts / max(fired, 1)).round(4).tolist()
        labels = self.sources.corpus.sources
        return [[labels[number], shares[number]] for number in order if counts[number]]


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


def weights_of(dictionary: Dictionary, effects: LogitEffects | None, near: Ranked) -> Weights:
    """Return what the weights of a dictionary of one site say."""
    encoder, decoder = dictionary.W_enc.detach().float(), dictionary.W_dec.detach().float()
    return Weights(
        torch.nn.functional.normalize(decoder, dim=1),
        decoder.norm(dim=1).numpy(),
        torch.nn.functional.cosine_similarity(encoder, decoder, dim=1).numpy(),
        effects,
        near,
    )


def _edges(low: float, high: float, bins: int) -> list[float]:
    edges: list[float] = np.linspace(low, high, bins + 1).round(5).tolist()
    return edges


def _intervals(maximum: float, counts: Array, samples: list[list[Page]]) -> list[Page]:
    """Return a page's intervals, the highest first."""
    return [
        {
            "low": round(maximum * number / INTERVALS, 4),
            "high": round(maximum * (number + 1) / INTERVALS, 4),
            "count": int(counts[number]),
            "examples": samples[number],
        }
        for number in reversed(range(INTERVALS))
    ]


def _effects(effects: LogitEffects | None, feature: int) -> Page:
    """Return the part of a page about the logits."""
    if effects is None:
        return {"promotes": [], "suppresses": [], "logits": None}
    low, high = float(effects.low[feature]), float(effects.high[feature])
    counts = effects.histogram[feature]
    return {
        "promotes": effects.promotes.pairs(feature),
        "suppresses": effects.suppresses.pairs(feature),
        "logits": {"edges": _edges(low, high, len(counts)), "counts": counts},
    }
