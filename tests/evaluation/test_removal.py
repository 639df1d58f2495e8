"""Removing concepts: closed forms, a made-up world, and a tiny model's real tokens."""

import random
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch

from sememe.evaluation import labelled_texts, removal
from sememe.evaluation.arms import Arm
from sememe.evaluation.labelled_texts import (
    Classes,
    Common,
    Effort,
    Pair,
    Sources,
    Texts,
    read_classes,
    read_pair,
)
from sememe.evaluation.linear_probe import Judged, Probe
from sememe.evaluation.removal import (
    METRICS,
    Coded,
    measure,
    perturb,
    recovered,
    strongest,
    targeted_loss,
    unlearn,
    without,
)
from sememe.evaluation.sections import Settings
from sememe.kernels import Code
from sememe.progress import Progress
from tests.prose import sentence


def test_losses_are_those_of_the_class_less_those_of_the_others() -> None:
    clean = np.array([[0.9, 0.8, 0.7]])
    taken = np.array([[[0.5, 0.8, 0.6], [0.9, 0.8, 0.7], [0.4, 0.3, 0.2]]])
    # the second row changes nothing; the third costs 0.5 everywhere
    np.testing.assert_allclose(targeted_loss(clean, taken), [[0.4 - 0.05, 0.0, 0.0]], atol=1e-12)


def test_what_is_recovered_is_pooled() -> None:
    fair, biased, taken = (np.array([row]) for row in ([0.9, 0.8], [0.6, 0.7], [0.9, 0.6]))
    np.testing.assert_allclose(recovered(fair, biased, taken), [(0.3 - 0.1) / (0.3 + 0.1)])
    np.testing.assert_allclose(recovered(fair, biased, fair), [1])
    np.testing.assert_allclose(recovered(fair, biased, biased), [0])


def test_accuracies_are_balanced_and_drawn_by_text() -> None:
    judged = Judged()
    first = judged.begin(4)
    labels = np.array([True, False, False, False])
    judged.judge(first, np.array([1.0, -1, -1, 1]), labels)
    judged.judge(judged.begin(2), np.array([-1.0, -1]), np.array([True, False]))
    np.testing.assert_allclose(judged.accuracies[0], [(1 + 2 / 3) / 2, 0.5])
    assert judged.accuracies.shape == (501, 2)


def world(
    classes: int, texts: int, *, noise: float, seed: int = 0
) -> tuple[Coded, np.ndarray, np.ndarray]:
    """Texts of a class have its feature, and one of all classes; features are orthonormal."""
    generator = np.random.default_rng(seed)
    label = np.repeat(np.arange(classes), texts)
    values = np.zeros((len(label), classes + 3))
    values[np.arange(len(label)), label] = 1 + generator.random(len(label))
    values[:, classes] = generator.random(len(label))
    directions = np.linalg.qr(generator.normal(size=(classes + 3, classes + 3)))[0]
    rest = generator.normal(size=values.shape) * noise
    coded = Coded(values @ directions + rest, scipy.sparse.csr_array(values), directions)
    return coded, label, np.arange(len(label)) % 3 == 0


def all_of(texts: int) -> Texts:
    return Texts(torch.zeros(texts, 1), np.arange(texts), texts)


def test_a_class_with_a_feature_of_its_own_is_removed_and_no_other() -> None:
    """The probe has only what the other classes' features say left, and the others lose nothing."""
    coded, label, test = world(4, 60, noise=0.02)
    judged = Judged()
    names = [str(n) for n in range(4)]
    found = perturb(judged, Classes("made up", names, all_of(240), label, test), coded)
    accuracy = judged.accuracies[0]
    np.testing.assert_allclose(accuracy[found.clean], 1)
    for taken in found.taken.values():
        assert np.diagonal(accuracy[taken]).mean() < 0.8
        np.testing.assert_allclose(accuracy[taken][~np.eye(4, dtype=bool)], 1)


