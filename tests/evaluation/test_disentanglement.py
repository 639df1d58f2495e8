"""Exchanging features: closed forms, facts, and a tiny model that is made to know something."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse
import torch

from sememe.dictionaries.dictionary import Dictionary
from sememe.dictionaries.nonlinearities import ReLU
from sememe.evaluation import disentanglement, knowledge
from sememe.evaluation.arms import Arm
from sememe.evaluation.disentanglement import (
    EXCHANGED,
    METRICS,
    carries,
    differences,
    exchange,
    measure,
    selective,
    summarise,
)
from sememe.evaluation.entities import CITIES, KINDS, Kind
from sememe.evaluation.estimates import Shares
from sememe.evaluation.knowledge import Known, know, pairs_of
from sememe.evaluation.prompts import answers, prompt_of
from sememe.evaluation.sections import NotApplicableError, Settings
from sememe.models.load import LanguageModel
from sememe.progress import Progress

SETTINGS = Settings("standard")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_facts_are_complete_and_examples_are_of_others(kind: Kind) -> None:
    assert len(kind.attributes) >= 2
    for entity, values in kind.entities.items():
        assert len(values) == len(kind.attributes)
        assert all(values)
        for attribute in kind.attributes:
            assert entity not in attribute.examples
    for attribute in kind.attributes:
        assert attribute.after.strip()
        # every example is of the form that asks
        assert attribute.examples.count(attribute.after) >= 2
    for number, _ in enumerate(kind.attributes):
        assert len({values[number] for values in kind.entities.values()}) >= 6


def test_a_country_is_on_one_continent() -> None:
    found: dict[str, str] = {}
    for country, continent, _ in CITIES.entities.values():
        assert found.setdefault(country, continent) == continent


def test_pairs_differ_in_what_is_exchanged_and_asked_about() -> None:
    generator = torch.Generator().manual_seed(0)
    token = torch.randint(0, 4, (3, 40), generator=generator)
    fitting, trying = pairs_of(token, 20, 0)
    chosen_on = {int(n) for pairs in fitting for n in pairs.flatten()}
    for (exchanged, asked), pairs in trying.items():
        assert len(pairs) == (20 if exchanged == asked else 10)
        assert not chosen_on & set(pairs.flatten().tolist())
        for number in (exchanged, asked):
            assert (token[number, pairs[:, 0]] != token[number, pairs[:, 1]]).all()
    assert all(len({tuple(pair) for pair in pairs.tolist()}) == 20 for pairs in fitting)


def test_what_features_carry_is_the_mean_of_products() -> None:
    generator = np.random.default_rng(0)
    code = generator.random((6, 5)) * (generator.random((6, 5)) < 0.6)
    gradient, directions = torch.randn(4, 3), torch.randn(5, 3)
    pairs = torch.tensor([[0, 1], [2, 3], [4, 5], [1, 0]])
    expected = np.zeros(5)
    for row, (base, source) in enumerate(pairs.tolist()):
        for n in range(5):
            per_unit = float(directions[n] @ gradient[row])
            expected[n] += (code[source, n] - code[base, n]) * per_unit / 4
    found = carries(differences(scipy.sparse.csr_array(code), pairs), gradient, directions)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_features_of_one_attribute_alone_come_first() -> None:
    carried = np.array([[1.0, 2.0, 0.5, 0.0, 0.3], [0.0, 1.8, -0.1, 0.0, 0.6], [0, 0, 0, 3.0, 0.2]])
    # less the mean of the others: 1, 1.1, 0.45, -1.5, -0.1
    assert selective(carried, 0).tolist() == [1, 0, 2]
    assert selective(carried, 2).tolist() == [3]


def test_the_report_is_the_mean_over_attributes() -> None:
    shares = Shares()
    shares.begin(4)
    unit = np.arange(4)
    causes = [shares.add(unit, np.array(row)) for row in ([1, 1, 0, 0], [1, 1, 1, 1])]
    stays = [shares.add(unit, np.array(row)) for row in ([1, 1, 1, 1], [0, 0, 0, 1])]
    tried = [
        disentanglement.Tried(
            "kind",
            name,
            {n: [7] for n in EXCHANGED},
            dict.fromkeys(EXCHANGED, cause),
            dict.fromkeys(EXCHANGED, stay),
            cause,
        )
        for name, cause, stay in zip("ab", causes, stays, strict=True)
    ]
    measured = summarise(shares, tried, ["too few people"])
    assert set(measured.estimates) == {metric.name for metric in METRICS}
    assert measured.estimates[f"ravel_cause_{EXCHANGED[0]}"].value == pytest.approx(0.75)
    assert measured.estimates[f"ravel_isolation_{EXCHANGED[0]}"].value == pytest.approx(0.625)
    assert measured.estimates[f"ravel_{EXCHANGED[0]}"].value == pytest.approx(0.6875)
    assert measured.details["kinds_left_out"] == "too few people"


def test_a_model_that_knows_too_little_is_refused_with_the_shares(subject: Arm) -> None:
    found = know(subject.model, subject.site, CITIES, SETTINGS)
    assert isinstance(found, str)
    assert "country of 0%" in found
    with pytest.raises(NotApplicableError, match="at least 24 are needed"):
        measure(subject, SETTINGS, Progress())


def identity(subject: Arm) -> Arm:
    """Every dimension of the stream, up and down, all of which are active."""
    width = subject.dictionary.config.width
    dictionary = Dictionary(
        replace(subject.dictionary.config, features=2 * width, nonlinearity=ReLU(), centre="none"),
        subject.dictionary.read_scale[:1].tolist(),
        subject.dictionary.write_scale[:1].tolist(),
    )
    with torch.no_grad():
        for part in (dictionary.W_enc, dictionary.W_dec):
            part.copy_(torch.cat([torch.eye(width), -torch.eye(width)]))
    return replace(subject, dictionary=dictionary)


def test_exchanging_all_features_of_the_identity_is_exchanging_the_activation(
    subject: Arm, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, arm = subject.model, identity(subject)
    generator = torch.Generator().manual_seed(0)
    words = ("sun", "sea", "ship", "hills", "first", "second", "calm", "add")
    frames = (("The", " is"), ("On the", " would"))
    prompts = [[prompt_of(model.tokenizer, a, f" {w}", b) for w in words] for a, b in frames]
    rows = [[prompt for prompt in row if prompt] for row in prompts]
    assert [len(row) for row in rows] == [8, 8]
    plain = torch.zeros(8, 1, dtype=torch.long)
    token = torch.stack([answers(model, arm.site, row, plain).token for row in rows])
    values = torch.stack([knowledge.asked_activations(model, arm.site, row) for row in rows])
    pairs = torch.cartesian_prod(torch.arange(8), torch.arange(8))
    pairs = pairs[(token[:, pairs[:, 0]] != token[:, pairs[:, 1]]).all(0)]
    assert len(pairs) > 3
    trying = {(a, b): pairs for a in range(2) for b in range(2)}
    gradient = torch.randn(len(pairs), values.shape[2], generator=generator)
    base, source = pairs.T
    whole = [
        answers(
            model,
            arm.site,
            [rows[n][b] for b in base.tolist()],
            token[n, source][:, None],
            values[n, source] - values[n, base],
        ).token
        for n in range(2)
    ]
    ceiling = [found == token[n, source] for n, found in enumerate(whole)]
    known = Known(
        "word", ["a", "b"], list(words), rows, token, values, [pairs] * 2, [gradient] * 2,
        trying, ceiling,
    )  # fmt: skip
    every = np.arange(arm.features)
    monkeypatch.setattr(disentanglement, "selective", lambda _carried, _n: every)
    monkeypatch.setattr(disentanglement, "EXCHANGED", (arm.features,))
    shares = Shares()
    for n, each in enumerate(exchange(arm, known, shares)):
        assert shares.shares[0, each.cause[arm.features]] == float(ceiling[n].double().mean())
        stays = (whole[1 - n] == token[1 - n, base]).double().mean()
        assert shares.shares[0, each.isolation[arm.features]] == pytest.approx(float(stays))
    monkeypatch.setattr(disentanglement, "selective", lambda _carried, _n: every[:0])
    shares = Shares()
    for each in exchange(arm, known, shares):
        assert shares.shares[0, each.cause[arm.features]] == 0
        assert shares.shares[0, each.isolation[arm.features]] == 1


def test_smollm2_knows_cities_and_its_activation_carries_them(
    smollm2: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the way through the model; and with too high a bar it is refused with the shares."""
    names = ("Paris", "Berlin", "Madrid", "Rome", "Athens", "Moscow", "Tokyo", "Cairo", "Lisbon")
    names += ("Nice", "Munich", "Seville", "Venice", "Warsaw", "Osaka", "Oslo")
    country, _, language = CITIES.attributes
    facts = {name: CITIES.entities[name][::2] for name in names}
    kind = Kind("city", (country, language), facts)
    monkeypatch.setattr(knowledge, "KNOWN", 10)
    monkeypatch.setitem(knowledge.PAIRS, "standard", 8)
    found = know(smollm2, "layers.14.resid", kind, SETTINGS)
    assert isinstance(found, Known), found
    assert set(found.entities) <= set(names)
    assert found.attributes == ["country", "language"]
    for number, row in enumerate(found.prompts):
        entity = found.entities[0]
        text = smollm2.tokenizer.decode(row[0].ids)
        assert text.endswith(f"{entity}{kind.attributes[number].after}")
        assert smollm2.tokenizer.decode(row[0].ids[: row[0].at + 1]).endswith(entity)
        said = smollm2.tokenizer.decode([int(found.token[number, 0])])
        assert f" {facts[entity][number]}".startswith(said)
        assert found.ceiling[number].double().mean() >= 0.5

    monkeypatch.setattr(knowledge, "KNOWN", 17)
    refused = know(smollm2, "layers.14.resid", kind, SETTINGS)
    assert isinstance(refused, str)
    assert "17 are needed" in refused
    monkeypatch.setattr(knowledge, "KNOWN", 10)
    monkeypatch.setattr(knowledge, "CEILING", 1.01)
    refused = know(smollm2, "layers.14.resid", kind, SETTINGS)
    assert isinstance(refused, str)
    assert "changes" in refused
    assert "layers.14.resid" in refused
