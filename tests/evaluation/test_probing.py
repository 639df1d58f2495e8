"""Probes beside closed forms, and on a tiny model whose last token gives the class away."""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

from sememe.activations.harvest import harvest
from sememe.activations.rules import HarvestConfig
from sememe.corpora.build import build_corpus
from sememe.corpora.labelled import LabelledSet
from sememe.dictionaries.config import DictionaryConfig
from sememe.dictionaries.dictionary import Dictionary
from sememe.dictionaries.nonlinearities import ReLU
from sememe.evaluation.arms import Arm
from sememe.evaluation.probing import (
    KS,
    METRICS,
    Effort,
    Split,
    baselines,
    by_difference,
    code_matrix,
    difference_of_means,
    probe_set,
    read_set,
    regression,
    summarise,
)
from sememe.evaluation.readings import all_activations, kept, last_activations
from sememe.kernels import Code
from sememe.models.load import LanguageModel
from sememe.models.reading import read
from tests.prose import prose, sentence

SITE = "layers.1.resid"
EFFORT = Effort(train=80, test=80, tokens=32)


def split_of(values: np.ndarray, labels: np.ndarray) -> Split:
    """A set whose odd texts are for testing."""
    return Split(torch.from_numpy(values).float(), labels, np.arange(len(labels)) % 2 == 1)


def test_a_code_is_a_matrix_of_its_entries() -> None:
    code = Code(
        torch.tensor([[2, 0, 0], [1, 3, 0]], dtype=torch.int32),
        torch.tensor([[0.5, 0.0, 0.0], [2.0, 1.0, 0.0]]),
    )
    np.testing.assert_array_equal(
        code_matrix(code, 4).toarray(), [[0, 0, 0.5, 0], [0, 2.0, 0, 1.0]]
    )
    nothing = Code(torch.zeros(3, 0, dtype=torch.int32), torch.zeros(3, 0))
    np.testing.assert_array_equal(code_matrix(nothing, 2).toarray(), np.zeros((3, 2)))


def test_features_are_ordered_by_the_difference_of_class_means() -> None:
    dense = np.array([[1.0, 0, 3], [1, 2, 0], [0, 0, 0], [0, 1, 0]])
    matrix = code_matrix(
        Code(torch.arange(3, dtype=torch.int32).repeat(4, 1), torch.from_numpy(dense).float()), 3
    )
    labels = np.array([True, True, False, False])
    # means 1, 1, 1.5 against 0, 0.5, 0
    np.testing.assert_array_equal(by_difference(matrix, labels), [2, 0, 1])


def test_probes_reach_what_gaussian_classes_allow() -> None:
    """Classes N(+-1, 1): the best probe is right in Phi(1) of cases, AUC Phi(2 / sqrt 2)."""
    generator = np.random.default_rng(0)
    labels = generator.random(20_000) < 0.5
    values = generator.normal(0, 1, (20_000, 3))
    values[:, 1] += np.where(labels, 1, -1)
    split = split_of(values, labels)
    for score in (
        regression(values, split),
        regression(values * [1, 5, 1] + 7, split, standardise=True),
        difference_of_means(values, split),
    ):
        assert score.accuracy == pytest.approx(scipy.stats.norm.cdf(1), abs=0.015)
        assert score.auc == pytest.approx(scipy.stats.norm.cdf(2**0.5), abs=0.015)
    blind = regression(values[:, [0]], split)
    assert blind.auc == pytest.approx(0.5, abs=0.02)


