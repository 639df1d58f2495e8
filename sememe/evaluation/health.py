"""Health: which features are dead, nearly silent, dense or double, and what dense ones follow.

A feature is dead if it fires on none of the tokens seen, dense above a tenth of them, and ultralow
below a millionth (Towards Monosemanticity). Held-out text is far less than a million tokens as a
rule; then those that fire on a single token count as ultralow, the rarest that can be told apart.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from sememe.evaluation.arms import Arm
from sememe.evaluation.estimates import Resampling, ratio
from sememe.evaluation.metrics import DENSE, ULTRALOW
from sememe.evaluation.reconstruction import source_of
from sememe.evaluation.sections import Measured, Metric, Settings
from sememe.progress import Progress

HISTOGRAM_DECADES = (-6.0, 0.0)
HISTOGRAM_BINS = 60
DOUBLE = 0.9
"""Cosine of decoder rows beyond which two features are duplicates, or an antipodal pair."""
COMPARED = 8192
"""Features, drawn at random, that are compared with all others."""
CHUNK = 1024
LISTED = 64
"""Dense features looked at one by one, the most frequent."""
FOLLOWS = 0.4
"""Correlation from which a dense feature counts as following position, norm or source."""

METRICS = (
    Metric(
        "dead",
        "dead",
        "Share of the features that fire on no held-out token.",
        "lower",
        "features",
    ),
    Metric(
        "ultralow",
        "ultralow",
        "Share of the features that fire, but on less than a millionth of the held-out tokens, or "
        "on one alone where there are fewer than two million.",
        "lower",
        "features",
    ),
    Metric(
        "dense",
        "dense",
        "Share of the features that fire on more than a tenth of the held-out tokens.",
        "lower",
        "features",
    ),
    Metric(
        "duplicates",
        "duplicates",
        "Share of the features that fire whose decoder row has a cosine above 0.9 with that of "
        "another one.",
        "lower",
        "features",
    ),
    Metric(
        "alignment",
        "encoder beside decoder",
        "Mean cosine of a feature's encoder and decoder rows, of those that fire.",
        "neither",
        "features",
    ),
)


@torch.no_grad()
def measure(arm: Arm, settings: Settings, progress: Progress) -> Measured:
    """Measure the health of an arm's features."""
    rows, features = arm.held_out.rows, arm.features
    progress.start(f"health, {arm.name}", 2 * rows, "tokens")
    code = arm.code
    fired = torch.bincount(code.indices[code.values > 0].long(), minlength=features)
    progress.advance(rows)
    alive = fired > 0
    directions = normalize(arm.dictionary.W_dec, dim=1)
    generator = torch.Generator().manual_seed(settings.seed)
    living = alive.nonzero().flatten()
    compared = living[torch.randperm(len(living), generator=generator)[:COMPARED]]
    nearest = extremes(directions, compared, alive).nearest
    aligned = torch.nn.functional.cosine_similarity(arm.dictionary.W_enc, directions, dim=1)
    resampling = Resampling(features, seed=settings.seed)
    doubled = torch.zeros(features).index_fill_(0, compared[nearest > DOUBLE], 1)
    measured = {
        "dead": (~alive, torch.ones(features)),
        "ultralow": (alive & (fired < max(ULTRALOW * rows, 2)), torch.ones(features)),
        "dense": (fired > DENSE * rows, torch.ones(features)),
        "duplicates": (doubled, torch.zeros(features).index_fill_(0, compared, 1)),
        "alignment": (aligned * alive, alive),
    }
    estimates = {
        name: resampling.estimate(ratio, one.double().numpy(), other.double().numpy())
        for name, (one, other) in measured.items()
    }
    dense = (fired > DENSE * rows).nonzero().flatten()
    dense = dense[fired[dense].argsort(descending=True, stable=True)]
    details = {
        "tokens": rows,
        "ultralow_below": max(ULTRALOW, 2 / rows),
        "frequency_histogram": frequency_histogram(fired, rows),
        "compared": len(compared),
        "dense_features": len(dense),
        "dense": _dense(arm, dense[:LISTED], fired, directions),
    }
    progress.finish(f"dead {estimates['dead'].value:.3f}, dense {estimates['dense'].value:.3f}")
    return Measured(estimates, details)


