"""How well a dictionary finds the features of a world where they are known.

Two ways to pair latents with true features, both by |cos| of decoder rows: each latent's *best*
match, which several may share, and the *assignment*, one to one with the largest sum. Sources:
SynthSAEBench (arXiv 2602.14687) for F1, uniqueness and shrinkage, arXiv 2505.20254 for MCC; for
absorption and hedging the ideas of arXiv 2409.14507 and 2505.11756, the measures are ours.

Axis names: rows = samples, width = their dimensions, latents = entries of the dictionary, true =
true features.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import normalize

from sememe.dictionaries.dictionary import Dictionary
from sememe.evaluation.metrics import Moments
from sememe.kernels import Code

RECOVERED = 0.7
"""|cos| from which a feature counts as recovered by the latent assigned to it (2501.16615)."""
LEAN = 0.1
"""How much further a child's latent must point to its parent than the child itself does."""


class Counts(NamedTuple):
    """In how many samples each latent and its best match fired; add them up over batches."""

    latent: Float[Tensor, " latents"]
    true: Float[Tensor, " latents"]
    both: Float[Tensor, " latents"]

    @classmethod
    def of(
        cls, latent: Bool[Tensor, "rows latents"], true: Bool[Tensor, "rows latents"]
    ) -> "Counts":
        """Return the counts of one batch; column i of ``true`` is the best match of latent i."""
        return cls(*(fired.sum(0).double() for fired in (latent, true, latent & true)))

    def plus(self, other: "Counts") -> "Counts":
        """Return the counts over both."""
        return Counts(*(a + b for a, b in zip(self, other, strict=True)))

    @property
    def precision(self) -> Float[Tensor, " latents"]:
        """Share of a latent's firings at which its feature fires; 0 where it never fires."""
        return self.both / self.latent.clamp_min(1)

    @property
    def recall(self) -> Float[Tensor, " latents"]:
        """Share of the feature's firings at which the latent fires; 0 where it never fires."""
        return self.both / self.true.clamp_min(1)

    @property
    def f1(self) -> Float[Tensor, " latents"]:
        """Harmonic mean of precision and recall; 0 where either is 0."""
        return 2 * self.both / (self.latent + self.true).clamp_min(1)


class Match(NamedTuple):
    """A one-to-one assignment of latents to true features."""

    latents: Int[Tensor, " pairs"]
    true: Int[Tensor, " pairs"]
    cosine: Float[Tensor, " pairs"]
    """|cos| of each pair."""

    @property
    def mcc(self) -> float:
        """Mean |cos| over the assignment (mean correlation coefficient)."""
        return float(self.cosine.mean())

    def latent_of(self, features: int) -> Int[Tensor, " true"]:
        """Return the latent that has recovered each true feature, -1 where none has."""
        owner = torch.full((features,), -1)
        good = self.cosine >= RECOVERED
        owner[self.true[good]] = self.latents[good]
        return owner


def cosines(
    rows: Float[Tensor, "latents width"], directions: Float[Tensor, "true width"]
) -> Float[Tensor, "latents true"]:
    """Return the cosine of every decoder row with every true direction; 0 for rows of norm 0."""
    return normalize(rows, dim=1) @ normalize(directions, dim=1).T


def assign(cosine: Float[Tensor, "latents true"]) -> Match:
    """Return the assignment with the largest summed |cos|; as many pairs as the fewer have."""
    latents, true = map(torch.from_numpy, linear_sum_assignment(-cosine.abs().numpy()))
    return Match(latents, true, cosine.abs()[latents, true])


def uniqueness(cosine: Float[Tensor, "latents true"]) -> float:
    """Return how many true features are some latent's best match, per latent."""
    return len(cosine.abs().argmax(1).unique()) / len(cosine)


def excess(
    rows: Float[Tensor, "pairs width"],
    own: Float[Tensor, "pairs width"],
    other: Float[Tensor, "pairs width"],
) -> Float[Tensor, " pairs"]:
    """Return how far unit rows point to ``other`` beyond what pointing to ``own`` explains.

    (w - (w . d) d) . d' for row w, its own direction d and another direction d'.
    """
    along = (rows * own).sum(1, keepdim=True)
    return ((rows - along * own) * other).sum(1)


class Family(NamedTuple):
    """Parents and children among the true features, and the latents that recovered them."""

    parent: Int[Tensor, " pairs"]
    child: Int[Tensor, " pairs"]
    parent_latent: Int[Tensor, " pairs"]
    """-1 where no latent recovered the feature."""
    child_latent: Int[Tensor, " pairs"]

    @classmethod
    def of(cls, parents: Int[Tensor, " true"], match: Match) -> "Family":
        """Return every child with its parent."""
        child = (parents >= 0).nonzero().flatten()
        owner = match.latent_of(len(parents))
        return cls(parents[child], child, owner[parents[child]], owner[child])

    def where(self, chosen: Bool[Tensor, " pairs"]) -> "Family":
        """Return some of the pairs."""
        return Family(*(part[chosen] for part in self))


