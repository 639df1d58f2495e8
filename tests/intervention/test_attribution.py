"""Attributions beside closed forms, autograd by hand and ablations by a plain hook."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sememe.errors import UsageError
from sememe.intervention.agreement import Agreement, agreement
from sememe.intervention.attribution import (
    Attribution,
    LogitDifference,
    Loss,
    Way,
    ablate,
    attribute,
    effects_of,
    look,
)
from sememe.intervention.features import FeatureSet
from sememe.models.language_model import LanguageModel
from tests.intervention.conftest import random_dictionary
from tests.models.tiny_families import family

TEXT = "The captain watched the sea in the morning."
SITE = "layers.0.resid"


@pytest.fixture(scope="module")
def ids(model: LanguageModel) -> list[int]:
    return [0, *model.tokenizer.encode(TEXT)]


def by_hand(
    model: LanguageModel, features: FeatureSet, ids: list[int], layer: int = 0
) -> tuple[Tensor, Tensor]:
    """Return the activations at a layer's output, and the logits that follow from them."""
    seen: list[Tensor] = []

    def hook(_module: object, _args: object, output: Tensor) -> Tensor:
        seen.append(output.detach().requires_grad_())
        return seen[0]

    handle = model.module.model.layers[layer].register_forward_hook(hook)
    logits = model.module(input_ids=torch.tensor([ids])).logits
    handle.remove()
    return seen[0], logits


def total_loss(logits: Tensor, ids: list[int]) -> Tensor:
    return -logits[0, :-1].log_softmax(-1)[range(len(ids) - 1), ids[1:]].sum()


@pytest.mark.parametrize("on", ["loss", "difference", "mean"])
def test_gradients_are_those_of_autograd(
    model: LanguageModel, features: FeatureSet, ids: list[int], on: str
) -> None:
    figures = {
        "loss": Loss(),
        "difference": LogitDifference(7, 9),
        "mean": LogitDifference(7, position=4),
    }
    found = attribute(model, features, ids, figures[on])
    x, logits = by_hand(model, features, ids)
    value = {
        "loss": lambda: total_loss(logits, ids),
        "difference": lambda: logits[0, -1, 7] - logits[0, -1, 9],
        "mean": lambda: logits[0, 4, 7] - logits[0, 4].mean(),
    }[on]()
    value.backward()
    assert found.figure == pytest.approx(float(value.detach()), rel=1e-4, abs=1e-4)
    assert x.grad is not None
    dictionary = features.dictionary
    code = dictionary.encode(x[0, 1:].detach())
    rows = dictionary.W_dec.detach() / dictionary.write_scale
    entries = {
        (token + 1, feature): value * float(rows[feature] @ x.grad[0, token + 1])
        for token in range(len(ids) - 1)
        for feature, value in zip(
            code.indices[token].tolist(), code.values[token].tolist(), strict=True
        )
        if value > 0
    }
    token, feature, _ = found.text.firings
    assert list(zip(token.tolist(), feature.tolist(), strict=True)) == list(entries)
    np.testing.assert_allclose(found.effects, list(entries.values()), rtol=1e-3, atol=1e-4)
    features_, sums = found.by_feature()
    assert float(sums.sum()) == pytest.approx(sum(entries.values()), rel=1e-3, abs=1e-3)
    one = int(features_[3])
    own = sum(effect for (_, number), effect in entries.items() if number == one)
    assert float(sums[3]) == pytest.approx(own, rel=1e-3, abs=1e-4)


def test_an_ablation_is_that_of_a_plain_hook(
    model: LanguageModel, features: FeatureSet, ids: list[int]
) -> None:
    text = look(model, features, ids)
    chosen = [torch.tensor([3]), torch.tensor([10, 11]), torch.tensor([], dtype=torch.long)]
    found = ablate(model, features, text, Loss(), chosen)
    plain = total_loss(model.logits(torch.tensor([ids])), ids)
    for effect, group in zip(found.tolist(), chosen, strict=True):

        def hook(_m: object, _a: object, output: Tensor, group: Tensor = group) -> Tensor:
            x = output.clone()
            for entry in group.tolist():
                token, feature, value = (part[entry] for part in text.firings)
                row = features.dictionary.W_dec[feature].detach()
                x[0, token] -= value * row / features.dictionary.write_scale
            return x

        handle = model.module.model.layers[0].register_forward_hook(hook)
        expected = plain - total_loss(model.logits(torch.tensor([ids])), ids)
        handle.remove()
        assert effect == pytest.approx(float(expected), abs=1e-4)
    assert found[2] == 0
    every = attribute(model, features, ids, Loss(), way="ablation")
    assert float(every.effects[3]) == pytest.approx(float(found[0]), abs=1e-4)


def test_integrated_gradients_add_up_to_the_whole(
    model: LanguageModel, features: FeatureSet, ids: list[int]
) -> None:
    """Completeness: the effects sum to what all firings together do."""
    text, figure = look(model, features, ids), LogitDifference(7, 9)
    whole = ablate(model, features, text, figure, [torch.arange(len(text.firings.value))])[0]
    gaps = []
    for steps in (1, 8, 64):
        found = effects_of(model, features, text, figure, way="integrated", steps=steps)
        gaps.append(abs(float(found.sum() - whole)))
    assert gaps[2] < 0.01 * abs(float(whole)) + 1e-3
    assert gaps[2] < gaps[0]
    with pytest.raises(UsageError, match="steps is 0"):
        effects_of(model, features, text, figure, way="integrated", steps=0)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3"])
