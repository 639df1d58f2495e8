"""Concept removal: what taking away a concept's features does to probes of it and of others.

Two tests of SAEBench (2411.18895, 2503.09532), on sets of sae-probes. Targeted probe perturbation
(TPP): take away the features of one class of a set, and see how much the probe of that class loses
beyond what the probes of the other classes do. Spurious-correlation removal (SCR): of texts with
two labels, fit a probe where both agree, take away the features of the unwanted label, and see how
much nearer the probe comes to one that was fitted where they do not.

A text is the mean activation of its last tokens. Features that are taken away stay at their mean
over texts, which changes a probe's margin by what each value adds beyond the mean, so that no
activation is rebuilt.

Axis names: texts = labelled texts, features = of the dictionary, width = of an activation,
judged = probes on texts, before or after features are taken away.
"""

from typing import NamedTuple

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Bool, Float, Int64

from sememe.evaluation.arms import CHUNK, Arm
from sememe.evaluation.estimates import drawn
from sememe.evaluation.labelled_texts import EFFORTS, Classes, Pair, Texts, read_classes, read_pair
from sememe.evaluation.linear_probe import Judged, Probe
from sememe.evaluation.probing import STRUCTURED, code_matrix
from sememe.evaluation.sections import Measured, Metric, Settings
from sememe.progress import Progress

TAKEN = (5, 20, 100)
"""How many features are taken away, at most."""
SHOWN = TAKEN[1]
"""Of these, the one whose figures have intervals for every class and pair."""
CAUTION = (
    "TPP and SCR are known to be unreliable: an audit finds that both fail at their standard "
    "settings (2605.18229). They stand here because others report them; choose no dictionary by "
    "them."
)
METRICS = (
    *(
        Metric(
            f"tpp_{n}",
            f"TPP, {n} features",
            "Targeted probe perturbation: balanced accuracy that a class's probe loses when the "
            f"{n} features that add most to it are taken away, less the mean loss of the probes of "
            "the set's other classes; mean over classes (SAEBench). 0 where nothing is lost, or "
            "all probes lose alike.",
            "higher",
            "texts",
            STRUCTURED,
        )
        for n in TAKEN
    ),
    *(
        Metric(
            f"scr_{n}",
            f"SCR, {n} features",
            "Spurious-correlation removal: of the accuracy that a probe lacks because it was "
            f"fitted to texts whose two labels agree, the share that comes back when the {n} "
            "features of the unwanted label are taken away; pooled over pairs of labels, both ways "
            "(SAEBench). 1 is all of it; below 0 it does harm.",
            "higher",
            "texts",
            STRUCTURED,
        )
        for n in TAKEN
    ),
    Metric(
        "removal_probes",
        "Probes of classes",
        "Mean balanced accuracy of the probes that TPP perturbs, before anything is taken away: no "
        "dictionary takes part.",
        "neither",
        "texts",
    ),
    Metric(
        "removal_bias",
        "Bias to remove",
        "Accuracy that probes lack because they were fitted to texts whose labels agree, mean over "
        "pairs, both ways: SCR is a share of it, and means nothing where its interval reaches 0.",
        "neither",
        "texts",
    ),
)


def measure(arm: Arm, settings: Settings, progress: Progress) -> Measured:
    """Measure both tests on the sets of the suite; NotApplicableError where they are missing."""
    effort = EFFORTS[settings.suite]
    progress.start(f"removal, {arm.name}", len(effort.sets) + len(effort.pairs), "sets")
    judged, targeted, spurious = Judged(), [], []
    for name in effort.sets:
        classes = read_classes(arm, name, effort, settings.seed, progress)
        targeted.append(perturb(judged, classes, Coded.of(arm, classes.texts)))
        progress.advance(1)
    for labels in effort.pairs:
        pair = read_pair(arm, labels, effort, settings.seed, progress)
        spurious += unlearn(judged, pair, Coded.of(arm, pair.texts))
        progress.advance(1)
    measured = summarise(judged, targeted, spurious)
    progress.finish(f"TPP {measured.estimates[f'tpp_{SHOWN}'].value:.3f}")
    return measured


