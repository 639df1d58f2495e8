"""Disentanglement after RAVEL (2402.17700): do a few features carry one fact of a thing alone?

Of the features of an entity's last token, those that carry an attribute are exchanged for their
values with another entity. The attribute asked about should become the other's (cause), and other
attributes should stay (isolation). Features are chosen on some entities and tried on others, by
what their exchange adds to the other's answer over its own, to first order: that of the attribute
less that of the other attributes.

Axis names: entities = of a kind, those the model knows; attributes = of a kind; pairs = (base,
source) entities; width = of an activation, features = of the dictionary.
"""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sememe.evaluation.arms import Arm
from sememe.evaluation.entities import KINDS
from sememe.evaluation.estimates import Shares, drawn
from sememe.evaluation.knowledge import Known, Pairs, know
from sememe.evaluation.probing import STRUCTURED, code_matrix
from sememe.evaluation.prompts import answers
from sememe.evaluation.sections import Measured, Metric, NotApplicableError, Settings
from sememe.progress import Progress

EXCHANGED = (10, 50)
"""How many features are exchanged, at most."""
SHOWN = EXCHANGED[-1]
"""Of these, the one whose cause has an interval for every attribute."""
CAUTION = (
    "A city's country all but settles its continent and its language, so that no features can "
    "change one and leave the others wholly alone. Compare arms; the figure itself says little."
)

_HELD = (
    "Features of an entity's last token are exchanged for their values with another entity "
    "(RAVEL, 2402.17700), the {n} that say most of one attribute and least of the others. "
)
METRICS = (
    *(
        metric
        for n in EXCHANGED
        for metric in (
            Metric(
                f"ravel_{n}",
                f"Disentanglement, {n} features",
                _HELD.format(n=n) + "Mean of cause and isolation, over attributes; 0.5 where "
                "nothing changes, and where everything does.",
                "higher",
                "entities",
                STRUCTURED,
            ),
            Metric(
                f"ravel_cause_{n}",
                f"Cause, {n} features",
                "Share of questions about the attribute that are then answered with the other "
                "entity's value; mean over attributes.",
                "higher",
                "entities",
                STRUCTURED,
            ),
            Metric(
                f"ravel_isolation_{n}",
                f"Isolation, {n} features",
                "Share of questions about the other attributes that are answered as before; mean "
                "over attributes. 1 where nothing happens.",
                "neither",
                "entities",
            ),
        )
    ),
    Metric(
        "ravel_ceiling",
        "Cause, whole activation",
        "The same of the attribute's questions when the whole activation is exchanged: no "
        "dictionary takes part.",
        "neither",
        "entities",
    ),
)


def measure(arm: Arm, settings: Settings, progress: Progress) -> Measured:
    """Exchange the features of every attribute that the model knows enough of.

    NotApplicableError where it knows too few entities of every kind, or has moved on at the site.
    """
    progress.start(f"disentanglement, {arm.name}", len(KINDS), "kinds")
    shares = Shares()
    tried: list[Tried] = []
    left_out: list[str] = []
    for kind in KINDS:
        known = arm.once(
            f"known {kind.name} {settings} {arm.model.hash}",
            partial(know, arm.model, arm.site, kind, settings),
        )
        if isinstance(known, str):
            left_out.append(known)
        else:
            tried += exchange(arm, known, shares)
        progress.advance(1)
    if not tried:
        raise NotApplicableError("; ".join(left_out))
    measured = summarise(shares, tried, left_out)
    progress.finish(f"disentangled {measured.estimates[f'ravel_{SHOWN}'].value:.3f}")
    return measured


class Tried(NamedTuple):
    """An attribute's features, exchanged; columns are those of the shares."""

    kind: str
    attribute: str
    features: dict[int, list[int]]
    """By how many may be exchanged."""
    cause: dict[int, int]
    isolation: dict[int, int]
    ceiling: int


