"""How well a stream is shuffled, beside a true permutation of the same rows."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch.nn.functional import cosine_similarity

from sememe.activations.stream import Stream

TRUE_SHUFFLE_SEED = 2**31 + 1
"""First part of the seed of the true permutation: no stream's order has it."""


class Mixing(NamedTuple):
    """Figures of a stream's batches; a true permutation of the same rows has ratios of 1."""

    batch: int
    """Rows in a batch."""
    unique_documents: float
    """Documents in a batch, on average."""
    lag1_similarity: float
    """Mean cosine similarity of rows that follow each other in a batch."""
    unique_documents_ratio: float
    """Documents in a batch as a share of those in a batch of a true permutation; bad below 1."""
    lag1_ratio: float
    """Similarity as a multiple of a true permutation's; bad above 1. It says nothing for
    activations whose mean is near zero, where by chance rows have no similarity at all."""


def measure(stream: Stream, batch: int = 2048, batches: int = 32, seed: int = 0) -> Mixing:
    """Measure batches spread over the first pass of ``stream``, at most ``batches``.

    The true permutation is of all rows of the store, and as many batches of it are measured. Raises
    UsageError when a pass does not fill one batch.
    """
    steps = stream.steps(batch, 1)
    chosen = np.unique(np.linspace(0, steps - 1, min(batches, steps)).astype(np.int64)).tolist()
    drawn = [next(stream.numbers(batch, seed, number)) for number in chosen]
    order = np.random.default_rng([TRUE_SHUFFLE_SEED, seed]).permutation(stream.rows)
    true = np.array_split(order[: len(chosen) * batch], len(chosen))
    documents, similarity = _figures(stream, drawn)
    true_documents, true_similarity = _figures(stream, true)
    return Mixing(
        batch,
        documents,
        similarity,
        documents / true_documents,
        similarity / true_similarity,
    )


def _figures(stream: Stream, batches: list[npt.NDArray[np.int64]]) -> tuple[float, float]:
    """Return the mean number of documents in a batch, and the mean similarity of neighbours."""
    documents, similarity = 0.0, 0.0
    for numbers in batches:
        documents += len(stream.activations.take("document", numbers).unique())
        x = stream.take(numbers)
        similarity += float(cosine_similarity(x[:-1], x[1:]).mean())
    return documents / len(batches), similarity / len(batches)
