"""Searches beside an atlas, against plain loops over its pages."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from sememe.atlas.index import (
    AROUND,
    SHOWN,
    by_neuron,
    index,
    index_meanings,
    meanings,
    text_of,
    tokens_of,
)
from sememe.atlas.labels import RANKED, Labels
from sememe.atlas.query import Finder, Query
from sememe.atlas.search import NEAR, Search, nearest
from sememe.atlas.store import Atlas
from sememe.errors import SememeError
from tests.web.small_atlas import FEATURES, NEURONS, small_atlas


def encode(sentences: Sequence[str]) -> np.ndarray:
    """Stand for MiniLM: counts of letters, at length 1."""
    counts = [
        [text.lower().count(letter) for letter in map(chr, range(32, 128))] for text in sentences
    ]
    vectors = np.array(counts, np.float32) + 1e-3
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("beside")
    atlas = small_atlas(path / "atlas")
    index(atlas, path / "index")
    index_meanings(atlas, path / "meanings", encode)
    labels = Labels(path / "labels.sqlite")
    labels.put([(3, "boats and other ships"), (8, "the word the"), (9, "ships at sea")])
    labels.put([(3, "boats, large ones")])
    labels.close()
    return path


@pytest.fixture(scope="module")
def search(beside: Path) -> Search:
    return Search(Atlas.open(beside / "atlas"), beside, encoder=lambda: encode)


def test_words_are_found_where_examples_have_them(search: Search) -> None:
    texts = [text_of(search.atlas, search.atlas.summary(number)) for number in range(FEATURES)]
    for word in ("harbour", "The", "boats", "1719"):
        found = set(search.ranked["example"](word).numbers.tolist())
        expected = {
            number
            for number, text in enumerate(texts)
            if word.lower() in "".join(c if c.isalnum() else " " for c in text.lower()).split()
        }
        assert found == expected
        assert found
    both = set(search.ranked["example"]("harbour lamp").numbers.tolist())
    assert both <= set(search.ranked["example"]("lamp").numbers.tolist())
    assert len(search.ranked["example"]("zzzz").numbers) == 0


@pytest.mark.parametrize("text", ['"', "*", "NEAR(", "a OR b", "text:", "\x00", "😀", "' --", "-"])
def test_no_text_breaks_a_search_for_words(search: Search, text: str) -> None:
    assert not search.ranked["example"](text).more
    assert not search.ranked["label"](text).more


def test_labels_are_found_by_every_word_and_replaced(search: Search) -> None:
    assert search.label(3) == "boats, large ones"
    assert search.label(4) is None
    assert search.ranked["label"]("ships").numbers.tolist() == [9]
    assert search.ranked["label"]("sea SHIPS").numbers.tolist() == [9]
    assert search.ranked["label"]("ships boats").numbers.tolist() == []
    found = Finder(search.atlas, search.ranked).find(
        Query(search="the", by="label", sort="relevance")
    )
    assert found.numbers.tolist() == [8]


def test_of_a_common_word_only_the_first_are_given(tmp_path: Path) -> None:
    labels = Labels(tmp_path / "labels.sqlite")
    labels.put((number, "the " * (number % 7 + 1)) for number in range(RANKED + 10))
    found = labels.search("the")
    assert (len(found.numbers), found.more) == (RANKED, True)
    labels.close()


def test_the_nearest_meanings_are_those_of_the_whole_vectors() -> None:
    rng = np.random.default_rng(0)
    middles = rng.normal(size=(40, 384))
    vectors = (middles[rng.integers(40, size=6000)] + rng.normal(size=(6000, 384))).astype(
        np.float32
    )
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    made = meanings(vectors)
    for number in (0, 17, 999):
        query = vectors[number] + 0.02 * rng.normal(size=384).astype(np.float32)
        query /= np.linalg.norm(query)
        found = nearest(made, made["tail"].__getitem__, query)
        assert found.numbers[0] == number
        exact = np.argsort(-(vectors @ query))
        assert len(found.numbers) == NEAR
        assert len(set(found.numbers[:20].tolist()) & set(exact[:20].tolist())) >= 18


def test_meanings_lie_between_examples_and_tokens(search: Search) -> None:
    atlas = search.atlas
    texts = [text_of(atlas, atlas.summary(number)) for number in range(FEATURES)]
    vectors = encode(texts)
    for number in range(FEATURES):
        if tokens := tokens_of(atlas, number):
            vectors[number] += encode([tokens])[0]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for query in (texts[1], tokens_of(atlas, 12), "harbour"):
        found = search.ranked["meaning"](query).numbers
        assert sorted(found.tolist()) == list(range(FEATURES))
        cosines = vectors[found] @ encode([query])[0]
        assert np.all(np.diff(cosines) < 0.02)  # int8


def test_tokens_are_written_as_words(search: Search) -> None:
    ids = search.atlas.columns["tokens"][1]
    words = [search.atlas.vocabulary[token].decode().strip() for token in ids if token >= 0]
    assert tokens_of(search.atlas, 1).split(", ") == words
    assert tokens_of(search.atlas, FEATURES - 1) == ""


def test_the_features_of_a_neuron_are_those_whose_pages_name_it(search: Search) -> None:
    assert search.neurons == NEURONS
    for neuron in range(NEURONS):
        expected = {
            page["feature"]: weight
            for page in map(search.atlas.summary, range(FEATURES))
            for place, weight in page["basis"]
            if place == neuron
        }
        found = search.writers(neuron)
        shown = dict(zip(found.feature.tolist(), found.weight.tolist(), strict=True))
        assert shown == pytest.approx(expected)
        assert np.all(np.diff(np.abs(found.weight)) <= 0)


def test_a_dictionary_without_neurons_has_none() -> None:
    empty = np.zeros(0, np.int32)
    assert by_neuron(empty, empty, np.zeros(0, np.float32))["start"].tolist() == [0]


def test_texts_are_the_middles_of_the_strongest_examples(search: Search) -> None:
    page = search.atlas.summary(1)
    lines = text_of(search.atlas, page).split("\n")
    assert len(lines) == min(SHOWN, len(page["top"]))
    assert all("harbour" in line for line in lines)
    assert all(len(line.split()) <= 2 * AROUND + 1 for line in lines)


def test_an_index_of_another_atlas_is_refused(beside: Path, tmp_path: Path) -> None:
    manifest = (beside / "index/manifest.json").read_text()
    other = small_atlas(tmp_path / "atlas")
    assert other.manifest["hash"] in manifest  # the same atlas has the same hash
    object.__setattr__(other, "manifest", {**other.manifest, "hash": "another"})
    with pytest.raises(SememeError, match="was made from atlas"):
        Search(other, beside)
