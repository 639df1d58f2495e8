"""Interventions on the real model: exact where nothing changes, alike with and without a cache."""

import pytest
import torch

from sememe.dictionaries import TopK
from sememe.dictionaries.config import DictionaryConfig
from sememe.dictionaries.dictionary import Dictionary
from sememe.intervention.attribution import Loss, ablate, effects_of, look
from sememe.intervention.changes import Change
from sememe.intervention.features import FeatureSet
from sememe.intervention.intervene import intervene
from sememe.models.generation import generate, prompt_ids
from sememe.models.language_model import LanguageModel
from sememe.models.reading import read

SITE = "layers.14.resid"
PROMPTS = ["The Golden Gate Bridge is a famous landmark in", "Once upon a time", "def add(a, b):"]
DIRECTIONS = 1024


@pytest.fixture(scope="module")
def features(smollm2: LanguageModel) -> FeatureSet:
    """Random directions, with the norm beyond which a token is a sink."""
    width = smollm2.width(SITE)
    ids = torch.tensor([prompt_ids(smollm2, PROMPTS[0])])
    norms = read(smollm2, ids, [SITE])[SITE][0].norm(dim=1)
    assert norms[0] > 10 * norms.median()  # the first token is an attention sink
    config = DictionaryConfig((SITE,), (SITE,), (width,), (width,), DIRECTIONS, TopK(16))
    dictionary = Dictionary(config, [width**0.5 / float(norms.median())], [0.2])
    rows = torch.randn(DIRECTIONS, width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        dictionary.W_enc.copy_(torch.nn.functional.normalize(rows, dim=1))
        dictionary.W_dec.copy_(dictionary.W_enc)
    rules = {"special": [0], "norm_limits": {SITE: 10 * float(norms.median())}, "dtype": "fp32"}
    dictionary.manifest = {"made_from": {"model": smollm2.hash, "rules": rules}}
    return FeatureSet(dictionary)


def test_changing_nothing_is_exact(smollm2: LanguageModel, features: FeatureSet) -> None:
    ids = torch.tensor([prompt_ids(smollm2, PROMPTS[0])])
    plain, text = smollm2.logits(ids), generate(smollm2, ids.tolist(), tokens=6)
    with intervene(smollm2, {features: dict.fromkeys(range(DIRECTIONS), "scale:1")}) as run:
        assert torch.equal(smollm2.logits(ids), plain)
        assert generate(smollm2, ids.tolist(), tokens=6) == text
    report = run.report()
    assert {each.left_out for each in report} == {2}  # the sink, in each of the two
    assert not any(each.changed for each in report)


def test_a_clamped_batch_is_its_prompts_read_again_and_again(
    smollm2: LanguageModel, features: FeatureSet
) -> None:
    rows = [prompt_ids(smollm2, prompt) for prompt in PROMPTS]
    changes = {features: {3: Change.parse("40", scope="new"), 8: Change.parse("add:25")}}
    with intervene(smollm2, changes) as run:
        found = generate(smollm2, rows, tokens=6)
    # The first token is a sink; nothing is new of a prompt, and of the new ones the last is unread.
    assert [each.applied for each in run.report()] == [15, sum(map(len, rows)) - 3 + 15]
    assert found != generate(smollm2, rows, tokens=6)
    directions = features.dictionary.W_dec.detach() / features.dictionary.write_scale
    for row, new in zip(rows, found, strict=True):

        def hook(_m: object, _a: object, output: torch.Tensor, begun: int = len(row)) -> object:
            x = output[0]
            code = features.dictionary.encode(x)
            third = (code.values * (code.indices == 3)).sum(1)
            delta = (
                25 * directions[8]
                + (40 - third)[:, None]
                * directions[3]
                * (torch.arange(len(x)) >= begun)[:, None].float()
            )
            delta[0] = 0
            return (x + delta)[None]

        handle = smollm2.module.model.layers[14].register_forward_hook(hook)
        text = list(row)
        for token in new:
            assert int(smollm2.logits(torch.tensor([text]))[0, -1].argmax()) == token
            text.append(token)
        handle.remove()


def test_gradients_foretell_small_ablations(smollm2: LanguageModel, features: FeatureSet) -> None:
    text = look(smollm2, features, prompt_ids(smollm2, PROMPTS[0]))
    assert not (text.firings.token == 0).any()
    small = text._replace(firings=text.firings._replace(value=0.02 * text.firings.value))
    some = torch.arange(0, len(text.firings.value), 11)
    true = ablate(smollm2, features, small, Loss(), list(some[:, None]))
    found = effects_of(smollm2, features, small, Loss(), way="gradient")[some]
    assert float(torch.corrcoef(torch.stack([true, found]))[0, 1]) > 0.95
