"""Sparse probing: how well a few features tell the two classes of labelled texts apart.

The sets are those of sae-probes (2502.16681), read as it reads them: the activation of a text's
last token, of its last tokens where it is long. Features are chosen and probed as SAEBench does
(2503.09532): on the training texts, the k features whose means differ most between the classes,
then logistic regression on their values (L2, C = 1). Beside it stand logistic regression on the
whole activation, standardised, and the projection on the difference of the class means.

Axis names: texts = training or test texts, features = of the dictionary, width = of an activation.
"""

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Bool, Float
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from sememe.corpora.fetch import fetch
from sememe.corpora.labelled import LabelledSet, binary_sets, labelled_set
from sememe.corpora.sources import SETS
from sememe.errors import SememeError
from sememe.evaluation.arms import Arm
from sememe.evaluation.estimates import Resampling, ratio
from sememe.evaluation.readings import kept, last_activations
from sememe.evaluation.sections import Measured, Metric, NotApplicableError, Settings, SuiteName
from sememe.kernels import Code
from sememe.progress import Progress

KS = (1, 2, 5, 16)
"""How many features a probe may use."""
QUICK = (
    "5_hist_fig_ismale",
    "21_headline_istrump",
    "66_living-room",
    "92_glue_sst2",
    "105_click_bait",
    "159_code_Python",
)
STANDARD = (
    *QUICK,
    "7_hist_fig_ispolitician",
    "73_control-group",
    "78_north-america",
    "87_glue_cola",
    "96_spam_is",
    "110_aimade_humangpt3",
    "114_nyc_borough_Manhattan",
    "118_us_state_CA",
    "125_world_country_Italy",
    "128_art_type_movie",
    "139_news_class_Politics",
    "149_twt_emotion_happiness",
    "155_athlete_sport_basketball",
    "163_agnews_2",
)


@dataclass(frozen=True)
class Effort:
    """How much of each set is read."""

    train: int
    """Texts that probes are fitted to, half of each class."""
    test: int
    """Texts that they are held to, half of each class."""
    tokens: int
    """The model sees at most so many tokens, those at the end of a text."""


EFFORTS: dict[SuiteName, Effort] = {
    "quick": Effort(100, 60, 64),
    "standard": Effort(200, 100, 64),
    "full": Effort(1024, 400, 256),
}

STRUCTURED = (
    "frozen decoder",
    "random model",
    "gaussian",
    "identity",
    "pca",
    "neurons",
    "random directions",
)
_RAW = "of the same texts: no dictionary takes part, so that it is the same for all of one model"
METRICS = (
    *(
        Metric(
            f"probing_{score}_{k}",
            f"Probe of {k} feature{'s' if k > 1 else ''}, {title}",
            f"Test {title} of logistic regression on the {k} feature{'s' if k > 1 else ''} whose "
            "class means differ most (SAEBench), at the last token, mean over labelled sets of "
            f"sae-probes. {chance}",
            "higher",
            "datasets",
            STRUCTURED,
        )
        for score, title, chance in (
            ("auc", "AUC", "Area under the ROC curve; chance is 0.5."),
            ("accuracy", "accuracy", "Share of texts; chance is 0.5."),
        )
        for k in KS
    ),
    *(
        Metric(
            f"probing_{name}_{score}",
            f"{title}, {words}",
            f"Test {words} of {what}, {_RAW}.",
            "neither",
            "datasets",
        )
        for name, title, what in (
            ("raw", "Probe of the activation", "logistic regression on the whole activation"),
            ("difference", "Difference of means", "the projection on the difference of means"),
        )
        for score, words in (("auc", "AUC"), ("accuracy", "accuracy"))
    ),
)


class Score(NamedTuple):
    """What a probe reaches on test texts."""

    auc: float
    """Area under the ROC curve."""
    accuracy: float
    """Share of texts whose class it gives."""


class Split(NamedTuple):
    """A labelled set, read: activations of the last tokens, and which texts are for testing."""

    values: Float[Tensor, "texts width"]
    labels: Bool[np.ndarray, " texts"]
    test: Bool[np.ndarray, " texts"]


def measure(arm: Arm, settings: Settings, progress: Progress) -> Measured:
    """Probe the sets of the suite; NotApplicableError where they cannot be fetched."""
    effort = EFFORTS[settings.suite]
    try:
        path = fetch(SETS, progress)
    except SememeError as error:
        raise NotApplicableError(f"the labelled sets are not there: {error}") from None
    named = {"quick": QUICK, "standard": STANDARD, "full": ()}[settings.suite]
    names = named or tuple(binary_sets(path))
    progress.start("probing", len(names), "sets")
    found: list[dict[str, Any]] = []
    for name in names:
        made_from = [
            *(arm.model.hash, arm.model.dtype, arm.site),
            *(SETS.sha256, name, asdict(effort), settings.seed),
        ]

        def make(name: str = name) -> dict[str, Tensor]:
            return _as_tensors(read_set(arm, labelled_set(name, path), effort, settings.seed))

        read = kept(made_from, make)
        split = Split(read["values"], read["labels"].numpy(), read["test"].numpy())
        shared = arm.once(f"probing {made_from}", partial(baselines, split))
        found.append({"name": name, **probe_set(arm, split), **shared})
        progress.advance(1)
    progress.finish()
    return summarise(found)