class Coded(NamedTuple):
    """Texts with the features of an arm."""

    activation: Float[np.ndarray, "texts width"]
    """Mean over tokens."""
    code: scipy.sparse.csr_array
    """Mean over tokens of the code, (texts, features)."""
    directions: Float[np.ndarray, "features width"]
    """What a unit of each feature adds to an activation."""

    @classmethod
    def of(cls, arm: Arm, texts: Texts) -> "Coded":
        """Encode the texts' tokens, and average."""
        averaging = texts.averaging()
        code = scipy.sparse.csr_array((texts.total, arm.features))
        with torch.no_grad():
            for begin in range(0, len(texts.values), CHUNK):
                rows = slice(begin, begin + CHUNK)
                part = code_matrix(arm.dictionary.encode(texts.values[rows]), arm.features)
                code = code + averaging[:, rows] @ part
            every = torch.arange(arm.features)
            directions = arm.dictionary.directions(every) / arm.dictionary.write_scale
        return cls(averaging @ texts.values.double().numpy(), code.tocsr(), directions.numpy())


def without(
    probe: Probe,
    coded: Coded,
    taken: Int64[np.ndarray, " taken"],
    fitted: Bool[np.ndarray, " texts"],
) -> Float[np.ndarray, " texts"]:
    """Return the margins of a probe where the features ``taken`` have their means on ``fitted``.

    At 0, as in SAEBench, all margins would move alike, past the threshold of the probe.
    """
    values = coded.code[:, taken]
    away = values - np.asarray(values[fitted].mean(0)).reshape(1, -1)
    margins: np.ndarray = probe.margins(coded.activation) - away @ (
        coded.directions[taken] @ probe.weight
    )
    return margins


def strongest(
    coded: Coded,
    probe: Probe,
    labels: Bool[np.ndarray, " texts"],
    fitted: Bool[np.ndarray, " texts"],
    *,
    both_ways: bool,
) -> Int64[np.ndarray, " features"]:
    """Return features by what they add to the probe in the class beyond the rest, most first.

    That is the difference of their means times what a unit adds to the margin. Features that add
    nothing are left out, and, unless ``both_ways``, those that speak for the rest: that fire less
    in the class, or whose direction points away from it.
    """
    difference = coded.code[labels & fitted].mean(0) - coded.code[~labels & fitted].mean(0)
    effect = np.asarray(difference) * (coded.directions @ probe.weight)
    effect = np.abs(effect) if both_ways else np.where(difference > 0, effect, 0)
    order = np.argsort(-effect, kind="stable")
    found: Int64[np.ndarray, " features"] = order[effect[order] > 0]
    return found


class Targeted(NamedTuple):
    """The probes of a set's classes, by their numbers among what was judged."""

    name: str
    classes: list[str]
    clean: Int64[np.ndarray, " classes"]
    taken: dict[int, Int64[np.ndarray, "classes classes"]]
    """By the number of features: [c, p] is the probe of p without the features of c."""


def perturb(judged: Judged, classes: Classes, coded: Coded) -> Targeted:
    """Judge the probe of every class, as it is and without the features of every class."""
    present = classes.texts.present
    fitted, test = present & ~classes.test, present & classes.test
    labels = [classes.label == number for number in range(len(classes.classes))]
    probes = [Probe.fit(coded.activation[fitted], own[fitted]) for own in labels]
    first = judged.begin(int(test.sum()))

    def judge(taken: Int64[np.ndarray, " taken"]) -> list[int]:
        return [
            judged.judge(first, without(probe, coded, taken, fitted)[test], own[test])
            for probe, own in zip(probes, labels, strict=True)
        ]

    clean = np.array(judge(np.zeros(0, np.int64)))
    ranked = [
        strongest(coded, probe, own, fitted, both_ways=False)
        for probe, own in zip(probes, labels, strict=True)
    ]
    taken = {n: np.array([judge(features[:n]) for features in ranked]) for n in TAKEN}
    return Targeted(classes.name, classes.classes, clean, taken)


def targeted_loss(
    clean: Float[np.ndarray, "draws classes"], taken: Float[np.ndarray, "draws classes classes"]
) -> Float[np.ndarray, "draws classes"]:
    """Return what the probe of each class loses by its features, less what the others lose."""
    loss = clean[:, None] - taken
    own = np.diagonal(loss, axis1=1, axis2=2)
    beyond: np.ndarray = own - (loss.sum(2) - own) / (loss.shape[1] - 1)
    return beyond


