"""Generated text beside a loop without a cache, and beside transformers' own."""

import numpy as np
import pytest
import torch

from sememe.errors import SememeError, UsageError
from sememe.models.generation import choose, end_tokens, generate, prompt_ids, stream
from sememe.models.language_model import LanguageModel
from tests.models.tiny_families import FAMILIES, VOCABULARY, family

PROMPTS = ["The captain watched the sea", "Nobody", "In 1984"]


def rows(model: LanguageModel) -> list[list[int]]:
    return [prompt_ids(model, prompt) for prompt in PROMPTS]


def test_the_likeliest_tokens_are_those_of_a_loop_without_cache(tiny_llama: LanguageModel) -> None:
    found = generate(tiny_llama, rows(tiny_llama), tokens=10)
    for prompt, new in zip(rows(tiny_llama), found, strict=True):
        assert prompt[0] == tiny_llama.tokenizer.bos
        text = list(prompt)
        for _ in range(10):
            token = int(tiny_llama.logits(torch.tensor([text]))[0, -1].argmax())
            if token in end_tokens(tiny_llama):
                break
            text.append(token)
        assert new == text[len(prompt) :]


@pytest.mark.parametrize("name", list(FAMILIES))
def test_every_family_generates_as_transformers_does(name: str) -> None:
    model = family(name)
    prompt = [3, 1, 4, 1, 5]
    theirs = model.module.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, 5),
        max_new_tokens=6,
        do_sample=False,
        pad_token_id=0,
    )[0, 5:].tolist()
    found = generate(model, [prompt, [9, 2]], tokens=6)
    ends = end_tokens(model)
    assert found[0] == [token for token in theirs if token not in ends][: len(found[0])]
    assert found[1] == generate(model, [[9, 2]], tokens=6)[0]


def test_draws_follow_the_distribution_and_the_seed(tiny_llama: LanguageModel) -> None:
    logits = torch.tensor([0.0, 1.0, -1.0, 3.0])
    draws = np.random.default_rng(0).random(4000)
    counts = np.bincount([choose(logits, 2.0, draw) for draw in draws], minlength=4)
    expected = (logits / 2).softmax(0).numpy()
    assert np.abs(counts / 4000 - expected).max() < 0.03
    assert choose(logits, 1.0, 0.0) == 0
    assert choose(logits, 1.0, 1.0) == 3
    assert choose(logits, 0.0, 0.1) == 3
    given = rows(tiny_llama)
    one = generate(tiny_llama, given, tokens=8, temperature=1.0, seed=1)
    assert one == generate(tiny_llama, given, tokens=8, temperature=1.0, seed=1)
    assert one != generate(tiny_llama, given, tokens=8, temperature=1.0, seed=2)
    assert one[0] == generate(tiny_llama, given[:1], tokens=8, temperature=1.0, seed=1)[0]
    twice = generate(tiny_llama, [given[0]] * 2, tokens=8, temperature=1.0, seed=1)
    assert twice[0] != twice[1]


def test_a_row_that_has_ended_says_no_more(tiny_llama: LanguageModel) -> None:
    """The third token of one prompt is made an end token: it ends, the others go on."""
    plain = generate(tiny_llama, rows(tiny_llama), tokens=8)
    settings = tiny_llama.module.generation_config
    end = plain[1][2]
    before, settings.eos_token_id = settings.eos_token_id, [end]
    try:
        steps = list(stream(tiny_llama, rows(tiny_llama), tokens=8))
    finally:
        settings.eos_token_id = before
    for number, new in enumerate(plain):
        own = [step[number] for step in steps]
        stop = new.index(end) if end in new else 8
        assert own == (new[:stop] + [None] * 8)[: len(steps)]
    assert steps[2][1] is None


def test_what_cannot_be_generated_is_refused(tiny_llama: LanguageModel) -> None:
    for arguments, message in (
        ({"prompts": []}, "prompts has none"),
        ({"prompts": [[1], []]}, "an empty one"),
        ({"prompts": [[1] * 120], "tokens": 9}, "120 tokens, and 9 new ones.*128 at most"),
        ({"prompts": [[1]], "tokens": 0}, "tokens is 0"),
        ({"prompts": [[1]], "temperature": -1.0}, "temperature is -1"),
        ({"prompts": [[1]], "temperature": float("nan")}, "temperature is nan"),
    ):
        with pytest.raises(UsageError, match=message):
            generate(tiny_llama, **arguments)
    with pytest.raises(UsageError, match="prompt is ''"):
        prompt_ids(family("llama"), "")
    assert len(generate(family("llama"), [[1] * 54], tokens=10)[0]) <= 10
    assert VOCABULARY == 64


def test_logits_that_are_no_numbers_end_it(tiny_directory: object) -> None:
    import sememe

    model = sememe.load_model(str(tiny_directory), dtype="fp32")
    with torch.no_grad():
        model.module.lm_head.weight[3] = torch.nan
    with pytest.raises(SememeError, match="no longer finite"):
        generate(model, [[1, 2]], tokens=2)