def test_two_classes_that_one_feature_tells_apart_cannot_be_told_without_it() -> None:
    """Both probes are left with noise, so that neither loses more than the other."""
    coded, label, test = world(2, 90, noise=0)
    one = coded.code.toarray()
    one[:, 1] = 0
    coded = Coded(one @ coded.directions, scipy.sparse.csr_array(one), coded.directions)
    judged = Judged()
    found = perturb(judged, Classes("made up", ["a", "b"], all_of(180), label, test), coded)
    accuracy = judged.accuracies[:1]
    np.testing.assert_allclose(accuracy[:, found.clean], 1)
    for taken in found.taken.values():
        np.testing.assert_allclose(accuracy[:, taken[0]], 0.5)
        loss = targeted_loss(accuracy[:, found.clean], accuracy[:, taken])
        assert loss[0, 0] == 0


def test_only_features_that_speak_for_the_class_are_taken() -> None:
    coded, label, test = world(3, 60, noise=0.02)
    own = label == 1
    probe = Probe.fit(coded.activation[~test], own[~test])
    assert strongest(coded, probe, own, ~test, both_ways=False)[0] == 1
    assert set(strongest(coded, probe, own, ~test, both_ways=False)) <= {1, 3}
    assert set(strongest(coded, probe, own, ~test, both_ways=True)) >= {0, 1, 2}


def test_a_probe_is_freed_of_a_label_whose_features_are_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A strong unwanted label and a weak wanted one, each with features for yes and for no."""
    monkeypatch.setattr(removal, "TAKEN", (4,))
    generator = np.random.default_rng(1)
    labels = np.repeat([[a, b] for a in (False, True) for b in (False, True)], 150, axis=0)
    weak = np.stack([labels[:, 0], ~labels[:, 0]], 1) * 0.5
    strong = np.stack([labels[:, 1]] * 2 + [~labels[:, 1]] * 2, 1)
    strong = strong * (2 + generator.random((600, 4)))
    values = np.concatenate([weak, strong], 1)
    directions = np.linalg.qr(generator.normal(size=(8, 8)))[0][:6]
    activation = values @ directions + 0.08 * generator.normal(size=(600, 8))
    place = np.tile(np.arange(150), 4)
    test, half = place < 50, (place >= 50) & (place % 2 == 0)
    pair = Pair(("weak", "strong"), all_of(600), labels, test, half)
    found = {}
    for name, code in (("true", values), ("empty", np.zeros_like(values))):
        judged = Judged()
        spurious = unlearn(
            judged, pair, Coded(activation, scipy.sparse.csr_array(code), directions)
        )
        accuracy = judged.accuracies
        assert (spurious[0].wanted, spurious[0].unwanted) == ("weak", "strong")
        # what is wanted is mostly missed by the biased probe, and the strong label is not
        assert accuracy[0, spurious[0].fair] - accuracy[0, spurious[0].biased] > 0.2
        first = spurious[0]
        columns = (first.fair, first.biased, first.taken[4])
        found[name] = recovered(*(accuracy[:1, [at]] for at in columns))[0]
    assert found["true"] > 0.8
    assert found["empty"] == 0
    # at 0 in place of their means, as SAEBench has it, the same features free it of nothing
    agree = ~test & (labels[:, 0] == labels[:, 1])
    biased = Probe.fit(activation[agree], labels[agree, 0])
    zeroed = biased.sees(activation - values[:, 2:] @ directions[2:])
    right = zeroed[test] == labels[test, 0]
    assert np.mean([right[labels[test, 0] == side].mean() for side in (False, True)]) == 0.5


def test_margins_without_features_are_those_of_the_texts_without_them(subject: Arm) -> None:
    """Against decoding every token's code with and without them, error kept, mean put back."""
    values = torch.cat([rows.values for rows, _ in subject.in_order()])[:60]
    text = np.repeat(np.arange(6), 10)
    coded = Coded.of(subject, Texts(values, text, 7))
    generator = np.random.default_rng(0)
    probe = Probe(generator.normal(size=values.shape[1]), 0.5)
    fires = np.unique(coded.code.indices[coded.code.data > 0])
    taken = generator.permutation(fires)[:4].astype(np.int64)
    with torch.no_grad():
        code = subject.dictionary.encode(values)
        gone = torch.isin(code.indices, torch.from_numpy(taken))
        less = Code(code.indices, code.values.masked_fill(gone, 0))
        rest = values - subject.dictionary.decode(code) + subject.dictionary.decode(less)
    fitted = np.array([True, False, True, True, False, False, False])
    pooled = rest.double().numpy().reshape(6, 10, -1).mean(1)
    pooled += (coded.activation[:6] - pooled)[fitted[:6]].mean(0)
    expected = probe.margins(pooled)
    assert not np.allclose(expected, probe.margins(coded.activation[:6]))
    found = without(probe, coded, taken, fitted)
    np.testing.assert_allclose(found[:6], expected, rtol=1e-4, atol=1e-4)
    assert not coded.code[[6]].toarray().any()  # a text without a token


