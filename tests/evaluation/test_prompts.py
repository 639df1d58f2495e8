"""Prompts beside plain runs of a tiny model, and gradients beside differences."""

import pytest
import torch

from sememe.evaluation.prompts import Prompt, answers, asked_activations, gradients, prompt_of
from sememe.models.load import LanguageModel
from sememe.models.reading import read, replaced

SITE = "layers.1.resid"
TEXTS = (("The ", "sea", " was calm"), ("It is on the", " ship", " that"), ("A", " sun", " would"))


@pytest.fixture(scope="module")
def prompts(tiny_llama: LanguageModel) -> list[Prompt]:
    found = [prompt_of(tiny_llama.tokenizer, *parts) for parts in TEXTS]
    return [prompt for prompt in found if prompt]


def test_what_is_asked_about_ends_where_its_text_does(
    tiny_llama: LanguageModel, prompts: list[Prompt]
) -> None:
    assert len(prompts) == len(TEXTS)
    for prompt, (before, asked, after) in zip(prompts, TEXTS, strict=True):
        assert prompt.ids[0] == tiny_llama.tokenizer.bos
        text = tiny_llama.tokenizer.decode(prompt.ids[1 : prompt.at + 1])
        assert text == before + asked
        assert tiny_llama.tokenizer.decode(prompt.ids[1:]) == before + asked + after


def test_a_prompt_without_an_end_of_what_is_asked_about_is_none(tiny_llama: LanguageModel) -> None:
    """'th' and 'e' are one token, so that none ends after 'th'; and nothing comes after 'sea'."""
    assert prompt_of(tiny_llama.tokenizer, "on", " th", "e") is None
    assert prompt_of(tiny_llama.tokenizer, "on the", " sea", "") is None


def test_activations_and_answers_are_those_of_a_plain_run(
    tiny_llama: LanguageModel, prompts: list[Prompt]
) -> None:
    values = asked_activations(tiny_llama, SITE, prompts)
    added = torch.randn(values.shape, generator=torch.Generator().manual_seed(0))
    among = torch.tensor([[5, 7]] * len(prompts))
    plain = answers(tiny_llama, SITE, prompts, among)
    changed = answers(tiny_llama, SITE, prompts, among, added)
    for n, prompt in enumerate(prompts):
        ids = torch.tensor([prompt.ids])
        seen = read(tiny_llama, ids, [SITE])[SITE][0, prompt.at]
        torch.testing.assert_close(values[n], seen)

        def put(x: torch.Tensor, n: int = n, at: int = prompt.at) -> torch.Tensor:
            x = x.clone()
            x[0, at] = values[n] + added[n]
            return x

        logits = tiny_llama.logits(ids)[0, -1]
        torch.testing.assert_close(plain.logits[n], logits[[5, 7]])
        assert plain.token[n] == logits.argmax()
        with replaced(tiny_llama, SITE, put):
            logits = tiny_llama.logits(ids)[0, -1]
        torch.testing.assert_close(changed.logits[n], logits[[5, 7]])


def test_gradients_are_the_limits_of_differences(
    tiny_llama: LanguageModel, prompts: list[Prompt]
) -> None:
    among = torch.tensor([[5, 7]] * len(prompts))
    weight = torch.tensor([[1.0, -1.0]] * len(prompts))
    found = gradients(tiny_llama, SITE, prompts, among, weight)
    step = torch.nn.functional.normalize(torch.randn(found.shape), dim=1) * 1e-2
    up, down = (
        (answers(tiny_llama, SITE, prompts, among, sign * step).logits * weight).sum(1)
        for sign in (1, -1)
    )
    torch.testing.assert_close((found * step).sum(1), (up - down) / 2, atol=2e-4, rtol=2e-2)
