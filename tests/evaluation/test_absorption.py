"""Absorption on closed forms and on words whose letters are made up; spelling by SmolLM2."""

import re

import numpy as np
import pytest
import scipy.sparse
import sklearn.metrics
import torch

from sememe.evaluation import absorption, spelling
from sememe.evaluation.absorption import mean_f1, over_others, stands_out, summarise
from sememe.evaluation.letters import Coded, Letter, Taken, examine, f1, main_features, probe
from sememe.evaluation.prompts import Prompt, answers, asked_activations, gradients, prompt_of
from sememe.evaluation.sections import NotApplicableError
from sememe.evaluation.spelling import Spelling, spell, words_by_letter
from sememe.models.load import LanguageModel

SITE = "layers.1.resid"


def test_f1_is_scikit_learns() -> None:
    generator = np.random.default_rng(0)
    own, seen = generator.random((2, 90, 3)) < 0.4
    expected = [sklearn.metrics.f1_score(own[:, n], seen[:, n]) for n in range(3)]
    np.testing.assert_allclose([f1(own[:, n], seen[:, n]) for n in range(3)], expected)
    sums = (part.sum(0, keepdims=True).astype(np.float64) for part in (own & seen, own, seen))
    np.testing.assert_allclose(mean_f1(*sums), [np.mean(expected)])
    assert f1(np.zeros(3, np.bool_), np.zeros(3, np.bool_)) == 0


def taken(values: list[float], cosine: list[float], whole: float) -> tuple[float, bool]:
    """With feature 0 the main one."""
    found = Taken.of(np.array(values, np.float64), np.array(cosine), whole, [0])
    return round(found.fraction, 6), found.full


def test_what_is_taken_over_in_closed_form() -> None:
    cosine = [1.0, 0.5, 0.5, 0.5, 0.05]
    # the main feature accounts for everything, and others for nothing
    assert taken([2, 0, 0, 0, 0], cosine, 2.0) == (0, False)
    # silent, and another has half of the projection
    assert taken([0, 2, 0, 0, 0], cosine, 2.0) == (1, True)
    # both have a part: 1 of 2 each, and 0.8 of it within what is left
    assert taken([1, 2, 0, 0, 0], cosine, 2.0) == (0.5, False)
    assert taken([1.2, 2, 0, 0, 0], cosine, 2.0) == (pytest.approx(0.8 / 2.0), False)
    # three together reach two fifths, one alone does not
    assert taken([0, 0.6, 0.6, 0.6, 0], cosine, 2.0) == (1, False)
    # below two fifths, and against the probe
    assert taken([0, 1, 0, 0, 0], cosine, 2.0) == (0, False)
    assert taken([0, 2, 0, 0, 0], cosine, -1.0) == (0, False)
    # a feature that hardly points along the probe counts alone, but not as one of several
    assert taken([0, 0, 0, 0, 20], cosine, 2.0) == (0, True)
    assert taken([0, 0, 0, 0, 20], [1.0, 0.5, 0.5, 0.5, 0.02], 0.5) == (0, False)


def test_effects_in_closed_form() -> None:
    logits = torch.tensor([[3.0, 0, 1, 2], [0, 4, 4, 4]])
    assert over_others(logits, torch.tensor([0, 1])).tolist() == pytest.approx([2, 4 - 8 / 3])
    effects = np.array([[0.5, 2.0, 0.9], [0.5, 1.4, 0.9], [3.0, 0.0, -1.0]])
    assert stands_out(effects) == [1, None, 0]


def test_main_features_are_those_that_a_sparse_probe_needs() -> None:
    """Two features share the letter's words between them; the rest is noise."""
    generator = np.random.default_rng(0)
    own = np.arange(400) % 8 == 0
    code = (generator.random((400, 30)) < 0.1) * generator.random((400, 30))
    half = own & (np.arange(400) % 16 == 0)
    code[:, 4], code[:, 9] = 2.0 * half, 2.0 * (own & ~half)
    main, sparse = main_features(scipy.sparse.csr_array(code), own)
    assert sorted(main) == [4, 9]
    np.testing.assert_array_equal(sparse.decision_function(code[:, main]) > 0, own)


LETTERS, WORDS = 10, 30


def made_up(absorbed: np.ndarray) -> tuple[Spelling, Coded]:
    """Each letter has a direction and a main feature; where it is absorbed another one has both
    the letter's direction and one that is the word's own."""
    generator = np.random.default_rng(0)
    label = np.repeat(np.arange(LETTERS), WORDS)
    width, count = LETTERS + 5, len(label)
    basis = np.linalg.qr(generator.normal(size=(width, width)))[0]
    code = np.zeros((count, LETTERS + int(absorbed.sum())))
    code[np.arange(count), label] = np.where(absorbed, 0, 2.0)
    directions = [*basis[:LETTERS]]
    for n, word in enumerate(np.flatnonzero(absorbed)):
        code[word, LETTERS + n] = 2.5
        directions.append((0.8 * basis[label[word]]) + 0.6 * basis[LETTERS + n % 5])
    activation = code @ np.stack(directions)
    x = activation + 0.05 * generator.normal(size=activation.shape)
    test = np.tile(np.arange(WORDS) >= 20, LETTERS)
    found = Spelling(
        [f" w{n}" for n in range(count)],
        "abcdefghij",
        torch.from_numpy(label),
        torch.from_numpy(test),
        [Prompt([0], 0)] * count,
        torch.arange(LETTERS),
        torch.from_numpy(x).float(),
        torch.from_numpy(test & (label != 3)),  # the model never says the fourth letter
        torch.zeros(count, width),
    )
    coded = Coded(scipy.sparse.csr_array(code), activation, np.stack(directions), np.ones(width))
    return found, coded