def hedging(
    rows: Float[Tensor, "latents width"], directions: Float[Tensor, "true width"], family: Family
) -> float:
    """Return how far recovered parents' latents lean to children that have no latent.

    Mean of :func:`excess` over those pairs: a dictionary that is too narrow mixes into a feature's
    latent what fires with it (2505.11756). 0 where there are no such pairs, or no mixing.
    """
    family = family.where((family.parent_latent >= 0) & (family.child_latent < 0))
    if not len(family.child):
        return 0.0
    unit = normalize(rows, dim=1)[family.parent_latent]
    return float(excess(unit, directions[family.parent], directions[family.child]).mean())


def absorbed(
    fired: Bool[Tensor, "rows latents"],
    true: Bool[Tensor, "rows true"],
    rows: Float[Tensor, "latents width"],
    directions: Float[Tensor, "true width"],
    family: Family,
) -> tuple[float, float]:
    """Return in how many cases a child's latent speaks for its parent too, and of how many.

    A case is a sample and a child that fires in it (so its parent does), both recovered. It is
    absorbed where the parent's latent is silent, the child's is not, and the child's decoder row
    leans to the parent by ``LEAN`` (:func:`excess`) or more: the parent's part comes from there.
    """
    family = family.where((family.parent_latent >= 0) & (family.child_latent >= 0))
    unit = normalize(rows, dim=1)[family.child_latent]
    leans = excess(unit, directions[family.child], directions[family.parent]) >= LEAN
    cases = true[:, family.child]
    silent = fired[:, family.child_latent] & ~fired[:, family.parent_latent]
    return float((cases & silent & leans).sum()), float(cases.sum())


def ground_truth(
    dictionary: Dictionary,
    directions: Float[Tensor, "true width"],
    samples: Iterable[tuple[Float[Tensor, "rows width"], Code]],
    parents: Int[Tensor, " true"] | None = None,
) -> dict[str, float]:
    """Return every figure of a dictionary on activations whose true features are known.

    ``f1``, ``precision`` and ``recall`` are means over latents, each taken as a detector of its
    best match; those that never fire count 0. ``shrinkage`` is the mean of ||x^|| / ||x|| over x
    other than 0, ``dead`` the share of latents silent in all samples. ``absorption`` and
    ``hedging`` need ``parents``.
    """
    rows = dictionary.directions()
    cosine = cosines(rows, directions)
    match, best = assign(cosine), cosine.abs().argmax(1)
    family = None if parents is None else Family.of(parents, match)
    counts: Counts | None = None
    moments: Moments | None = None
    ratios, cases = [], torch.zeros(2)
    for x, code in samples:
        found = dictionary.encode(x)
        rebuilt = dictionary.decode(found).detach()
        fired, true = firing(found, len(rows)), firing(code, len(directions))
        counted, summed = Counts.of(fired, true[:, best]), Moments.of(x, rebuilt)
        counts = counted if counts is None else counts.plus(counted)
        moments = summed if moments is None else moments.plus(summed)
        ratios.append((rebuilt.norm(dim=1) / x.norm(dim=1))[x.norm(dim=1) > 0])
        if family is not None:
            cases += torch.tensor(absorbed(fired, true, rows, directions, family))
    assert counts is not None and moments is not None, "no samples"  # noqa: PT018
    figures = {
        "f1": float(counts.f1.mean()),
        "precision": float(counts.precision.mean()),
        "recall": float(counts.recall.mean()),
        "mcc": match.mcc,
        "uniqueness": uniqueness(cosine),
        "recovered": float((match.cosine >= RECOVERED).double().mean()),
        "fvu": float(moments.fvu or 0.0),
        "l0": float(counts.latent.sum()) / moments.rows,
        "dead": float((counts.latent == 0).double().mean()),
        "shrinkage": float(torch.cat(ratios).mean()),
    }
    if family is not None:
        figures["absorption"] = float(cases[0] / cases[1].clamp_min(1))
        figures["hedging"] = hedging(rows, directions, family)
    return figures


def firing(code: Code, features: int) -> Bool[Tensor, "rows features"]:
    """Return which features are active in each row."""
    active = torch.zeros(len(code.values), features + 1, dtype=torch.bool)
    there = code.indices.long().where(code.values > 0, features)
    return active.scatter_(1, there, True)[:, :features]
