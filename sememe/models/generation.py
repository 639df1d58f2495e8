"""Generate text token by token, with a key-value cache, for prompts of any lengths at once."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sememe.errors import SememeError, UsageError
from sememe.models.language_model import LanguageModel
from sememe.models.reading import padding_inputs

# Axis names: batch = prompts, time = tokens, vocab = token ids.


def prompt_ids(model: LanguageModel, text: str) -> list[int]:
    """Return the tokens of a prompt, the model's BOS in front where it has one.

    UsageError for an empty prompt of a model without.
    """
    bos = model.tokenizer.bos
    ids = [*([] if bos is None else [bos]), *model.tokenizer.encode(text)]
    if not ids:
        raise UsageError(f"prompt is {text!r}; expected at least one token")
    return ids


def generate(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    tokens: int = 40,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[list[int]]:
    """Return up to ``tokens`` new tokens of each prompt, without the end-of-text token.

    At ``temperature`` 0 the likeliest token is taken, otherwise one is drawn. The draws of a prompt
    depend on ``seed`` and on its place among the prompts alone: with and without an intervention
    they are the same.

    Raises UsageError for an empty prompt, and for one that does not fit the model's context with
    the new tokens, SememeError where logits become NaN.
    """
    found: list[list[int]] = [[] for _ in prompts]
    for step in stream(model, prompts, tokens=tokens, temperature=temperature, seed=seed):
        for new, token in zip(found, step, strict=True):
            if token is not None:
                new.append(token)
    return found


def stream(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    tokens: int = 40,
    temperature: float = 0.0,
    seed: int = 0,
) -> Iterator[list[int | None]]:
    """Yield the next token of every prompt, None for those that have ended; as :func:`generate`."""
    check_generation(model, prompts, tokens, temperature)
    draws = [np.random.default_rng([seed, row]) for row in range(len(prompts))]
    ends = end_tokens(model)
    done = [False] * len(prompts)
    ids, valid = left_padded(prompts)
    cache = None
    for _ in range(tokens):
        logits, cache = _read(model, ids, valid, cache)
        step: list[int | None] = []
        for row, values in enumerate(logits):
            token = choose(values, temperature, draws[row].random())
            done[row] = done[row] or token in ends
            step.append(None if done[row] else token)
        if all(done):
            return
        yield step
        ids = torch.tensor([[0 if token is None else token] for token in step])
        valid = torch.cat([valid, torch.tensor([[token is not None] for token in step])], dim=1)


def left_padded(
    rows: Sequence[Sequence[int]],
) -> tuple[Int[Tensor, "batch time"], Bool[Tensor, "batch time"]]:
    """Return rows of ids padded on the left with zeros, and where their own tokens stand."""
    longest = max(map(len, rows))
    ids = torch.tensor([[0] * (longest - len(row)) + list(row) for row in rows])
    starts = torch.tensor([[longest - len(row)] for row in rows])
    return ids, torch.arange(longest)[None] >= starts


def end_tokens(model: LanguageModel) -> frozenset[int]:
    """Return the tokens that end a text."""
    for config in (model.module.generation_config, model.module.config.get_text_config()):
        ends = getattr(config, "eos_token_id", None)
        if ends is not None:
            return frozenset([ends] if isinstance(ends, int) else ends)
    return frozenset()


def choose(logits: Float[Tensor, " vocab"], temperature: float, draw: float) -> int:
    """Return the likeliest token, or the one at ``draw`` (0 to 1) of the distribution."""
    if temperature == 0:
        return int(logits.argmax())
    share = (logits.double() / temperature).softmax(0).cumsum(0)
    return min(int(torch.searchsorted(share, draw * float(share[-1]))), len(logits) - 1)


def _read(
    model: LanguageModel,
    ids: Int[Tensor, "batch time"],
    valid: Bool[Tensor, "batch all"],
    cache: object,
) -> tuple[Float[Tensor, "batch vocab"], object]:
    """Return the logits after the last token of every row, and the cache with the tokens read."""
    inputs: dict[str, Any] = {"input_ids": ids, "past_key_values": cache}
    inputs |= padding_inputs(model, valid)
    if "position_ids" in inputs:
        inputs["position_ids"] = inputs["position_ids"][:, -ids.shape[1] :]
    elif not valid.all():
        inputs["attention_mask"] = valid.long()
    placed = {k: v.to(model.device) if isinstance(v, Tensor) else v for k, v in inputs.items()}
    with torch.no_grad():
        output = model.module(**placed, use_cache=True)
    logits: Tensor = output.logits[:, -1].float()
    if not logits.isfinite().all():
        raise SememeError(
            f"the logits of {model.name} are no longer finite: with an intervention, lower its "
            "strength"
        )
    return logits, getattr(output, "past_key_values", None)


def check_generation(
    model: LanguageModel, prompts: Sequence[Sequence[int]], tokens: int, temperature: float
) -> None:
    """Raise UsageError for what :func:`generate` cannot do."""
    if tokens < 1:
        raise UsageError(f"tokens is {tokens}; expected 1 or more")
    if not (temperature >= 0 and math.isfinite(temperature)):
        raise UsageError(f"temperature is {temperature}; expected 0 or more")
    if not prompts or not all(prompts):
        raise UsageError("prompts has none, or an empty one; expected at least one token in each")
    longest = max(map(len, prompts))
    if longest + tokens > model.context:
        raise UsageError(
            f"the longest prompt has {longest} tokens, and {tokens} new ones are asked, but "
            f"{model.name} reads {model.context} at most: shorten the prompt or ask for fewer"
        )