def test_the_report_is_the_mean_over_sets() -> None:
    found = [{"name": str(n), "features": [n], "auc_1": value} for n, value in enumerate((0.5, 1))]
    measured = summarise(found)
    assert measured.estimates["probing_auc_1"].value == pytest.approx(0.75)
    assert set(measured.estimates["probing_auc_1"].draws) == {0.5, 0.75, 1.0}


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory, tiny_llama: LanguageModel) -> Arm:
    """Every dimension of the tiny model's stream, up and down."""
    path = tmp_path_factory.mktemp("probing")
    corpus = build_corpus(
        path / "corpus",
        tiny_llama.tokenizer,
        tokens=3000,
        sources=[str(prose(path / "text"))],
        held_out=0.3,
    )
    config = HarvestConfig(context=64, dtype="fp32")
    rows = harvest(tiny_llama, corpus, [SITE], path / "rows", held_out=True, config=config)
    width = rows.width(SITE)
    dictionary = Dictionary(
        DictionaryConfig((SITE,), (SITE,), (width,), (width,), 2 * width, ReLU(), centre="none")
    )
    both = torch.cat([torch.eye(width), -torch.eye(width)])
    with torch.no_grad():
        dictionary.W_enc.copy_(both)
        dictionary.W_dec.copy_(both)
    return Arm("identity", "", "control", dictionary, tiny_llama, rows, corpus)


def made_up(texts: Sequence[str], labels: Sequence[bool]) -> LabelledSet:
    return LabelledSet("made up", list(texts), np.array(labels))


def test_a_class_that_the_last_token_gives_away_is_found(arm: Arm) -> None:
    draw = random.Random(1)
    labels = [draw.random() < 0.5 for _ in range(200)]
    texts = [
        f"{sentence(draw)} {n} " + ("sun" if label else "hills") for n, label in enumerate(labels)
    ]
    split = read_set(arm, made_up(texts, labels), EFFORT, 0)
    assert split.test.sum() == EFFORT.test
    assert (~split.test).sum() == EFFORT.train
    for part in (split.test, ~split.test):
        assert split.labels[part].mean() == 0.5
    found = {**probe_set(arm, split), **baselines(split)}
    assert found["raw_auc"] > 0.98
    assert found["difference_auc"] > 0.95
    assert found["auc_16"] > 0.95
    assert len(found["features"]) == max(KS)
    scores = {f"probing_{name}" for name in found if name != "features"}
    assert scores == {metric.name for metric in METRICS}


def test_classes_that_mean_nothing_are_not_found(arm: Arm) -> None:
    draw = random.Random(2)
    texts = [f"{sentence(draw)} {n}" for n in range(400)]
    labels = [draw.random() < 0.5 for _ in texts]
    split = read_set(arm, made_up(texts, labels), Effort(160, 160, 32), 0)
    found = {**probe_set(arm, split), **baselines(split)}
    for name in ("auc_1", "auc_16", "raw_auc", "difference_auc"):
        assert abs(found[name] - 0.5) < 0.15  # three standard errors of 80 against 80


def test_a_small_set_is_shared_between_training_and_test(arm: Arm) -> None:
    texts = [f"number {n}" for n in range(30)]
    split = read_set(arm, made_up(texts, [n < 10 for n in range(30)]), EFFORT, 0)
    assert split.labels.sum() == 10
    assert split.test.sum() == 10
    assert len(split.values) == 20


def test_activations_are_those_of_a_pass_of_each_text_alone(arm: Arm) -> None:
    model = arm.model
    documents = [model.tokenizer.encode(text) for text in ("one", "two or three", "four", "a b c")]
    alone = [
        read(model, torch.tensor([[model.tokenizer.bos, *ids]]), [SITE])[SITE][0, 1:]
        for ids in documents
    ]
    torch.testing.assert_close(all_activations(model, SITE, documents), torch.cat(alone))
    last = torch.stack([rows[-1] for rows in alone])
    torch.testing.assert_close(last_activations(model, SITE, documents), last)


def test_what_was_read_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMEME_CACHE", str(tmp_path))
    made = [0]

    def make() -> dict[str, torch.Tensor]:
        made[0] += 1
        return {"values": torch.full((2, 2), float(made[0]))}

    assert kept(["a"], make)["values"].tolist() == [[1, 1], [1, 1]]
    assert kept(["a"], make)["values"].tolist() == [[1, 1], [1, 1]]
    assert kept(["b"], make)["values"].tolist() == [[2, 2], [2, 2]]
