"""An atlas against what a plain loop over dense feature values finds."""

from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pytest
import torch

from sememe.activations.harvest import harvest
from sememe.activations.in_order import LiveRows
from sememe.activations.rules import HarvestConfig
from sememe.activations.store import Activations
from sememe.activations.stream import Stream
from sememe.atlas.describe import describe
from sememe.atlas.parts import describe_part, shards_of
from sememe.atlas.statistics import AFTER, BEFORE, INTERVALS, SAME_CONTEXT
from sememe.atlas.store import Atlas
from sememe.corpora.build import build_corpus
from sememe.corpora.corpus import Corpus
from sememe.dictionaries import ReLU
from sememe.dictionaries.dictionary import Dictionary
from sememe.dictionaries.objectives import L1, Reconstruction
from sememe.errors import SememeError, UsageError
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


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "int8"])
def test_a_live_model_is_read_as_a_store_of_it_is(
    dtype: Literal["fp32", "fp16", "int8"],
    described: Described,
    tmp_path: Path,
) -> None:
    model, corpus, dictionary = described.model, described.corpus, described.dictionary
    config = HarvestConfig(context=CONTEXT, dtype=dtype, shard_rows=3000, sink_multiple=1.2)
    stored = harvest(model, corpus, [SITE], tmp_path / "store", config=config)
    assert stored.manifest["left_out"]["sink"] > 0
    live = LiveRows(model, corpus, (SITE,), config)
    assert live.shards == stored.shards > 1
    for ours, theirs in zip(live.in_order(SITE, 700), stored.in_order(SITE, 700), strict=True):
        assert ours.start == theirs.start
        for mine, other in zip(ours[1:], theirs[1:], strict=True):
            assert torch.equal(mine, other)
    for rows, name in ((live, "live"), (stored, "stored")):
        describe(model, dictionary, rows, corpus, tmp_path / name)
    for file in ("features.sqlite", "columns.safetensors"):
        assert (tmp_path / "live" / file).read_bytes() == (tmp_path / "stored" / file).read_bytes()
    for name in ("tokens", "l0", "alive", "statuses", "clusters"):
        atlases = [Atlas.open(tmp_path / way) for way in ("live", "stored")]
        assert atlases[0].manifest[name] == atlases[1].manifest[name]


def test_a_live_model_is_described_on_its_own_corpus(described: Described, tmp_path: Path) -> None:
    text = prose(tmp_path / "text", documents=9)
    model = described.model
    other = build_corpus(tmp_path / "corpus", model.tokenizer, tokens=900, sources=[str(text)])
    rows = LiveRows(model, other, (SITE,), HarvestConfig(context=CONTEXT))
    with pytest.raises(SememeError, match="the live model was made from corpus"):
        describe(model, described.dictionary, rows, described.corpus, tmp_path / "atlas")


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
        assert page["mean_square"] == pytest.approx(float((fired**2).mean()), rel=1e-4)
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


