"""How well activations are rebuilt: sums over the rows of each held-out document, and figures.

Axis names: rows = activations, width = their dimensions, ranges = of positions in the window.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sememe.dictionaries.dictionary import Dictionary
from sememe.evaluation.arms import CHUNK, Arm
from sememe.evaluation.estimates import Estimate, Statistic, ratio
from sememe.evaluation.metrics import fvu, refitted, row_figures
from sememe.evaluation.sections import Measured
from sememe.kernels import Code, decode
from sememe.progress import Progress

REFIT_ROWS = 2048
"""Rows whose code is fitted anew, spread evenly over the held-out ones."""
REFIT_WIDTH = 64
"""Active features on a row beyond which fewer rows are, by the square: the work stays the same."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Means:
    """Mean activations: of all held-out rows, and of those of a source or a range of positions."""

    all: Float[Tensor, " width"]
    by_source: Float[Tensor, "sources width"]
    by_position: Float[Tensor, "ranges width"]

    @classmethod
    def of(cls, arm: Arm) -> "Means":
        """Return the means of the arm's held-out rows, in float64."""
        ranges = 1 + int(position_range(torch.tensor([_window(arm)])))
        width = arm.held_out.width(arm.site)
        totals = [torch.zeros(n, width, dtype=torch.float64) for n in (_sources(arm), ranges)]
        counts = [torch.zeros(n, dtype=torch.float64) for n in (_sources(arm), ranges)]
        for rows in arm.held_out.in_order(arm.site, CHUNK):
            groups = (source_of(arm, rows.document), position_range(rows.position))
            for total, count, group in zip(totals, counts, groups, strict=True):
                total.index_add_(0, group, rows.values.double())
                count += torch.bincount(group, minlength=len(count))
        by_source, by_position = (
            total / count.clamp_min(1)[:, None] for total, count in zip(totals, counts, strict=True)
        )
        return cls(totals[0].sum(0) / counts[0].sum(), by_source, by_position)


def _window(arm: Arm) -> int:
    return int(arm.held_out.manifest["config"]["window"]) - 1


def _sources(arm: Arm) -> int:
    return len(arm.corpus.sources)


def source_of(arm: Arm, document: Int[Tensor, " rows"]) -> Int[Tensor, " rows"]:
    """Return the numbers of the sources that documents are of."""
    return torch.from_numpy(arm.corpus.source[document.numpy()].astype(np.int64))


def position_range(position: Int[Tensor, " rows"]) -> Int[Tensor, " rows"]:
    """Return which range of positions in the window: 0, 1, 2 to 3, 4 to 7, 8 to 15, ..."""
    return torch.frexp(position.float()).exponent.clamp_min(0).long()


class Sums(NamedTuple):
    """Sums over the rows of every held-out document."""

    figures: Float[np.ndarray, "documents six"]
    """What :func:`~sememe.evaluation.metrics.row_figures` gives."""
    active: Float[np.ndarray, " documents"]
    """Active features."""
    source: Float[np.ndarray, " documents"]
    """Of ‖x - the source's mean‖²."""
    source_of: Int[np.ndarray, " documents"]
    position: Float[np.ndarray, "documents ranges three"]
    """By range of positions: rows, error, and ‖x - the range's mean‖²."""
    refit: Float[np.ndarray, "documents four"]
    """Of a sample: error, ‖x - mean‖², refitted values, given values."""
    l0: Float[np.ndarray, " counts"]
    """Rows by number of active features."""
    fired: Int[Tensor, " features"]
    """Rows on which each feature is active."""