def exchange(arm: Arm, known: Known, shares: Shares) -> list[Tried]:
    """Choose the features of every attribute, exchange them, and note what is answered."""
    first = shares.begin(len(known.entities))
    attributes = range(len(known.attributes))
    with torch.no_grad():
        codes = [
            code_matrix(arm.dictionary.encode(values), arm.features) for values in known.values
        ]
        every = torch.arange(arm.features)
        directions = arm.dictionary.directions(every) / arm.dictionary.write_scale
    carried = np.stack(
        [
            carries(differences(codes[n], known.fitting[n]), known.gradients[n], directions)
            for n in attributes
        ]
    )

    def right(n: int, asked: int, features: Int64[np.ndarray, " taken"]) -> tuple[np.ndarray, ...]:
        pairs = known.trying[n, asked]
        change = differences(codes[asked], pairs)[:, features] @ directions[features].numpy()
        token = known.token[asked, pairs[:, 1 if n == asked else 0]]
        own = [known.prompts[asked][base] for base in pairs[:, 0].tolist()]
        added = torch.from_numpy(np.asarray(change)).float()
        answered = answers(arm.model, arm.site, own, token[:, None], added).token
        return first + pairs[:, 0].numpy(), (answered == token).numpy()

    found = []
    for n in attributes:
        ranked = selective(carried, n)
        cause, isolation = {}, {}
        for count in EXCHANGED:
            cause[count] = shares.add(*right(n, n, ranked[:count]))
            others = [right(n, asked, ranked[:count]) for asked in attributes if asked != n]
            isolation[count] = shares.add(*map(np.concatenate, zip(*others, strict=True)))
        unit = first + known.trying[n, n][:, 0].numpy()
        ceiling = shares.add(unit, known.ceiling[n].numpy())
        features = {count: ranked[:count].tolist() for count in EXCHANGED}
        found.append(Tried(known.kind, known.attributes[n], features, cause, isolation, ceiling))
    return found


def differences(code: scipy.sparse.csr_array, pairs: Pairs) -> scipy.sparse.csr_array:
    """Return the codes of the sources less those of the bases."""
    base, source = pairs.T.numpy()
    found: scipy.sparse.csr_array = code[source] - code[base]
    return found


def carries(
    difference: scipy.sparse.csr_array,
    gradient: Float[Tensor, "pairs width"],
    directions: Float[Tensor, "features width"],
) -> Float[np.ndarray, " features"]:
    """Return what exchanging each feature adds to the answer, to first order, mean over pairs."""
    per_unit = (gradient @ directions.T).numpy()
    found: np.ndarray = difference.multiply(per_unit).sum(0) / max(1, len(per_unit))
    return np.asarray(found).reshape(-1)


def selective(
    carried: Float[np.ndarray, "attributes features"], attribute: int
) -> Int64[np.ndarray, " chosen"]:
    """Return the features that carry an attribute more than, on average, the others, most first."""
    others = np.abs(np.delete(carried, attribute, axis=0)).mean(0)
    score = carried[attribute] - others
    order = np.argsort(-score, kind="stable")
    found: Int64[np.ndarray, " chosen"] = order[score[order] > 0]
    return found


def summarise(shares: Shares, tried: list[Tried], left_out: list[str]) -> Measured:
    """Return the means over attributes."""

    share = shares.shares
    estimates = {}
    for n in EXCHANGED:
        cause, isolation = [each.cause[n] for each in tried], [each.isolation[n] for each in tried]
        estimates[f"ravel_{n}"] = drawn(share[:, cause + isolation].mean(1))
        estimates[f"ravel_cause_{n}"] = drawn(share[:, cause].mean(1))
        estimates[f"ravel_isolation_{n}"] = drawn(share[:, isolation].mean(1))
    estimates["ravel_ceiling"] = drawn(share[:, [each.ceiling for each in tried]].mean(1))
    attributes = [
        {
            "kind": each.kind,
            "attribute": each.attribute,
            **{f"cause_{n}": float(share[0, at]) for n, at in each.cause.items()},
            **{f"isolation_{n}": float(share[0, at]) for n, at in each.isolation.items()},
            f"cause_{SHOWN}": drawn(share[:, each.cause[SHOWN]]).to_json(),
            "ceiling": float(share[0, each.ceiling]),
            "features": each.features[EXCHANGED[0]],
        }
        for each in tried
    ]
    details: dict[str, Any] = {"attributes": attributes}
    if left_out:
        details["kinds_left_out"] = "; ".join(left_out)
    return Measured(estimates, details)