class Spurious(NamedTuple):
    """A probe that was fitted where two labels agree, by numbers among what was judged."""

    wanted: str
    unwanted: str
    fair: int
    """A probe of the wanted label that was fitted where the other says nothing of it."""
    biased: int
    taken: dict[int, int]
    """The biased one, by how many features of the unwanted label are taken away."""


def unlearn(judged: Judged, pair: Pair, coded: Coded) -> list[Spurious]:
    """Judge a biased probe on either label, as it is and without the features of the other.

    Fair probes are fitted to every other text, so that they have as many as the biased one.
    """
    present = pair.texts.present
    fitted, test, fair = present & ~pair.test, present & pair.test, present & pair.half
    agree = fitted & (pair.labels[:, 0] == pair.labels[:, 1])
    biased = Probe.fit(coded.activation[agree], pair.labels[agree, 0])
    probes = [Probe.fit(coded.activation[fair], own[fair]) for own in pair.labels.T]
    first = judged.begin(int(test.sum()))
    found = []
    for kept, other in ((0, 1), (1, 0)):
        own, unwanted = pair.labels[:, kept], pair.labels[:, other]
        ranked = strongest(coded, probes[other], unwanted, fitted, both_ways=True)
        taken = {
            n: judged.judge(first, without(biased, coded, ranked[:n], fitted)[test], own[test])
            for n in TAKEN
        }
        before, after = (
            judged.judge(first, probe.margins(coded.activation)[test], own[test])
            for probe in (biased, probes[kept])
        )
        found.append(Spurious(pair.names[kept], pair.names[other], after, before, taken))
    return found


def recovered(
    fair: Float[np.ndarray, "draws probes"],
    biased: Float[np.ndarray, "draws probes"],
    taken: Float[np.ndarray, "draws probes"],
) -> Float[np.ndarray, " draws"]:
    """Return the share of the accuracy lacking that comes back, pooled over probes."""
    share: np.ndarray = (taken - biased).sum(1) / (fair - biased).sum(1)
    return share


def summarise(judged: Judged, targeted: list[Targeted], spurious: list[Spurious]) -> Measured:
    """Return the figures of everything that was judged."""
    accuracy = judged.accuracies
    lost = {
        n: [targeted_loss(accuracy[:, each.clean], accuracy[:, each.taken[n]]) for each in targeted]
        for n in TAKEN
    }
    fair, biased = (
        accuracy[:, [getattr(each, name) for each in spurious]] for name in ("fair", "biased")
    )
    estimates = {}
    for n in TAKEN:
        estimates[f"tpp_{n}"] = drawn(np.concatenate(lost[n], 1).mean(1))
        taken = accuracy[:, [each.taken[n] for each in spurious]]
        estimates[f"scr_{n}"] = drawn(recovered(fair, biased, taken))
    clean = np.concatenate([each.clean for each in targeted])
    estimates["removal_probes"] = drawn(accuracy[:, clean].mean(1))
    estimates["removal_bias"] = drawn((fair - biased).mean(1))
    classes = [
        {
            "set": each.name,
            "class": name,
            "probe": float(accuracy[0, each.clean[c]]),
            **{f"tpp_{n}": float(lost[n][number][0, c]) for n in TAKEN},
            f"tpp_{SHOWN}": drawn(lost[SHOWN][number][:, c]).to_json(),
        }
        for number, each in enumerate(targeted)
        for c, name in enumerate(each.classes)
    ]
    pairs = [
        {
            "wanted": each.wanted,
            "unwanted": each.unwanted,
            "fair": float(accuracy[0, each.fair]),
            "biased": float(accuracy[0, each.biased]),
            **{f"without_{n}": float(accuracy[0, each.taken[n]]) for n in TAKEN},
            "gain": drawn(accuracy[:, each.taken[SHOWN]] - accuracy[:, each.biased]).to_json(),
        }
        for each in spurious
    ]
    return Measured(estimates, {"classes": classes, "pairs": pairs})