@torch.no_grad()
def rebuild(arm: Arm, means: Means, progress: Progress) -> Sums:
    """Rebuild every held-out row of the arm, and return the sums."""
    documents, ranges = arm.documents.units, len(means.by_position)
    figures = torch.zeros(documents, 6, dtype=torch.float64)
    active = torch.zeros(documents, dtype=torch.float64)
    source = torch.zeros(documents, dtype=torch.float64)
    numbers = torch.zeros(documents, dtype=torch.int64)
    position = torch.zeros(documents * ranges, 3, dtype=torch.float64)
    refit = torch.zeros(documents, 4, dtype=torch.float64)
    l0 = torch.zeros(arm.features + 1, dtype=torch.int64)
    fired = torch.zeros(arm.features, dtype=torch.int64)
    every = max(1, arm.held_out.rows // REFIT_ROWS)
    for rows, code in arm.in_order():
        place = torch.from_numpy(arm.document[rows.start : rows.start + len(rows.values)])
        x, guess = rows.values.double(), arm.dictionary.decode(code).double()
        row = row_figures(x, guess, means.all)
        figures.index_add_(0, place, row)
        count = (code.values > 0).sum(1)
        active.index_add_(0, place, count.double())
        numbers[place] = source_of(arm, rows.document)
        source.index_add_(0, place, (x - means.by_source[numbers[place]]).square().sum(1))
        where = position_range(rows.position)
        centred = (x - means.by_position[where]).square().sum(1)
        position.index_add_(
            0, place * ranges + where, torch.stack([row[:, 0], row[:, 3], centred], dim=1)
        )
        some = slice(None, None, every * max(1, round((code.values.shape[1] / REFIT_WIDTH) ** 2)))
        chosen = Code(code.indices[some], code.values[some])
        refit.index_add_(0, place[some], _refit(arm.dictionary, chosen, x[some], means.all))
        l0 += torch.bincount(count, minlength=len(l0))
        fired += torch.bincount(code.indices[code.values > 0].long(), minlength=len(fired))
        progress.advance(len(x))
    return Sums(
        figures.numpy(),
        active.numpy(),
        source.numpy(),
        numbers.numpy(),
        position.view(documents, ranges, 3).numpy(),
        refit.numpy(),
        l0.double().numpy(),
        fired,
    )


def _refit(
    dictionary: Dictionary,
    code: Code,
    x: Float[Tensor, "rows width"],
    mean: Float[Tensor, " width"],
) -> Float[Tensor, "rows four"]:
    """Return the columns of ``Sums.refit`` for some rows."""
    target = x * dictionary.write_scale - dictionary.b_dec
    values = refitted(code, dictionary.W_dec, target)
    error = target - decode(Code(code.indices, values), dictionary.W_dec.double())
    columns = [
        (error / dictionary.write_scale).square().sum(1),
        (x - mean).square().sum(1),
        values.sum(1),
        code.values.double().sum(1),
    ]
    return torch.stack(columns, dim=1)


def reconstruction(arm: Arm, sums: Sums) -> Measured:
    """Return what follows from the sums, with intervals over documents."""
    resampling = arm.documents
    rows, square, rebuilt, error, centred, cosine = sums.figures.T
    refit_error, refit_centred, fitted, given = sums.refit.T

    def estimate(statistic: Statistic, *parts: Float[np.ndarray, " documents"]) -> Estimate:
        return resampling.estimate(statistic, *parts)

    unexplained = estimate(fvu, error, centred, square)
    estimates = {
        "fvu": unexplained,
        "explained_variance": Estimate(1 - unexplained.value, 1 - unexplained.draws),
        "cosine": estimate(ratio, cosine, rows),
        "norm_ratio": estimate(lambda a, b: np.sqrt(a / b), rebuilt, square),
        "l0": estimate(ratio, sums.active, rows),
        "refit_fvu": estimate(fvu, refit_error, refit_centred, refit_centred),
        "refit_scale": estimate(ratio, fitted, given),
    }
    details = {
        "held_out_tokens": int(rows.sum()),
        "documents": resampling.units,
        "by_source": {
            arm.corpus.sources[number]: {
                "tokens": int(rows[mine].sum()),
                "fvu": estimate(fvu, error * mine, sums.source * mine, square * mine).to_json(),
            }
            for number in np.unique(sums.source_of).tolist()
            for mine in [sums.source_of == number]
        },
        "by_position": [
            {
                "from": 2**number // 2,
                "to": max(0, 2**number - 1),
                "tokens": int(counted.sum()),
                "fvu": estimate(fvu, wrong, around, around).to_json(),
            }
            for number, (counted, wrong, around) in enumerate(sums.position.transpose(1, 2, 0))
            if counted.any()
        ],
        "l0": l0_distribution(sums.l0),
    }
    return Measured(estimates, details)


def l0_distribution(counts: Float[np.ndarray, " counts"]) -> dict[str, Any]:
    """Return quantiles of the number of active features, given the rows that have each number."""
    cumulated = counts.cumsum() / counts.sum()
    return {
        "quantiles": {str(q): int((cumulated >= q - 1e-12).argmax()) for q in QUANTILES},
        "smallest": int(counts.nonzero()[0][0]),
        "largest": int(counts.nonzero()[0][-1]),
    }
