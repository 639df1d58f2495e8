"""Feature proxies: is there a feature for Arabic, for DNA, for base64, and how well does it do?

For every kind of text of ``contexts.py`` the proxy says how much more likely a token is there than
anywhere. An arm's best feature is the one with the largest Pearson correlation with the proxy on
every other document; what is reported comes from the documents between them. Documents are the
held-out ones and, since a corpus holds out few of each kind, some that the kinds' sources have
beyond the corpus.

Axis names: rows = tokens with a code, documents = what the bootstrap draws, features = of the arm.
"""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from sememe.activations.rules import TokenRules
from sememe.evaluation.arms import Arm
from sememe.evaluation.contexts import CONTEXTS, Context, Sample, Text
from sememe.evaluation.estimates import Estimate, Resampling, ratio
from sememe.evaluation.fresh import fresh_documents
from sememe.evaluation.probing import STRUCTURED, code_matrix
from sememe.evaluation.readings import all_activations, kept
from sememe.evaluation.sections import Measured, Metric, NotApplicableError, Settings, SuiteName
from sememe.progress import Progress

LEAST_TOKENS = 50
"""Tokens in a context, in each half of the documents, below which it is not measured."""
LEAST_DOCUMENTS = 2
"""Documents with such tokens, in each half."""
INTERVALS = 11
"""Equal intervals of a feature's values, as in Towards Monosemanticity."""


@dataclass(frozen=True)
class Effort:
    """How much is read beside the held-out documents."""

    documents: int
    """Of each context's source, at most."""
    tokens: int
    """From the beginning of each."""


EFFORTS: dict[SuiteName, Effort] = {
    "quick": Effort(12, 64),
    "standard": Effort(24, 128),
    "full": Effort(80, 256),
}

_PEARSON = (
    "Pearson correlation of a feature's value with log P(s|context) / P(s) where that is above 0 "
    "(Towards Monosemanticity), "
)
METRICS = (
    *(
        Metric(f"proxies_{name}", title, what, "higher", "documents", STRUCTURED)
        for name, title, what in (
            (
                "pearson",
                "Proxy correlation",
                _PEARSON + "of the best feature for each kind of text, chosen on other documents; "
                "mean over the kinds that the text has.",
            ),
            (
                "specificity",
                "Proxy specificity",
                "Share of the tokens on which those features fire that are in their kind of text "
                "(proxy above 0); mean over kinds.",
            ),
            (
                "sensitivity",
                "Proxy sensitivity",
                "Share of the tokens in their kind of text on which those features fire; mean "
                "over kinds.",
            ),
        )
    ),
    *(
        Metric(
            f"proxies_{context.name}",
            f"Proxy of {context.title}",
            f"{_PEARSON}for {context.what}: the best feature, chosen on other documents.",
            "higher",
            "documents",
            STRUCTURED,
        )
        for context in CONTEXTS
    ),
)


class Fresh(NamedTuple):
    """Documents beyond the corpus, read."""

    documents: list[np.ndarray]
    source: list[str]
    values: Float[Tensor, "rows width"]


class Stage(NamedTuple):
    """All rows of an arm, with the documents that they come from."""

    matrix: scipy.sparse.csr_array
    """Code (rows, features)."""
    text: Text
    token: Int64[np.ndarray, " rows"]
    """Place of each row's token in the text."""
    document: Int64[np.ndarray, " rows"]
    source: list[str]
    """Of each document."""
    measures: Bool[np.ndarray, " documents"]
    """Documents that figures come from; features are chosen on the others."""


def measure(arm: Arm, settings: Settings, progress: Progress) -> Measured:
    """Measure every context that has enough text; NotApplicableError where none has."""
    progress.start("proxies", len(CONTEXTS), "contexts")
    stage = _stage(arm, _fresh(arm, EFFORTS[settings.suite], settings.seed, progress))
    sample = arm.once("token shares", lambda: Sample(arm.corpus, arm.model.tokenizer.bytes_of))
    found: dict[str, Proxied] = {}
    left_out: dict[str, str] = {}
    for context in CONTEXTS:
        progress.advance(1)
        name = f"proxies_{context.name}"
        if context.source not in arm.corpus.sources:
            left_out[name] = f"the corpus has no source {context.source}"
            continue
        proxy = np.maximum(context.proxy.log_ratio(stage.text, sample)[stage.token], 0)
        if context.binary:
            proxy = (proxy > 0).astype(np.float64)
        if lack := _lack(stage, proxy > 0):
            left_out[name] = lack
            continue
        found[context.name] = follow(stage, proxy, context)
    progress.finish()
    if not found:
        raise NotApplicableError("; ".join(dict.fromkeys(left_out.values())))
    estimates = {f"proxies_{name}": each.pearson for name, each in found.items()}
    for name in ("pearson", "specificity", "sensitivity"):
        estimates[f"proxies_{name}"] = _mean([getattr(each, name) for each in found.values()])
    return Measured(estimates, {"contexts": [each.details for each in found.values()]}, left_out)