def test_top_examples_are_the_strongest_of_windows_and_contexts(described: Described) -> None:
    position = described.stored.read("position", 0, described.stored.rows).numpy()
    place = described.stored.read("place", 0, described.stored.rows).numpy()
    window = place - position
    text = described.corpus.tokens(0, len(described.corpus))
    for feature in range(described.atlas.features):
        values = described.dense[:, feature]
        best: dict[int, int] = {}
        for row in np.nonzero(values)[0].tolist():
            other = best.setdefault(int(window[row]), row)
            if values[row] > values[other]:
                best[int(window[row])] = row
        strongest: dict[bytes, float] = {}
        for first, row in best.items():
            stop = int(place[row]) + 1
            context = text[max(first, stop - SAME_CONTEXT) : stop].tobytes()
            strongest[context] = max(strongest.get(context, 0.0), float(values[row]))
        shown = [example["value"] for example in described.atlas.feature(feature)["top"]]
        assert shown == pytest.approx(sorted(strongest.values(), reverse=True)[:20], abs=1e-3)


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
    tokenizer = described.model.tokenizer
    text = described.corpus.tokens(0, len(described.corpus))
    used = [
        token in text
        or tokenizer.encode(tokenizer.bytes_of[token].decode("utf-8", "replace")) == [token]
        for token in range(tokenizer.vocabulary)
    ]
    kept = np.flatnonzero(np.array(used) & ~np.isin(np.arange(len(used)), [*tokenizer.special]))
    assert len(kept) < len(used)
    module = described.model.module
    gain = module.model.norm.weight.double()
    effects = (rows * gain) @ module.lm_head.weight.double()[kept].T
    effects -= effects.median(dim=1, keepdim=True).values
    for feature in range(0, described.atlas.features, 7):
        page = described.atlas.feature(feature)
        cosine[feature, feature] = -2
        order = cosine[feature].argsort(descending=True)[:10].tolist()
        assert [number for number, _ in page["neighbours"]] == order
        for number, value in page["neighbours"]:
            assert value == pytest.approx(float(cosine[feature, number]), abs=1e-4)
        ranked = kept[effects[feature].argsort(descending=True).numpy()].tolist()
        assert [token for token, _ in page["promotes"]] == ranked[:12]
        assert [token for token, _ in page["suppresses"]] == ranked[::-1][:12]
        effect = dict(zip(kept.tolist(), effects[feature].tolist(), strict=True))
        for token, value in page["promotes"] + page["suppresses"]:
            assert value == pytest.approx(effect[token], abs=2e-4)
        edges = page["logits"]["edges"]
        assert edges[0] == pytest.approx(min(effect.values()), abs=2e-4)
        assert edges[-1] == pytest.approx(max(effect.values()), abs=2e-4)
        counts, _ = np.histogram([*effect.values()], bins=edges)
        # effects on an edge may fall to either side
        assert sum(page["logits"]["counts"]) == len(kept)
        assert np.abs(np.array(page["logits"]["counts"]) - counts).sum() <= 6


def test_tokens_before_and_after_are_counted_over_every_firing(described: Described) -> None:
    store = described.stored
    place, position = (store.read(name, 0, store.rows).numpy() for name in ("place", "position"))
    windows = described.corpus.windows(CONTEXT - 1, held_out=False)
    end = dict(zip(windows.start.tolist(), (windows.start + windows.length).tolist(), strict=True))
    text = described.corpus.tokens(0, len(described.corpus))
    for feature in range(0, described.atlas.features, 3):
        page = described.atlas.feature(feature)
        shares: dict[str, dict[int, float]] = {"tokens": {}, "before": {}, "after": {}}
        values = described.dense[:, feature]
        for row in np.flatnonzero(values):
            for name, step in (("tokens", 0), ("before", -1), ("after", 1)):
                first, at = int(place[row] - position[row]), int(place[row]) + step
                if first <= at < end[first]:
                    token = int(text[at])
                    share = float(values[row]) / float(values.sum(dtype=np.float64))
                    shares[name][token] = shares[name].get(token, 0.0) + share
        for name, expected in shares.items():
            best = sorted(expected.values(), reverse=True)[:8]
            assert [share for _, share in page[name]] == pytest.approx(best, abs=1e-4)
            for token, share in page[name]:
                assert share == pytest.approx(expected[token], abs=1e-4)
        assert page["token_share"] == pytest.approx(max(shares["tokens"].values(), default=0))


def test_cofiring_is_the_jaccard_index_of_the_tokens(described: Described) -> None:
    fires = (described.dense > 0).astype(np.int64)
    both = fires.T @ fires
    count = both.diagonal()
    with np.errstate(invalid="ignore"):
        jaccard = both / (count[:, None] + count - both)
    jaccard[(both < 2) | np.eye(len(both), dtype=bool)] = 0
    for feature in np.flatnonzero(count):
        shown = described.atlas.feature(int(feature))["cofiring"]
        best = np.sort(jaccard[feature])[::-1][:10]
        # of features that fire often 512 firings are looked at
        error = 1e-4 if count[feature] <= 512 else 0.1
        assert [index for _, index in shown] == pytest.approx(best[best > 0], abs=error)
        for other, index in shown:
            assert index == pytest.approx(jaccard[feature, other], abs=error)


def test_correlated_neurons_against_numpy(described: Described) -> None:
    rows = described.stored.read(SITE, 0, described.stored.rows).numpy().astype(np.float64)
    width = rows.shape[1]
    with np.errstate(invalid="ignore"):  # dead features
        expected = np.corrcoef(described.dense.astype(np.float64), rows, rowvar=False)[:96, 96:]
    for feature in np.flatnonzero(described.dense.any(axis=0)):
        shown = described.atlas.feature(int(feature))["correlated"]
        best = np.sort(np.abs(expected[feature]))[::-1][: min(10, width)]
        assert [abs(value) for _, value in shown] == pytest.approx(best, abs=2e-3)
        for neuron, value in shown:
            assert value == pytest.approx(expected[feature, neuron], abs=2e-3)


