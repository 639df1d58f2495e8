"""An atlas against what a plain loop over dense feature values finds."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from sememe.activations.harvest import harvest
from sememe.activations.rules import HarvestConfig
from sememe.activations.store import Activations
from sememe.activations.stream import Stream
from sememe.atlas.describe import describe
from sememe.atlas.examples import AFTER, BEFORE
from sememe.atlas.statistics import INTERVALS, Codes, FirstLook, SecondLook
from sememe.atlas.store import Atlas
from sememe.corpora.build import build_corpus
from sememe.corpora.corpus import Corpus
from sememe.dictionaries import ReLU
from sememe.dictionaries.dictionary import Dictionary
from sememe.dictionaries.objectives import L1, Reconstruction
from sememe.errors import UsageError
from sememe.models.load import LanguageModel
from sememe.training import TrainConfig, recipes
from sememe.training.loop import train
from tests.prose import prose

SITE = "layers.1.resid"
CONTEXT = 64


class Described(NamedTuple):
    model: LanguageModel
    corpus: Corpus
    stored: Activations
    dictionary: Dictionary
    atlas: Atlas
    dense: np.ndarray
    """(rows, features) every feature value."""


CONFIGS = {
    "topk": recipes.make("sememe", features=96, k=8, passes=3),
    "relu": TrainConfig(
        features=96, nonlinearity=ReLU(), objective=(Reconstruction(), L1(0.5)), passes=3
    ),
    "batchtopk": recipes.make("batchtopk", features=96, k=8, passes=3),
}


@pytest.fixture(scope="module", params=sorted(CONFIGS))
def described(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    tiny_llama: LanguageModel,
) -> Described:
    path = tmp_path_factory.mktemp("described")
    text = prose(path / "text", documents=80)
    corpus = build_corpus(
        path / "corpus", tiny_llama.tokenizer, tokens=8000, sources=[str(text)], held_out=0.1
    )
    config = HarvestConfig(context=CONTEXT, dtype="fp32", shard_rows=2000)
    stored = harvest(tiny_llama, corpus, [SITE], path / "store", config=config)
    assert stored.shards > 2
    dictionary = train(
        Stream(stored, (SITE,)),
        replace(CONFIGS[request.param], batch=256),
        path / "dictionary",
        made_from={"model": tiny_llama.hash},
    )
    atlas = describe(tiny_llama, dictionary, stored, corpus, path / "atlas")
    rows = stored.read(SITE, 0, stored.rows)
    dense = np.zeros((len(rows), 96), np.float32)
    with torch.no_grad():
        code = dictionary.encode(rows)
    for row in range(len(rows)):
        for feature, value in zip(
            code.indices[row].tolist(), code.values[row].tolist(), strict=True
        ):
            if value > 0:
                dense[row, feature] = value
    return Described(tiny_llama, corpus, stored, dictionary, atlas, dense)


def test_statistics_are_those_of_a_plain_loop(described: Described) -> None:
    rows = len(described.dense)
    sources = described.corpus.source[described.stored.read("document", 0, rows).numpy()]
    assert described.atlas.manifest["tokens"] == rows
    for feature in range(described.atlas.features):
        page = described.atlas.feature(feature)
        values = described.dense[:, feature]
        fired = values[values > 0]
        assert page["count"] == len(fired)
        assert page["frequency"] == pytest.approx(len(fired) / rows)
        if not len(fired):
            assert page["status"] == "dead"
            assert page["top"] == []
            continue
        assert page["mean"] == pytest.approx(float(fired.mean()), rel=1e-4)
        assert page["maximum"] == pytest.approx(float(fired.max()), rel=1e-5)
        assert page["status"] == ("dense" if len(fired) / rows > 0.1 else "alive")
        counts, _ = np.histogram(
            fired, bins=len(page["histogram"]["counts"]), range=(0, fired.max())
        )
        # values on an edge may fall to either side
        assert np.abs(np.array(page["histogram"]["counts"]) - counts).sum() <= 2
        assert sum(interval["count"] for interval in page["intervals"]) == len(fired)
        by_source = {
            described.corpus.sources[number]: (values[sources == number] > 0).sum() / len(fired)
            for number in np.unique(sources)
        }
        for label, share in page["sources"]:
            assert share == pytest.approx(by_source[label], abs=1e-4)


def test_examples_show_the_features_values_on_the_models_own_text(described: Described) -> None:
    place = described.stored.read("place", 0, described.stored.rows).numpy()
    row_of = {int(p): row for row, p in enumerate(place)}
    windows = described.corpus.windows(CONTEXT - 1, held_out=False)
    for feature in range(0, described.atlas.features, 5):
        page = described.atlas.feature(feature)
        samples = [e for interval in page["intervals"] for e in interval["examples"]]
        for example in page["top"] + samples:
            start = int(described.corpus.start[example["document"]]) + example["position"]
            stop = start + len(example["tokens"])
            assert example["tokens"] == described.corpus.tokens(start, stop).tolist()
            centre = start + example["centre"]
            window = int(np.searchsorted(windows.start, centre, side="right") - 1)
            low = int(windows.start[window])
            high = low + int(windows.length[window])
            assert start == max(low, centre - BEFORE)
            assert stop == min(high, centre + AFTER + 1)
            expected = [
                float(described.dense[row_of[p], feature]) if p in row_of else 0.0
                for p in range(start, stop)
            ]
            assert example["values"] == pytest.approx(expected, abs=1e-3)
            assert example["value"] == pytest.approx(expected[example["centre"]], abs=1e-3)


def test_top_examples_are_the_strongest_of_different_windows(described: Described) -> None:
    position = described.stored.read("position", 0, described.stored.rows).numpy()
    window = described.stored.read("place", 0, described.stored.rows).numpy() - position
    for feature in range(described.atlas.features):
        page = described.atlas.feature(feature)
        values = described.dense[:, feature]
        if not page["top"]:
            continue
        best: dict[int, float] = {}
        for row in np.nonzero(values)[0]:
            best[int(window[row])] = max(best.get(int(window[row]), 0.0), float(values[row]))
        strongest = sorted(best.values(), reverse=True)
        shown = [example["value"] for example in page["top"]]
        assert shown == sorted(shown, reverse=True)
        assert shown[0] == pytest.approx(strongest[0], abs=1e-3)
        assert len(shown) <= 20
        # copies of a context are shown once, so the list may skip some, never add any
        assert all(any(abs(value - other) < 1e-3 for other in strongest[:32]) for value in shown)


def test_interval_examples_lie_in_their_intervals(described: Described) -> None:
    for feature in range(described.atlas.features):
        page = described.atlas.feature(feature)
        if page["count"]:
            assert len(page["intervals"]) == INTERVALS
        for interval in page["intervals"]:
            assert len(interval["examples"]) <= min(5, interval["count"])
            assert bool(interval["examples"]) == bool(interval["count"])
            for example in interval["examples"]:
                assert interval["low"] - 2e-3 <= example["value"] <= interval["high"] + 2e-3


def test_neighbours_and_logit_effects_against_float64(described: Described) -> None:
    rows = described.dictionary.W_dec.detach().double()
    rows = rows / rows.norm(dim=1, keepdim=True)
    cosine = rows @ rows.T
    module = described.model.module
    gain = module.model.norm.weight.double()
    effects = (rows * gain) @ module.lm_head.weight.double().T
    effects -= effects.median(dim=1, keepdim=True).values
    for feature in range(0, described.atlas.features, 7):
        page = described.atlas.feature(feature)
        cosine[feature, feature] = -2
        order = cosine[feature].argsort(descending=True)[:10].tolist()
        assert [number for number, _ in page["neighbours"]] == order
        for number, value in page["neighbours"]:
            assert value == pytest.approx(float(cosine[feature, number]), abs=1e-4)
        effects[feature, sorted(described.model.tokenizer.special)] = 0
        ranked = effects[feature].argsort(descending=True).tolist()
        assert [token for token, _ in page["promotes"]] == ranked[:12]
        assert [token for token, _ in page["suppresses"]] == ranked[::-1][:12]
        for token, value in page["promotes"] + page["suppresses"]:
            assert value == pytest.approx(float(effects[feature, token]), abs=2e-4)


def test_the_same_looks_whatever_the_split() -> None:
    draw = np.random.default_rng(0)
    rows, k, features = 600, 4, 20
    indices = np.argsort(draw.random((rows, features)), axis=1)[:, :k].astype(np.int32)
    values = np.maximum(draw.normal(size=(rows, k)), 0).astype(np.float32)
    place = np.sort(draw.choice(10 * rows, rows, replace=False))
    source = draw.integers(0, 3, rows).astype(np.int16)

    def looks(cuts: list[int]) -> tuple[FirstLook, SecondLook]:
        bounds = [0, *cuts, rows]
        parts = [
            Codes(indices[a:b], values[a:b], a, place[a:b], place[a:b] // 60 * 60, source[a:b])
            for a, b in itertools.pairwise(bounds)
        ]
        first = FirstLook.empty(features, 3)
        for part in parts:
            first.add(part)
        second = SecondLook.empty(first.maximum)
        for part in parts:
            second.add(part)
        return first, second

    whole, split = looks([]), looks([7, 100, 451])
    for a, b in zip([*whole[0], *whole[1]], [*split[0], *split[1]], strict=True):
        np.testing.assert_array_equal(a, b)


def test_samples_of_an_interval_are_uniform() -> None:
    """Rows of one feature, all in the top interval: each is kept with probability 8 / 40."""
    kept = np.zeros(40)
    for trial in range(400):
        place = np.arange(40) + 1000 * trial
        one = np.ones((40, 1), np.float32)
        codes = Codes(np.zeros((40, 1), np.int32), one, 0, place, place, np.zeros(40, np.int16))
        look = SecondLook.empty(np.ones(1, np.float32))
        look.add(codes)
        rows = look.row[0, INTERVALS - 1]
        assert len(set(rows.tolist())) == 8
        kept[rows] += 1
    expected = 400 * 8 / 40
    chi_square = float(((kept - expected) ** 2 / expected).sum())
    assert chi_square < 75  # 39 degrees of freedom: beyond this once in 2,000 draws


def test_a_dictionary_of_another_model_is_refused(tmp_path: Path, described: Described) -> None:
    described.dictionary.save(tmp_path / "other", made_from={"model": "0123"})
    other = Dictionary.load(tmp_path / "other")
    with pytest.raises(UsageError, match="0123"):
        describe(described.model, other, described.stored, described.corpus, tmp_path / "atlas")
    assert not (tmp_path / "atlas").exists()