def _fresh(arm: Arm, effort: Effort, seed: int, progress: Progress) -> Fresh:
    """Draw and read documents beyond the corpus, or take them from disk."""
    made_from = ["proxies", arm.corpus.hash, asdict(effort), seed, [c.name for c in CONTEXTS]]

    def draw() -> dict[str, Tensor]:
        documents = [
            (number, ids)
            for number, context in enumerate(CONTEXTS)
            for ids in fresh_documents(
                arm.corpus,
                context.source,
                arm.model.tokenizer,
                count=effort.documents,
                tokens=effort.tokens,
                seed=seed,
                progress=progress,
            )
        ]
        return {
            "ids": torch.tensor(
                [token for _, ids in documents for token in ids], dtype=torch.int64
            ),
            "length": torch.tensor([len(ids) for _, ids in documents], dtype=torch.int64),
            "context": torch.tensor([number for number, _ in documents], dtype=torch.int64),
        }

    texts = kept(made_from, draw)
    ends = np.cumsum(texts["length"].numpy())
    documents = np.split(texts["ids"].numpy(), ends[:-1]) if len(ends) else []
    read = kept(
        [*made_from, arm.model.hash, arm.model.dtype, arm.site],
        lambda: {
            "values": all_activations(arm.model, arm.site, [ids.tolist() for ids in documents])
        },
    )
    source = [CONTEXTS[number].source for number in texts["context"].tolist()]
    return Fresh(documents, source, read["values"])


def _stage(arm: Arm, fresh: Fresh) -> Stage:
    """Put the held-out rows and the fresh ones together."""
    corpus, held_out = arm.corpus, arm.held_out
    numbers = held_out.read("document", 0, held_out.rows).numpy().astype(np.int64)
    place = held_out.read("place", 0, held_out.rows).numpy()
    members = np.unique(numbers)
    documents = [
        corpus.tokens(int(start), int(start + length)).astype(np.int64)
        for start, length in zip(corpus.start[members], corpus.length[members], strict=True)
    ]
    text = Text([*documents, *fresh.documents], arm.model.tokenizer.bytes_of)
    own = text.begins[arm.document] + place - corpus.start[numbers]
    begin = sum(map(len, documents))
    ids = torch.from_numpy(text.ids[begin:])
    keep = TokenRules.of(held_out).keep(ids, {arm.site: fresh.values}).numpy()
    other = begin + np.flatnonzero(keep)
    with torch.no_grad():
        code = arm.dictionary.encode(fresh.values[torch.from_numpy(keep)])
    matrix = scipy.sparse.vstack(
        [code_matrix(arm.code, arm.features), code_matrix(code, arm.features)], format="csr"
    )
    source = [corpus.sources[number] for number in corpus.source[members]] + fresh.source
    token = np.concatenate([own, other])
    document = np.searchsorted(text.begins, token, side="right") - 1
    return Stage(matrix, text, token, document, source, every_other(source))


def every_other(source: list[str]) -> Bool[np.ndarray, " documents"]:
    """Return whether a document is an even one of its source."""
    seen: dict[str, int] = {}
    even = []
    for label in source:
        seen[label] = seen.get(label, 0) + 1
        even.append(seen[label] % 2 == 0)
    return np.array(even)


def _lack(stage: Stage, inside: Bool[np.ndarray, " rows"]) -> str:
    """Return what is missing for a context to be measured; empty if nothing is."""
    for half, task in ((~stage.measures, "choose a feature on"), (stage.measures, "measure it on")):
        mine = stage.document[inside & half[stage.document]]
        if len(mine) < LEAST_TOKENS or len(np.unique(mine)) < LEAST_DOCUMENTS:
            return (
                f"{len(mine)} tokens of {len(np.unique(mine))} documents to {task}: at least "
                f"{LEAST_TOKENS} of {LEAST_DOCUMENTS} are needed; use a corpus of more tokens"
            )
    return ""