def test_absorbed_words_are_found_and_no_others() -> None:
    absorbed = np.zeros(LETTERS * WORDS, np.bool_)
    absorbed[[25, 26, 27, 3 * WORDS + 25, 5 * WORDS + 21]] = True
    spelt, coded = made_up(absorbed)
    probes, known = probe(spelt)
    assert known == list(range(LETTERS))
    found = [examine(coded, spelt, letter, probes[letter]) for letter in known]
    assert [each.main for each in found] == [[letter] for letter in known]
    assert [int(each.full.sum()) for each in found] == [3, 0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert found[0].absorbing == [LETTERS, LETTERS + 1, LETTERS + 2]
    for each in found:
        np.testing.assert_array_equal(each.full, each.silent)
        np.testing.assert_array_equal(each.fraction, each.silent)
    measured = summarise(spelt, probes, found)
    assert measured.estimates["absorption_full"].value == pytest.approx(4 / 90)
    assert measured.estimates["letter_said"].value == pytest.approx(0.9)
    # all words are found but those absorbed: 7, 9 and 9 of 10, and none that is not
    expected = np.mean([2 * own / (own + 10) for own in (7, 9, 9, *[10] * 7)])
    assert measured.estimates["letter_f1"].value == pytest.approx(expected)
    assert measured.details["letters"][0]["absorbed"] == 3


def test_effects_are_those_of_plain_runs_without_each_feature(
    tiny_llama: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every dimension of the stream is a feature; the largest effect of three counts if alone."""
    model, width = tiny_llama, tiny_llama.width(SITE)
    words = [" sun", " sea", " ship", " hills", " first", " calm"]
    made = [prompt_of(model.tokenizer, "The", word, " is") for word in words]
    prompts = [prompt for prompt in made if prompt]
    values = asked_activations(model, SITE, prompts)
    among, label = torch.tensor([40, 50, 60]), torch.tensor([0, 1, 2, 0, 1, 2])
    weight = torch.full((6, 3), -0.5).scatter(1, label[:, None], 1.0)
    gradient = gradients(model, SITE, prompts, among.expand(6, -1), weight)
    every = torch.ones(6, dtype=torch.bool)
    spelt = Spelling(words, "abc", label, every, prompts, among, values, every, gradient)
    directions = torch.cat([torch.eye(width), -torch.eye(width)]).double()
    code = torch.relu(values.double() @ directions.T)
    coded = Coded(
        scipy.sparse.csr_array(code.numpy()), values.double().numpy(), directions.numpy(),
        np.ones(width),
    )  # fmt: skip

    def margin(n: int, added: torch.Tensor) -> float:
        logits = answers(model, SITE, [prompts[n]], among[None], added[None].float()).logits
        return float((logits[0] * weight[n]).sum())

    expected = []
    for n in range(6):
        lost = (code[n] * (directions @ gradient[n].double())).argsort(descending=True)[:3]
        whole = margin(n, torch.zeros(width))
        effects = [whole - margin(n, -code[n, f] * directions[f]) for f in lost]
        largest, second, _ = sorted(effects, reverse=True)
        expected.append(largest - second)
    bar = float(np.median(expected))
    monkeypatch.setattr(absorption, "EFFECT", bar)
    nothing, cosine = np.zeros(6, np.bool_), np.ones(2 * width)
    found = [
        Letter(n, [0], nothing, own, own, np.zeros(6), nothing, np.zeros(6), cosine, [])
        for n, own in enumerate((label[:, None] == torch.arange(3)).numpy().T)
    ]
    absorption.by_effect(model, SITE, coded, spelt, found, 0)
    effect = np.sum([each.effect for each in found], axis=0)
    np.testing.assert_array_equal(effect > 0, np.array(expected) >= bar - 1e-9)
    assert 0 < effect.sum() < 6


def test_a_model_without_words_is_refused(tiny_llama: LanguageModel) -> None:
    with pytest.raises(NotApplicableError, match=r"words of one token, 60 of a letter, for 0 let"):
        spell(tiny_llama, SITE, "standard", 0)


def test_smollm2_spells_and_a_model_that_does_not_is_refused(
    smollm2: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(spelling.FIT, "standard", 4)
    monkeypatch.setattr(spelling, "SPELT", 0.3)
    found = spell(smollm2, "layers.2.resid", "standard", 0)
    assert len(found.letters) >= 20
    assert int(found.test.sum()) == 2 * len(found.letters)
    share = found.right[found.test].double().mean()
    assert share > 0.3  # by chance 0.04
    assert not found.right[~found.test].any()
    number = int(found.right.nonzero()[0])
    prompt, word = found.prompts[number], found.words[number]
    text = smollm2.tokenizer.decode(prompt.ids)
    assert text.endswith(f"\n{word} has the first letter:")
    assert all(a == b.lower() for a, b in re.findall(r" (\w)\w* has the first letter: (\w)", text))
    said = smollm2.logits(torch.tensor([prompt.ids]))[0, -1].argmax()
    assert smollm2.tokenizer.decode([int(said)]) == f" {word[1].upper()}"

    monkeypatch.setattr(spelling, "SPELT", float(share) + 0.01)
    with pytest.raises(NotApplicableError, match=rf"of {share:.0%} of \d+ words after 5 examples"):
        spell(smollm2, "layers.2.resid", "standard", 0)


def test_words_are_the_first_of_one_token(smollm2: LanguageModel) -> None:
    groups = words_by_letter(smollm2.tokenizer, 3)
    for letter, words in groups.items():
        for word in words:
            assert re.fullmatch(rf" {letter}[a-z]{{2,}}", word)
            assert len(smollm2.tokenizer.encode(word)) == 1