def test_what_the_weights_say_against_numpy(described: Described) -> None:
    decoder = described.dictionary.W_dec.detach().double().numpy()
    encoder = described.dictionary.W_enc.detach().double().numpy()
    norm = np.linalg.norm(decoder, axis=1)
    cosine = (encoder * decoder).sum(axis=1) / norm / np.linalg.norm(encoder, axis=1)
    spread = (decoder**2).sum(axis=1) ** 2 / (decoder**4).sum(axis=1) / decoder.shape[1]
    columns = described.atlas.columns
    np.testing.assert_allclose(columns["norm"], norm, rtol=1e-5)
    np.testing.assert_allclose(columns["alignment"], cosine, atol=1e-5)
    np.testing.assert_allclose(columns["neurons"], spread, rtol=1e-4)
    for feature in range(0, described.atlas.features, 9):
        row = decoder[feature] / norm[feature]
        best = np.argsort(-np.abs(row))[:10]
        page = described.atlas.feature(feature)
        assert [neuron for neuron, _ in page["basis"]] == best.tolist()
        assert [weight for _, weight in page["basis"]] == pytest.approx(row[best], abs=1e-4)
        assert page["norm"] == pytest.approx(norm[feature], rel=1e-5)


def test_columns_say_what_pages_say(described: Described) -> None:
    columns = described.atlas.columns
    sources = described.atlas.manifest["sources"]
    for feature in range(described.atlas.features):
        page = described.atlas.feature(feature)
        for name in ("mean_square", "norm", "alignment", "neurons", "token_share"):
            assert columns[name][feature] == pytest.approx(page[name])
        if page["count"]:
            label, share = page["sources"][0]
            assert sources[columns["source"][feature]] == label
            assert columns["source_share"][feature] == pytest.approx(share, abs=1e-4)
        else:
            assert columns["source"][feature] == -1
            assert np.isnan(columns["x"][feature])
    assert np.isfinite(columns["x"]).sum() == described.atlas.manifest["alive"]


def test_inactive_text_is_silent(described: Described) -> None:
    place = described.stored.read("place", 0, described.stored.rows).numpy()
    row_of = {int(p): row for row, p in enumerate(place)}
    shown = 0
    for feature in range(described.atlas.features):
        page = described.atlas.feature(feature)
        for example in page["inactive"]:
            start = int(described.corpus.start[example["document"]]) + example["position"]
            stop = start + len(example["tokens"])
            assert example["tokens"] == described.corpus.tokens(start, stop).tolist()
            assert not any(example["values"])
            rows = [row_of[p] for p in range(start, stop) if p in row_of]
            assert not described.dense[rows, feature].any()
            shown += 1
    assert shown


def test_no_list_shows_a_context_twice(described: Described) -> None:
    for feature in range(described.atlas.features):
        page = described.atlas.feature(feature)
        for shown in [page["top"], *(interval["examples"] for interval in page["intervals"])]:
            contexts = [
                tuple(e["tokens"][max(0, e["centre"] - SAME_CONTEXT + 1) : e["centre"] + 1])
                for e in shown
            ]
            assert len(set(contexts)) == len(contexts)


def test_parts_made_apart_give_the_same_bytes(tmp_path: Path, described: Described) -> None:
    parts = (range(2, described.stored.shards), range(2))
    for shards in parts:
        describe_part(described.dictionary, described.stored, tmp_path / "parts", shards)
    begun = [path.stat().st_mtime_ns for path in (tmp_path / "parts").glob("*.safetensors")]
    assert len(begun) == described.stored.shards + len(parts)
    describe(described.model, described.dictionary, described.stored, described.corpus, tmp_path)
    for name in ("features.sqlite", "columns.safetensors", "manifest.json"):
        assert (tmp_path / name).read_bytes() == (described.atlas.path / name).read_bytes()
    assert not (tmp_path / "parts").exists()