class Proxied(NamedTuple):
    """The best feature for a context."""

    pearson: Estimate
    specificity: Estimate
    sensitivity: Estimate
    details: dict[str, Any]


def follow(stage: Stage, proxy: Float[np.ndarray, " rows"], context: Context) -> Proxied:
    """Choose a feature on one half of the documents and measure it on the other."""
    measured = stage.measures[stage.document]
    feature = best_feature(stage.matrix, proxy, ~measured)
    value = stage.matrix[:, [feature]].toarray()[:, 0].astype(np.float64)
    inside, fires = proxy > 0, value > 0

    def total(part: np.ndarray) -> np.ndarray:
        weights = np.where(measured, part, 0)
        return np.bincount(stage.document, weights, minlength=len(stage.source))

    documents = Resampling(len(stage.source))
    both = total(inside & fires)
    parts = (measured, value, proxy, value**2, proxy**2, value * proxy)
    specificity = documents.estimate(ratio, both, total(fires))
    sensitivity = documents.estimate(ratio, both, total(inside))
    of_source = np.array([label == context.source for label in stage.source])[stage.document]
    details = {
        "context": context.name,
        "feature": int(feature),
        "tokens": int((inside & measured).sum()),
        "documents": len(np.unique(stage.document[inside & measured])),
        "in_source": float(of_source[inside & measured].mean()),
        "specificity": specificity.to_json(),
        "sensitivity": sensitivity.to_json(),
        "intervals": by_interval(value[measured], inside[measured]),
    }
    pearson = documents.estimate(correlation, *(total(part) for part in parts))
    return Proxied(pearson, specificity, sensitivity, details)


def best_feature(
    matrix: scipy.sparse.csr_array,
    proxy: Float[np.ndarray, " rows"],
    rows: Bool[np.ndarray, " rows"],
) -> int:
    """Return the feature whose values correlate most with the proxy over ``rows``."""
    weight = rows.astype(np.float64)
    square = scipy.sparse.csr_array((matrix.data**2, matrix.indices, matrix.indptr), matrix.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = correlation(
            np.array(weight.sum()),
            matrix.T @ weight,
            np.array(proxy @ weight),
            square.T @ weight,
            np.array(proxy**2 @ weight),
            matrix.T @ (weight * proxy),
        )
    return int(np.argmax(np.where(np.isfinite(found), found, -np.inf)))


def correlation(
    count: Float[np.ndarray, "..."],
    x: Float[np.ndarray, "..."],
    y: Float[np.ndarray, "..."],
    xx: Float[np.ndarray, "..."],
    yy: Float[np.ndarray, "..."],
    xy: Float[np.ndarray, "..."],
) -> Float[np.ndarray, "..."]:
    """Return Pearson's correlation from the sums of 1, x, y, x^2, y^2 and xy; NaN where constant.

    A variance that is no more than rounding counts as none.
    """
    variances = [
        np.where(count * square - total**2 > 1e-12 * count * square, count * square - total**2, 0)
        for square, total in ((xx, x), (yy, y))
    ]
    found: np.ndarray = (count * xy - x * y) / np.sqrt(variances[0] * variances[1])
    return found


def by_interval(
    value: Float[np.ndarray, " rows"], inside: Bool[np.ndarray, " rows"]
) -> list[dict[str, Any]]:
    """Return, for equal intervals of value up to the largest, how many rows and the share inside.

    An interval includes its upper end; rows where the feature is silent are in none.
    """
    edges = np.linspace(0, value.max(), INTERVALS + 1)
    place = np.searchsorted(edges, value[value > 0], side="left") - 1
    rows = np.bincount(place, minlength=INTERVALS)
    own = np.bincount(place, inside[value > 0], minlength=INTERVALS)
    return [
        {
            "from": float(edges[number]),
            "to": float(edges[number + 1]),
            "rows": int(rows[number]),
            "share": float(own[number] / rows[number]) if rows[number] else None,
        }
        for number in range(INTERVALS)
    ]


def _mean(estimates: list[Estimate]) -> Estimate:
    """Return the mean over contexts, draw by draw; the draws are of the same documents."""
    draws = np.mean([estimate.draws for estimate in estimates], axis=0)
    return Estimate(float(np.mean([estimate.value for estimate in estimates])), draws)