def frequency_histogram(fired: Int[Tensor, " features"], rows: int) -> dict[str, Any]:
    """Return the histogram of log10 of the share of rows on which features fire, if at all."""
    log_frequency = (fired[fired > 0].double() / rows).log10()
    histogram = torch.histc(log_frequency, HISTOGRAM_BINS, *HISTOGRAM_DECADES)
    edges = torch.linspace(*HISTOGRAM_DECADES, HISTOGRAM_BINS + 1)
    return {
        "log10_edges": [round(edge, 4) for edge in edges.tolist()],
        "counts": [int(count) for count in histogram.tolist()],
    }


class Extremes(NamedTuple):
    """The features whose directions are most and least like some features' own."""

    nearest: Float[Tensor, " some"]
    """Largest cosine with another feature."""
    farthest: Float[Tensor, " some"]
    """Smallest cosine."""
    antipode: Int[Tensor, " some"]
    """Whose that is."""


def extremes(
    directions: Float[Tensor, "features width"],
    some: Int[Tensor, " some"],
    among: Bool[Tensor, " features"],
) -> Extremes:
    """Return the extremes of ``some`` features' cosines with the others that are ``among``."""
    nearest, farthest, antipode = [], [], []
    for part in some.split(CHUNK):
        cosine = directions[part] @ directions.T
        own = torch.arange(len(part)), part
        cosine[:, ~among] = 0
        cosine[own] = -2
        nearest.append(cosine.amax(1))
        cosine[own] = 2
        least = cosine.min(1)
        farthest.append(least.values)
        antipode.append(least.indices)
    if not nearest:
        return Extremes(torch.zeros(0), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    return Extremes(torch.cat(nearest), torch.cat(farthest), torch.cat(antipode))


def _dense(
    arm: Arm,
    dense: Int[Tensor, " dense"],
    fired: Int[Tensor, " features"],
    directions: Float[Tensor, "features width"],
) -> list[dict[str, Any]]:
    """Return what each dense feature follows (classes after 2506.15679)."""
    column = torch.full((arm.features,), len(dense))
    column[dense] = torch.arange(len(dense))
    values = torch.zeros(arm.held_out.rows, len(dense) + 1)  # the last is for all others
    position, norm, source = [], [], []
    for rows, code in arm.in_order():
        part = values[rows.start : rows.start + len(rows.values)]
        part.scatter_add_(1, column[code.indices.long()], code.values)
        position.append(rows.position)
        norm.append(rows.values.norm(dim=1))
        source.append(source_of(arm, rows.document))
    values = values[:, :-1].double()
    along = {
        "position": _correlation(values, torch.cat(position).double().log1p()),
        "norm": _correlation(values, torch.cat(norm).double()),
        "source": correlation_ratio(values, torch.cat(source)),
    }
    ends = extremes(directions, dense, fired > 0)
    found = []
    for number, feature in enumerate(dense.tolist()):
        correlations = {name: round(float(c[number]), 4) for name, c in along.items()}
        strongest = max(correlations, key=lambda name: abs(correlations[name]))
        kind = strongest if abs(correlations[strongest]) >= FOLLOWS else "other"
        cosine = float(ends.farthest[number])
        found.append(
            {
                "feature": feature,
                "frequency": float(fired[feature]) / arm.held_out.rows,
                "kind": "antipodal pair" if cosine < -DOUBLE else kind,
                "antipode": [int(ends.antipode[number]), round(cosine, 4)],
                **correlations,
            }
        )
    return found


def _correlation(
    values: Float[Tensor, "rows dense"], other: Float[Tensor, " rows"]
) -> Float[Tensor, " dense"]:
    """Return Pearson's correlation of every column with ``other``; 0 where one is constant."""
    a, b = values - values.mean(0), other - other.mean()
    scale = a.norm(dim=0) * b.norm()
    return torch.where(scale > 0, (a * b[:, None]).sum(0) / scale, 0.0)


def correlation_ratio(
    values: Float[Tensor, "rows dense"], group: Int[Tensor, " rows"]
) -> Float[Tensor, " dense"]:
    """Return eta of every column: root of the share of its variance that lies between groups."""
    count = torch.bincount(group).double()[:, None]
    total = torch.zeros(len(count), values.shape[1], dtype=values.dtype)
    total.index_add_(0, group, values)
    centred = total / count.clamp_min(1) - values.mean(0)
    variance = (values - values.mean(0)).square().sum(0)
    between = (count * centred.square()).sum(0)
    return torch.where(variance > 0, between / variance, 0.0).clamp(0, 1).sqrt()