def test_a_damaged_shard_of_a_killed_part_is_made_again(
    tmp_path: Path, described: Described
) -> None:
    describe_part(described.dictionary, described.stored, tmp_path / "parts", range(2))
    (sums,) = (tmp_path / "parts").glob("sums*")
    sums.unlink()
    firings = tmp_path / "parts/firings-00001.safetensors"
    firings.write_bytes(firings.read_bytes()[:-8])
    describe(described.model, described.dictionary, described.stored, described.corpus, tmp_path)
    for name in ("features.sqlite", "columns.safetensors"):
        assert (tmp_path / name).read_bytes() == (described.atlas.path / name).read_bytes()


def test_parts_of_another_store_are_refused(tmp_path: Path, described: Described) -> None:
    describe_part(described.dictionary, described.stored, tmp_path / "parts", range(1))
    other = Dictionary(described.dictionary.config)
    other.save(tmp_path / "other", made_from={})
    with pytest.raises(SememeError, match="dictionary="):
        describe_part(other, described.stored, tmp_path / "parts", range(1, 2))


@pytest.mark.parametrize("shards", [range(0), range(1, 99), range(-1, 1)])
def test_shards_that_are_not_there_are_refused(
    tmp_path: Path, described: Described, shards: range
) -> None:
    with pytest.raises(UsageError, match="shards"):
        describe_part(described.dictionary, described.stored, tmp_path / "parts", shards)


def test_a_dictionary_described_beside_itself_lies_where_it_lay(
    tmp_path: Path, described: Described
) -> None:
    """Its nearest row is its own; two others weigh a little."""
    atlas = describe(
        described.model,
        described.dictionary,
        described.stored,
        described.corpus,
        tmp_path,
        beside=(described.atlas, described.dictionary),
    )
    assert atlas.manifest["made_from"]["map"] == described.atlas.manifest["hash"]
    for axis in ("x", "y"):
        old, new = described.atlas.columns[axis], atlas.columns[axis]
        np.testing.assert_array_equal(np.isnan(old), np.isnan(new))
        assert np.corrcoef(old[~np.isnan(old)], new[~np.isnan(new)])[0, 1] > 0.8
        np.testing.assert_array_equal(atlas.other.columns[axis], old)
    assert atlas.other.name == described.atlas.path.parent.name
    np.testing.assert_array_equal(atlas.other.columns["tokens"], described.atlas.columns["tokens"])
    fires = described.atlas.columns["frequency"] > 0
    own = np.arange(len(fires))
    np.testing.assert_array_equal(atlas.columns["other"], np.where(fires, own, -1))
    np.testing.assert_allclose(atlas.columns["other_cosine"][fires], 1.0, atol=1e-5)
    assert np.isnan(atlas.columns["other_cosine"][~fires]).all()
    assert Atlas.open(tmp_path).other.features == atlas.features
    (tmp_path / "other.safetensors").write_bytes(b"")
    with pytest.raises(SememeError, match=r"other\.safetensors"):
        Atlas.open(tmp_path)


def test_a_map_of_another_dictionary_is_refused(tmp_path: Path, described: Described) -> None:
    other = Dictionary(described.dictionary.config)
    other.save(tmp_path / "other", made_from={})
    with pytest.raises(SememeError, match="use the parts of one run"):
        describe(
            described.model,
            described.dictionary,
            described.stored,
            described.corpus,
            tmp_path / "atlas",
            beside=(described.atlas, other),
        )


@pytest.mark.parametrize(
    ("part", "expected"),
    [("1/3", range(3)), ("2/3", range(3, 6)), ("3/3", range(6, 10)), ("1/1", range(10))],
)
def test_parts_of_a_store_are_all_its_shards(part: str, expected: range) -> None:
    assert shards_of(part, 10) == expected


@pytest.mark.parametrize("part", ["0/3", "4/3", "1/11", "1", "a/b", "/", "-1/2", "1/2/3"])
def test_parts_that_are_none_are_refused(part: str) -> None:
    with pytest.raises(UsageError, match="expected i/n"):
        shards_of(part, 10)


def test_a_dictionary_of_another_model_is_refused(tmp_path: Path, described: Described) -> None:
    described.dictionary.save(tmp_path / "other", made_from={"model": "0123"})
    other = Dictionary.load(tmp_path / "other")
    with pytest.raises(UsageError, match="0123"):
        describe(described.model, other, described.stored, described.corpus, tmp_path / "atlas")
    assert not (tmp_path / "atlas").exists()
