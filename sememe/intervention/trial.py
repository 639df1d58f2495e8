"""How often a monitor is right about labelled texts, beside a linear probe of their activations.

Axis names: texts = labelled texts, or those that are tested; width = of an activation.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sememe.errors import SememeError
from sememe.evaluation.estimates import Resampling, ratio
from sememe.evaluation.readings import all_activations
from sememe.intervention.monitor import Monitor
from sememe.models.language_model import LanguageModel

FEWEST = 10
"""Texts of each class, at least."""


class Readings(NamedTuple):
    """What is known of each text."""

    strength: Float[np.ndarray, " texts"]
    """The largest value of a watched feature over its limit, on any token: above 1 is an alert."""
    mean: Float[np.ndarray, "texts width"]
    """The mean activation at the first site watched, of the tokens that the rules keep."""
    tokens: Float[np.ndarray, " texts"]


def trial(
    model: LanguageModel,
    monitor: Monitor,
    texts: Sequence[str],
    labels: Sequence[bool],
    *,
    window: int = 256,
    seed: int = 0,
) -> dict[str, Any]:
    """Return how well a monitor tells texts with a true label from the others.

    A text is flagged if it has an alert in its first ``window`` tokens. Half of the texts are for
    fitting: ``fitted`` multiplies all limits by the factor of the best F1 there, and ``probe`` is
    logistic regression (L2, C = 1) on the standardised mean activation, with the threshold of the
    best F1. On the other half, with bootstrap intervals over texts: precision, recall, and
    ``false_alarms``, the texts flagged wrongly per million tokens of texts with a false label; and
    the area under the ROC curve.

    SememeError where either class has fewer than 10 texts.
    """
    truth = np.array(labels, dtype=bool)
    counts = (int(truth.sum()), int((~truth).sum()))
    if len(texts) != len(truth) or min(counts) < FEWEST:
        raise SememeError(
            f"{len(texts)} texts, {counts[0]} labelled true and {counts[1]} false; expected a "
            f"label for each and at least {FEWEST} of both"
        )
    monitor.check(model)
    read = _read(model, monitor, texts, window)
    fit, test = train_test_split(
        np.arange(len(truth)), test_size=0.5, stratify=truth, random_state=seed
    )
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    probe.fit(read.mean[fit], truth[fit])
    scores = {
        "given": (read.strength, 1.0),
        "fitted": (read.strength, best_limit(read.strength[fit], truth[fit])),
    }
    margin = probe.decision_function(read.mean)
    scores["probe"] = (margin, best_limit(margin[fit], truth[fit]))
    found = {
        name: {
            "limit": limit,
            **rates(score[test] > limit, truth[test], read.tokens[test]),
            "auc": float(roc_auc_score(truth[test], score[test])),
        }
        for name, (score, limit) in scores.items()
    }
    return {"texts": len(truth), "tested": len(test), "true": int(truth[test].sum()), **found}


def rates(
    flagged: Bool[np.ndarray, " texts"],
    truth: Bool[np.ndarray, " texts"],
    tokens: Float[np.ndarray, " texts"],
) -> dict[str, dict[str, float | None]]:
    """Return precision, recall and false alarms per million tokens, with intervals over texts."""
    resampling = Resampling(len(truth))
    right, wrong = flagged & truth, flagged & ~truth
    per_million = np.where(truth, 0, tokens) / 1e6
    return {
        "precision": resampling.estimate(ratio, right, flagged).to_json(),
        "recall": resampling.estimate(ratio, right, truth).to_json(),
        "false_alarms": resampling.estimate(ratio, wrong, per_million).to_json(),
    }


def best_limit(score: Float[np.ndarray, " texts"], truth: Bool[np.ndarray, " texts"]) -> float:
    """Return the limit that flags with the best F1, halfway between the scores on its two sides."""
    order = np.argsort(-score, kind="stable")
    ordered = score[order].astype(np.float64)
    hits, flagged = np.cumsum(truth[order]), np.arange(1, len(order) + 1)
    f1 = 2 * hits / (flagged + truth.sum())
    ends = np.append(ordered[1:] < ordered[:-1], True)  # equal scores are flagged together
    last = int(np.where(ends, f1, -1).argmax())
    below = ordered[last + 1] if last + 1 < len(ordered) else ordered[last] - 1
    return float((ordered[last] + below) / 2)


def _read(model: LanguageModel, monitor: Monitor, texts: Sequence[str], window: int) -> Readings:
    lead = 0 if model.tokenizer.bos is None else 1
    length = min(window, model.context) - lead
    documents = [ids[:length] for ids in model.tokenizer.encode_batch(texts)]
    tokens = np.array([len(ids) for ids in documents])
    owner = torch.from_numpy(np.repeat(np.arange(len(texts)), tokens))
    ids = torch.tensor([token for document in documents for token in document])
    strength = torch.zeros(len(texts))
    mean: torch.Tensor | None = None
    for group in monitor.groups:
        rows = all_activations(model, group.features.reads, documents)
        kept = group.features.kept(ids, rows)
        values = group.features.values(rows[kept], group.numbers, torch.zeros(len(group.watches)))
        limits = group.limits.clamp_min(1e-12)
        strongest = (values / limits).amax(1)
        strength.scatter_reduce_(0, owner[kept], strongest, "amax")
        if mean is None:
            sums = torch.zeros(len(texts), rows.shape[1]).index_add_(0, owner[kept], rows[kept])
            mean = sums / torch.bincount(owner[kept], minlength=len(texts)).clamp_min(1)[:, None]
    assert mean is not None
    return Readings(strength.numpy(), mean.numpy(), tokens.astype(np.float64))
