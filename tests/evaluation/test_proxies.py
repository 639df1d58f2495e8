"""Proxies beside their definition by brute force, and features that follow one exactly."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch

from sememe.activations.harvest import harvest
from sememe.activations.rules import HarvestConfig
from sememe.corpora.build import build_corpus
from sememe.dictionaries.config import DictionaryConfig
from sememe.dictionaries.dictionary import Dictionary
from sememe.dictionaries.nonlinearities import ReLU
from sememe.evaluation.arms import Arm
from sememe.evaluation.contexts import (
    CONTEXTS,
    LEAK,
    Alphabet,
    Sample,
    Script,
    Text,
    TokenShares,
    largest_ending,
)
from sememe.evaluation.proxies import (
    Stage,
    best_feature,
    by_interval,
    correlation,
    every_other,
    follow,
    measure,
)
from sememe.evaluation.sections import Settings
from sememe.models.load import LanguageModel
from sememe.progress import Progress
from tests.prose import prose

CYRILLIC = Script(((0x400, 0x52F),))


class Shares(Sample):
    """A sample of text with known shares."""

    def __init__(self, text: Text, bytes_of: list[bytes], own: list[float] | None = None) -> None:
        self.text, self.bytes_of, self.own = text, bytes_of, own
        counts = np.bincount(text.ids, minlength=len(bytes_of)) + 1.0
        self.log_share = np.log(counts / counts.sum())

    def share_in(self, source: str) -> tuple[np.ndarray, float]:
        return np.array(self.own), 0.25


def text_of(documents: list[list[int]], bytes_of: list[bytes]) -> Text:
    return Text([np.array(ids) for ids in documents], bytes_of)


@pytest.mark.parametrize("least", [1, 2, 3])
def test_the_best_string_is_that_of_brute_force(least: int) -> None:
    scores = np.random.default_rng(least).normal(-0.2, 1, 40)
    begins = np.array([0, 1, 3, 20])
    expected = []
    for place in range(40):
        begin = max(b for b in begins if b <= place)
        sums = [scores[first : place + 1].sum() for first in range(begin, place + 2 - least)]
        expected.append(max(sums, default=-math.inf))
    np.testing.assert_allclose(largest_ending(scores, begins, least), expected)


def test_an_alphabet_is_as_likely_as_its_characters() -> None:
    bytes_of = [b"A", b"TC", b"x", b" G", b"AAA"]
    documents = [[0, 1, 2, 4], [3, 1]]
    text = text_of(documents, bytes_of)
    sample = Shares(text, bytes_of)
    found = Alphabet("ATCG").log_ratio(text, sample)
    place = 0
    for ids in documents:
        for stop in range(1, len(ids) + 1):
            ratios = []
            for first in range(stop):
                string = ids[first:stop]
                characters = b"".join(bytes_of[token] for token in string)
                inside = math.prod(0.25 if c in b"ATCG" else 1e-10 for c in characters)
                anywhere = math.prod(math.exp(sample.log_share[token]) for token in string)
                ratios.append(math.log(inside / anywhere))
            assert found[place] == pytest.approx(max(ratios))
            place += 1


def test_a_script_is_known_by_its_characters() -> None:
    """Half of a character counts by the share of its occurrences that are in the script."""
    bytes_of = [b"the", " д".encode(), b"\xd0", b"\xb4", b"\xc2", "ши".encode(), b" ", b"\xb5"]
    # д = D0 B4 is Cyrillic; C2 B4 and C2 B5 are signs of Latin-1; B4 occurs in both
    documents = [[0, 1, 5, 6], [2, 3, 4, 3, 2, 7], [0, 0]]
    text = text_of(documents, bytes_of)
    found = CYRILLIC.log_ratio(text, Shares(text, bytes_of))
    script = 6 / 12  # " д", "ши", D0 B4, D0 B5
    never, always = math.log(1e-10 / script), math.log(1 / script)
    expected = [never, always, always, never, always, always, never, never, always, always]
    np.testing.assert_allclose(found, [*expected, never, never])


def test_a_half_character_that_says_little_has_a_share() -> None:
    """The first byte of two scripts, D8, is Arabic or what follows it makes of it."""
    bytes_of = [b"\xd2", b"\x91", b"\xbe", b"a"]  # D2 91 is Cyrillic, D2 BE (U+04BE) too
    latin = Script(((0x490, 0x491),))
    text = text_of([[0, 1, 0, 2, 0, 2, 3]], bytes_of)
    found = latin.log_ratio(text, Shares(text, bytes_of))
    # one of the three occurrences of D2 is in U+0490 to U+0491; two tokens of seven are
    assert found[0] == pytest.approx(math.log((1 / 3) / (2 / 7)))
    assert found[1] == pytest.approx(math.log(1 / (2 / 7)))
    assert found[2] == found[0]
    assert found[3] == pytest.approx(math.log(1e-10 / (2 / 7)))


def test_a_source_is_as_likely_as_its_tokens() -> None:
    bytes_of = [b"GET", b"x"]
    text = text_of([[0, 0, 1, 0]], bytes_of)
    sample = Shares(text, bytes_of, own=[1.0, 0.0])
    everywhere = np.exp(sample.log_share)
    get = math.log(((1 - LEAK) + LEAK * everywhere[0]) / everywhere[0])
    found = TokenShares("http").log_ratio(text, sample)
    expected = np.array([get, 2 * get, 2 * get + math.log(LEAK), get])
    np.testing.assert_allclose(found, expected + math.log(0.25))


def test_correlation_is_pearsons() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(2, 1, 500), generator.normal(0, 1, 500)
    y += 0.5 * x
    sums = (np.ones(500), x, y, x**2, y**2, x * y)
    found = correlation(*(np.array([part.sum()]) for part in sums))
    assert found[0] == pytest.approx(np.corrcoef(x, y)[0, 1])
    with np.errstate(divide="ignore", invalid="ignore"):
        flat = correlation(*(np.array([part]) for part in (10.0, 3.0, 1.0, 0.9, 1.0, 0.3)))
    assert not np.isfinite(flat[0])


def test_intervals_are_equal_parts_of_the_range() -> None:
    value = np.array([0, 0.5, 1.0, 1.5, 11.0, 10.5])
    found = by_interval(value, np.array([True, True, False, True, True, True]))
    assert [(part["rows"], part["share"]) for part in found[:3]] == [(2, 0.5), (1, 1.0), (0, None)]
    assert found[-1] == {"from": 10.0, "to": 11.0, "rows": 2, "share": 1.0}


def made_up_stage(follows: int) -> tuple[Stage, np.ndarray]:
    """40 documents of 10 rows, whose odd ones are the context; feature ``follows`` is its proxy."""
    generator = np.random.default_rng(0)
    document = np.repeat(np.arange(40), 10)
    source = ["arabic" if n % 2 else "brown" for n in range(40)]
    proxy = np.where(document % 2 == 1, generator.random(400) + 1, 0)
    dense = np.where(generator.random((400, 20)) < 0.2, generator.random((400, 20)), 0)
    dense[:, follows] = 3 * proxy
    text = text_of([[0] * 10] * 40, [b"a"])
    matrix = scipy.sparse.csr_array(dense)
    return Stage(matrix, text, np.arange(400), document, source, every_other(source)), proxy


def test_a_feature_that_is_the_proxy_is_found_and_exact() -> None:
    stage, proxy = made_up_stage(7)
    found = follow(stage, proxy, CONTEXTS[0])
    assert found.details["feature"] == 7
    assert found.details["tokens"] == 100
    assert found.details["in_source"] == 1.0
    for estimate in (found.pearson, found.specificity, found.sensitivity):
        assert estimate.value == pytest.approx(1.0)
        assert estimate.interval == (pytest.approx(1.0), pytest.approx(1.0))


def test_the_choice_and_the_figure_come_from_different_documents() -> None:
    stage, proxy = made_up_stage(7)
    dense = stage.matrix.toarray()
    measured = stage.measures[stage.document]
    dense[measured, 7] = 0  # right where features are chosen, silent where they are measured
    lying = stage._replace(matrix=scipy.sparse.csr_array(dense))
    assert best_feature(lying.matrix, proxy, ~measured) == 7
    found = follow(lying, proxy, CONTEXTS[0])
    assert found.sensitivity.value == 0
    assert not np.isfinite(found.pearson.value)


def test_the_best_feature_is_that_of_numpy() -> None:
    generator = np.random.default_rng(3)
    dense = np.maximum(generator.normal(size=(300, 12)), 0)
    dense[:, 4] = 0
    proxy = np.maximum(generator.normal(size=300) + 0.3 * dense[:, 9], 0)
    rows = generator.random(300) < 0.5
    by_numpy = [
        np.corrcoef(column[rows], proxy[rows])[0, 1] if column.any() else -1 for column in dense.T
    ]
    found = best_feature(scipy.sparse.csr_array(dense), proxy, rows)
    assert found == int(np.argmax(by_numpy))


WORDS = ["море", "было", "спокойно", "и", "корабль", "шёл", "дальше", "над", "холмом", "реки"]


def russian(path: Path) -> Path:
    generator = np.random.default_rng(5)
    path.mkdir(parents=True)
    for number in range(40):
        words = generator.choice(WORDS, 60)
        (path / f"{number}.txt").write_text(" ".join(words))
    return path


def test_a_reading_of_the_script_is_found_on_a_model(
    tmp_path: Path, tiny_llama: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Feature 5 is the least-squares reading of Cyrillic from the activation."""
    monkeypatch.setenv("SEMEME_CACHE", str(tmp_path / "cache"))
    site = "layers.0.resid"
    corpus = build_corpus(
        tmp_path / "corpus",
        tiny_llama.tokenizer,
        tokens=40_000,
        sources=[f"{prose(tmp_path / 'text')}=prose", f"{russian(tmp_path / 'ru')}=russian"],
        held_out=0.4,
    )
    config = HarvestConfig(context=64, dtype="fp32")
    rows = harvest(tiny_llama, corpus, [site], tmp_path / "rows", held_out=True, config=config)
    x = rows.read(site, 0, rows.rows).double()
    source = corpus.source[rows.read("document", 0, rows.rows).numpy()]
    cyrillic = torch.from_numpy(source == corpus.sources.index("russian")).double()
    design = torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], 1)
    weights = torch.linalg.lstsq(design, cyrillic[:, None]).solution[:, 0].float()
    width = rows.width(site)
    dictionary = Dictionary(
        DictionaryConfig((site,), (site,), (width,), (width,), 16, ReLU(), centre="none")
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        dictionary.W_enc.copy_(torch.randn(16, width, generator=generator))
        dictionary.W_enc[5] = weights[:-1]
        dictionary.b_enc[5] = weights[-1] - 0.2
    arm = Arm("made up", "", "subject", dictionary, tiny_llama, rows, corpus)
    found = measure(arm, Settings("quick"), Progress())
    (details,) = found.details["contexts"]
    assert (details["context"], details["feature"]) == ("cyrillic", 5)
    assert details["in_source"] == 1.0
    assert found.estimates["proxies_cyrillic"].value > 0.5
    assert found.estimates["proxies_pearson"].value == found.estimates["proxies_cyrillic"].value
    assert found.estimates["proxies_specificity"].value > 0.5
    assert found.estimates["proxies_sensitivity"].value > 0.6
    assert found.left_out["proxies_dna"] == "the corpus has no source dna"
    with torch.no_grad():
        dictionary.W_enc[5] = 0
    without = measure(replace(arm), Settings("quick"), Progress())
    assert found.estimates["proxies_cyrillic"].exceeds(without.estimates["proxies_cyrillic"])
