"""How well cheap ways to attribute agree with true ablation, on a set of texts."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int64
from scipy.stats import rankdata

from sememe.corpora.corpus import Corpus
from sememe.errors import UsageError
from sememe.evaluation.estimates import Estimate, Resampling
from sememe.intervention.attribution import (
    Figure,
    LogitDifference,
    Text,
    Way,
    ablate,
    effects_of,
    look,
)
from sememe.intervention.features import FeatureSet
from sememe.models.language_model import LanguageModel
from sememe.progress import Progress

# Axis names: pairs = a feature of a text each.

CHEAP: tuple[Way, ...] = ("gradient", "integrated")
WAYS = ("gradient", "integrated", "direct", "activation")


class Agreement(NamedTuple):
    """Effects of features on a figure, by each way, features of all texts one after the other."""

    text: Int64[np.ndarray, " pairs"]
    """Number of the text."""
    feature: Int64[np.ndarray, " pairs"]
    ablation: Float[np.ndarray, " pairs"]
    """What the figure falls by when the feature is set to 0 wherever it fires in the text."""
    ways: dict[str, Float[np.ndarray, " pairs"]]
    """The estimate of each way, summed over the tokens; of ``activation`` the feature's values."""

    def correlations(self) -> dict[str, dict[str, Any]]:
        """Return the Pearson and the rank correlation of each way with ablation over all pairs.

        The intervals are of texts drawn with replacement.
        """
        resampling = Resampling(int(self.text.max()) + 1)
        found = {}
        for way, values in self.ways.items():
            ranks = (rankdata(values), rankdata(self.ablation))
            found[way] = {
                "pearson": self._correlation(resampling, values, self.ablation).to_json(),
                "spearman": self._correlation(resampling, *ranks).to_json(),
            }
        return found

    def _correlation(
        self,
        resampling: Resampling,
        x: Float[np.ndarray, " pairs"],
        y: Float[np.ndarray, " pairs"],
    ) -> Estimate:
        parts = (np.ones(len(x)), x, y, x * x, y * y, x * y)
        sums = np.stack([np.bincount(self.text, part, resampling.units) for part in parts], axis=1)
        return resampling.estimate(_pearson, sums)


def _pearson(sums: Float[np.ndarray, "draws six"]) -> Float[np.ndarray, " draws"]:
    n, x, y, xx, yy, xy = sums.T
    found: Float[np.ndarray, " draws"] = (n * xy - x * y) / np.sqrt(
        (n * xx - x * x) * (n * yy - y * y)
    )
    return found


def likeliest_two(text: Text) -> Figure:
    """Return the difference of the two likeliest next tokens after a text."""
    first, second = text.logits[0, -1].topk(2).indices.tolist()
    return LogitDifference(first, second)


def agreement(
    model: LanguageModel,
    features: FeatureSet,
    texts: Sequence[Sequence[int]],
    *,
    figure: Callable[[Text], Figure] = likeliest_two,
    per_text: int = 64,
    seed: int = 0,
    progress: Progress | None = None,
) -> Agreement:
    """Ablate features of each text one by one, and attribute to them by every cheap way.

    ``per_text`` of the features that fire in a text are drawn, without regard to their strength; a
    feature is ablated at all tokens where it fires at once. Figures as of :func:`attribute`.
    """
    if not texts or per_text < 1:
        raise UsageError(
            f"{len(texts)} texts and {per_text} features of each; expected 1 or more of both"
        )
    progress = progress or Progress()
    progress.start("ablations", len(texts), "texts")
    draw = np.random.default_rng(seed)
    columns: dict[str, list[Float[np.ndarray, " pairs"]]] = {}
    for number, ids in enumerate(texts):
        text = look(model, features, ids)
        found, place = text.firings.feature.unique(return_inverse=True)
        chosen = draw.permutation(len(found))[:per_text]
        groups = [(place == one).nonzero()[:, 0] for one in chosen.tolist()]
        on = figure(text)
        direct: tuple[Way, ...] = () if text.final_scale is None else ("direct",)
        effects = {"activation": text.firings.value}
        for way in (*CHEAP, *direct):
            effects[way] = effects_of(model, features, text, on, way=way)
        row = {way: [float(each[group].sum()) for group in groups] for way, each in effects.items()}
        row["ablation"] = ablate(model, features, text, on, groups).tolist()
        row |= {"text": [number] * len(groups), "feature": found[chosen].tolist()}
        for name, values in row.items():
            columns.setdefault(name, []).append(np.array(values))
        progress.advance(1)
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    ways = {way: joined[way] for way in WAYS if way in joined}
    progress.finish()
    return Agreement(
        joined["text"].astype(np.int64),
        joined["feature"].astype(np.int64),
        joined["ablation"],
        ways,
    )


def held_out_texts(
    corpus: Corpus, bos: int | None, count: int, length: int, seed: int = 0
) -> list[list[int]]:
    """Return the first ``length`` tokens of held-out documents in a random order, BOS in front.

    UsageError where there are not ``count`` documents that long.
    """
    windows = corpus.windows(length, held_out=True)
    first = np.unique(windows.document, return_index=True)[1]
    long = first[windows.length[first] == length]
    if len(long) < count:
        raise UsageError(
            f"{count} held-out documents of {length} tokens are asked, {corpus.path} has "
            f"{len(long)}: ask for fewer, or shorter ones"
        )
    chosen = np.random.default_rng(seed).permutation(long)[:count]
    lead = [] if bos is None else [bos]
    return [
        [*lead, *corpus.tokens(int(start), int(start) + length).astype(np.int64).tolist()]
        for start in windows.start[chosen]
    ]