def summarise(found: list[dict[str, Any]]) -> Measured:
    """Return the means over sets, whose draws are of the sets."""
    sets = Resampling(len(found))
    estimates = {
        f"probing_{name}": sets.estimate(
            ratio, np.array([each[name] for each in found]), np.ones(len(found))
        )
        for name in found[0]
        if name not in ("name", "features")
    }
    return Measured(estimates, {"sets": found})


def read_set(arm: Arm, labelled: LabelledSet, effort: Effort, seed: int) -> Split:
    """Draw texts, as many of each class, and read them; fewer where a set is small."""
    generator = np.random.default_rng(seed)
    classes = [np.flatnonzero(labelled.labels == label) for label in (False, True)]
    smaller = min(len(members) for members in classes)
    tests = max(1, min(effort.test // 2, smaller * effort.test // (effort.test + effort.train)))
    trains = min(effort.train // 2, smaller - tests)
    drawn = [generator.permutation(members)[: tests + trains] for members in classes]
    chosen = np.concatenate(drawn)
    test = np.tile(np.arange(tests + trains) < tests, 2)
    encoded = arm.model.tokenizer.encode_batch([labelled.texts[place] for place in chosen])
    limit = min(effort.tokens, arm.model.context - 1)
    values = last_activations(arm.model, arm.site, [ids[-limit:] for ids in encoded])
    return Split(values, labelled.labels[chosen], test)


def _as_tensors(split: Split) -> dict[str, Tensor]:
    return {
        "values": split.values,
        "labels": torch.from_numpy(split.labels),
        "test": torch.from_numpy(split.test),
    }


def probe_set(arm: Arm, split: Split) -> dict[str, Any]:
    """Return the scores on one set by their names, and the features chosen, first ones first."""
    with torch.no_grad():
        code = arm.dictionary.encode(split.values)
    values = code_matrix(code, arm.features)
    chosen = by_difference(values[~split.test], split.labels[~split.test])[: max(KS)]
    found: dict[str, Any] = {"features": chosen.tolist()}
    for k in KS:
        score = regression(values[:, chosen[:k]].toarray().astype(np.float64), split)
        found |= {f"auc_{k}": score.auc, f"accuracy_{k}": score.accuracy}
    return found


def baselines(split: Split) -> dict[str, Any]:
    """Return the scores of whole activations by their names."""
    values = split.values.double().numpy()
    raw, difference = (
        regression(values, split, standardise=True),
        difference_of_means(values, split),
    )
    return {
        "raw_auc": raw.auc,
        "raw_accuracy": raw.accuracy,
        "difference_auc": difference.auc,
        "difference_accuracy": difference.accuracy,
    }


def code_matrix(code: Code, features: int) -> scipy.sparse.csr_array:
    """Return a code as a sparse matrix (texts, features)."""
    rows, k = code.indices.shape
    entries = (code.values.reshape(-1).numpy(), code.indices.reshape(-1).numpy())
    return scipy.sparse.csr_array((*entries, np.arange(rows + 1) * k), shape=(rows, features))


def by_difference(values: scipy.sparse.csr_array, labels: Bool[np.ndarray, " texts"]) -> np.ndarray:
    """Return features by |mean over one class - mean over the other|, the largest first."""
    difference = values[labels].mean(axis=0) - values[~labels].mean(axis=0)
    return np.argsort(-np.abs(difference), kind="stable")


def regression(
    values: Float[np.ndarray, "texts inputs"], split: Split, *, standardise: bool = False
) -> Score:
    """Return the test score of logistic regression (L2, C = 1) fitted to the training texts.

    Without ``standardise`` inputs are to be few, and may be of very different sizes.
    """
    train, test = ~split.test, split.test
    probe = (
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        if standardise
        else LogisticRegression(solver="newton-cholesky")  # of few inputs; lbfgs needs equal sizes
    )
    probe.fit(values[train], split.labels[train])
    return _score(probe.decision_function(values[test]), split.labels[test])


def difference_of_means(values: Float[np.ndarray, "texts inputs"], split: Split) -> Score:
    """Return the test score of the projection on the difference of the training texts' means.

    The threshold lies half-way between the means.
    """
    train = ~split.test
    means = [values[train & (split.labels == label)].mean(0) for label in (False, True)]
    direction, middle = means[1] - means[0], (means[0] + means[1]) / 2
    return _score((values[split.test] - middle) @ direction, split.labels[split.test])


def _score(margin: np.ndarray, labels: Bool[np.ndarray, " texts"]) -> Score:
    """Return the score of margins, positive for the second class."""
    return Score(float(roc_auc_score(labels, margin)), float(((margin > 0) == labels).mean()))