SETS = {
    "kinds": {"sun": "sky", "hills": "land", "ship": "sea"},
    "first": {"sun": "0", "hills": "1"},
    "second": {"calm": "0", "bright": "1"},
    "other": {"sun": "bad", "hills": "good"},
}


@pytest.fixture
def sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets whose labels are words at the end of made-up texts."""
    draw = random.Random(0)
    ends = [f"{b} {a}" for a in ("sun", "hills", "ship") for b in ("calm", "bright")] * 40
    texts = [f"{sentence(draw)} {n} {end}" for n, end in enumerate(ends)]

    def text_labels(name: str, _path: Path) -> dict[str, str]:
        return {
            text: label
            for text in texts
            for word, label in SETS[name].items()
            if word in text.split()[-2:]
        }

    monkeypatch.setattr(labelled_texts, "text_labels", text_labels)
    monkeypatch.setattr(labelled_texts, "_package", lambda _progress: Path())
    effort = Effort(
        ("kinds",),
        (
            Common(("a", "b"), "first", "second"),
            Sources(("good", "other"), ("first", "0", "1"), ("other", "bad", "good")),
        ),
        train=20,
        test=10,
        tokens=4,
    )
    monkeypatch.setattr(removal, "EFFORTS", {"standard": effort})


@pytest.mark.usefixtures("sets")
def test_texts_are_drawn_alike_of_every_class_and_combination(subject: Arm) -> None:
    effort = removal.EFFORTS["standard"]
    classes = read_classes(subject, "kinds", effort, 0, Progress())
    assert classes.classes == ["land", "sea", "sky"]
    assert np.bincount(classes.label).tolist() == [30] * 3
    assert np.bincount(classes.label[classes.test]).tolist() == [10] * 3
    assert classes.texts.present.all()
    for labels in effort.pairs:
        pair = read_pair(subject, labels, effort, 0, Progress())
        kinds = 2 * pair.labels[:, 0] + pair.labels[:, 1]
        for chosen, count in ((pair.test, 10), (~pair.test, 20), (pair.half, 10)):
            assert np.bincount(kinds[chosen]).tolist() == [count] * 4
        assert not (pair.test & pair.half).any()
    # a set's classes are in the activations of tokens that say them
    judged = Judged()
    found = perturb(judged, classes, Coded.of(subject, classes.texts))
    assert judged.accuracies[0, found.clean].mean() > 0.7  # by chance 0.5


@pytest.mark.usefixtures("sets")
def test_a_real_arm_is_measured(subject: Arm) -> None:
    measured = measure(subject, Settings("standard"), Progress())
    assert set(measured.estimates) == {metric.name for metric in METRICS}
    assert [row["class"] for row in measured.details["classes"]] == ["land", "sea", "sky"]
    assert len(measured.details["pairs"]) == 4
    interval = measured.estimates["removal_probes"].interval
    assert interval is not None
    assert interval[0] < measured.estimates["removal_probes"].value <= interval[1] <= 1