def test_at_the_last_layer_all_effects_are_direct(name: str) -> None:
    """There a feature's only way is the final norm and the unembedding.

    The direct way holds the norm's size fixed, so it is compared with logits computed that way.
    """
    model = family(name)
    site = "layers.2.resid"
    features = FeatureSet(random_dictionary(site, site))
    ids = [3, 1, 4, 1, 5, 9, 2, 6]
    found = attribute(model, features, ids, LogitDifference(7, 9), way="direct")
    token, feature, value = found.text.firings
    last = token == len(ids) - 1
    assert (found.effects[~last] == 0).all()
    assert found.effects[last].abs().min() > 1e-6
    rows = features.directions(feature) * value[:, None]
    logits = model.direct_logits(rows) * found.text.final_scale[token][:, None]
    expected = (logits[:, 7] - logits[:, 9])[last]
    torch.testing.assert_close(found.effects[last], expected, atol=1e-4, rtol=1e-4)
    # The size itself: the stream's own logits, by the direct path, are the model's.
    shift = 1e-3
    moved = FeatureSet(random_dictionary(site, site))
    small = Attribution(found.text, found.figure, found.effects * shift)
    firings = found.text.firings._replace(value=value * shift)
    text = found.text._replace(firings=firings)
    groups = [entry[None] for entry in last.nonzero()[:, 0]]
    true = ablate(model, moved, text, LogitDifference(7, 9), groups)
    gradient = effects_of(model, moved, text, LogitDifference(7, 9), way="gradient")[last]
    torch.testing.assert_close(gradient, true, atol=2e-5, rtol=0.05)
    assert float(np.corrcoef(small.effects[last], true)[0, 1]) > 0.8


def test_a_transcoders_features_are_attributed_where_it_writes(model: LanguageModel) -> None:
    features = FeatureSet(random_dictionary("layers.1.mlp.in", "layers.1.mlp.out"))
    ids = [0, *model.tokenizer.encode(TEXT)]
    text = look(model, features, ids)
    small = text._replace(firings=text.firings._replace(value=text.firings.value * 1e-3))
    some = [torch.tensor([number]) for number in range(0, len(text.firings.value), 9)]
    true = ablate(model, features, small, Loss(), some)
    found = effects_of(model, features, small, Loss(), way="gradient")[torch.cat(some)]
    torch.testing.assert_close(found, true, atol=1e-4, rtol=0.05)


def test_a_loss_is_attributed_to_the_tokens_before(
    model: LanguageModel, features: FeatureSet, ids: list[int]
) -> None:
    for way in ("gradient", "direct", "integrated", "ablation"):
        found = attribute(model, features, ids, LogitDifference(7, 9, position=4), way=way)
        after = found.text.firings.token > 4
        assert after.any()
        assert found.effects[after].abs().max() < 1e-4
        assert found.effects[~after].abs().max() > 1e-3


@pytest.mark.parametrize(
    ("length", "way", "site", "message"),
    [
        (1, "gradient", SITE, "the text has 1 tokens; expected 2 to 128"),
        (129, "gradient", SITE, "the text has 129 tokens"),
        (9, "direct", "layers.0.mlp.hidden", "no direct path"),
    ],
)
def test_what_cannot_be_attributed_is_refused(
    model: LanguageModel, length: int, way: Way, site: str, message: str
) -> None:
    width = model.width(site)
    features = FeatureSet(random_dictionary(site, site, (width, width)))
    with pytest.raises(UsageError, match=message):
        attribute(model, features, [3] * length, Loss(), way=way)


def test_correlations_are_those_of_numpy_and_scipy() -> None:
    from scipy.stats import spearmanr

    draw = np.random.default_rng(0)
    text = np.repeat(np.arange(8), 20)
    ablation = draw.standard_normal(160)
    ways = {"gradient": ablation + draw.standard_normal(160), "activation": draw.random(160)}
    found = Agreement(text, text, ablation, ways).correlations()
    for way, values in ways.items():
        pearson, rank = found[way]["pearson"], found[way]["spearman"]
        assert pearson["value"] == pytest.approx(np.corrcoef(values, ablation)[0, 1])
        assert rank["value"] == pytest.approx(spearmanr(values, ablation).statistic)
        assert pearson["low"] < pearson["value"] < pearson["high"]


def test_attribution_agrees_with_ablation_and_activation_less(
    model: LanguageModel, features: FeatureSet, small_run: Path
) -> None:
    from sememe.corpora.corpus import Corpus

    corpus = Corpus.open(small_run / "corpus")
    windows = corpus.windows(24, held_out=True)
    texts = [
        corpus.tokens(int(start), int(start + length)).astype(int).tolist()
        for start, length in zip(windows.start, windows.length, strict=True)
        if length == 24
    ][:4]
    found = agreement(model, features, texts, per_text=12)
    assert len(found.ablation) == 48
    assert set(found.ways) == {"gradient", "integrated", "direct", "activation"}
    again = agreement(model, features, texts, per_text=12)
    assert np.array_equal(found.feature, again.feature)
    text = look(model, features, texts[0])
    mine = found.feature[found.text == 0]
    (group,) = ((text.firings.feature == int(mine[2])).nonzero()[:, 0],)
    first, second = text.logits[0, -1].topk(2).indices.tolist()
    true = ablate(model, features, text, LogitDifference(first, second), [group])
    assert found.ablation[2] == pytest.approx(float(true[0]), abs=1e-4)
    activation = found.ways["activation"][2]
    assert activation == pytest.approx(float(text.firings.value[group].sum()), rel=1e-5)
    correlations = found.correlations()
    assert correlations["gradient"]["pearson"]["value"] > 0.5
    with pytest.raises(UsageError, match="0 texts"):
        agreement(model, features, [])
