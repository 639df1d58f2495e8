"""Text with and without changed features, side by side, and how broken the changed text is."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sememe.evaluation.metrics import cross_entropy
from sememe.intervention.intervene import Applied, Changes, intervene
from sememe.models.generation import generate, prompt_ids
from sememe.models.language_model import LanguageModel

GRAM = 4
"""Neighbouring tokens that count as a phrase."""
BROKEN_PERPLEXITY = 5.0
"""Times the perplexity of the unsteered text from which a warning is given."""
BROKEN_REPETITION = 0.5
"""Share of phrases that were there before from which one is."""


@dataclass(frozen=True)
class Continuation:
    """What a model wrote after a prompt, judged by the model as it is."""

    text: str
    tokens: list[int]
    loss: float
    """Sum of -log p(token), in nats, by the model without any intervention."""

    @property
    def perplexity(self) -> float | None:
        """Of the new tokens by the unsteered model; None where there is none."""
        return perplexity([self])

    @property
    def repetition(self) -> float:
        """Share of its phrases of four tokens that were there before."""
        grams = [tuple(self.tokens[n : n + GRAM]) for n in range(len(self.tokens) - GRAM + 1)]
        return 1 - len(set(grams)) / len(grams) if grams else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {**asdict(self), "perplexity": self.perplexity, "repetition": self.repetition}


@dataclass(frozen=True)
class Pair:
    """The continuations of one prompt."""

    prompt: str
    unsteered: Continuation
    steered: Continuation


@dataclass(frozen=True)
class Steered:
    """What steering did to some prompts."""

    pairs: list[Pair]
    applied: list[Applied]
    """How often each change was applied while the steered text was written."""

    @property
    def warning(self) -> str | None:
        """Why the strengths look too much for the model, with the figures; None if they do not.

        Where the perplexity of the steered text, by the unsteered model, is more than five times
        that of the unsteered text, or most of its phrases repeat earlier ones.
        """
        before, after = ([getattr(pair, way) for pair in self.pairs] for way in _WAYS)
        plain, steered = perplexity(before), perplexity(after)
        if plain is not None and steered is not None and steered > BROKEN_PERPLEXITY * plain:
            return (
                f"the steered text has perplexity {steered:.3g} under the unsteered model, whose "
                f"own text has {plain:.3g}: the strengths may be too much for it"
            )
        repeated = [sum(each.repetition for each in part) / len(part) for part in (before, after)]
        if repeated[1] > BROKEN_REPETITION >= repeated[0]:
            return (
                f"{repeated[1]:.0%} of the steered text's phrases repeat earlier ones, of the "
                f"unsteered text's {repeated[0]:.0%}: the strengths may be too much for the model"
            )
        return None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "features": [each.to_json() for each in self.applied],
            "prompts": [
                {"prompt": pair.prompt, **{way: getattr(pair, way).to_json() for way in _WAYS}}
                for pair in self.pairs
            ],
            "perplexity": {
                way: perplexity([getattr(pair, way) for pair in self.pairs]) for way in _WAYS
            },
            "warning": self.warning,
        }


_WAYS = ("unsteered", "steered")


def steer(
    model: LanguageModel,
    changes: Changes,
    prompts: Sequence[str],
    *,
    tokens: int = 40,
    temperature: float = 0.0,
    seed: int = 0,
) -> Steered:
    """Continue prompts without and with changed features, with the same draws.

    ``changes`` as of :func:`sememe.intervene`, ``tokens``, ``temperature`` and ``seed`` as of
    :func:`sememe.generate`, and so are the errors; SememeError also where a change missed a token.
    """
    rows = [prompt_ids(model, prompt) for prompt in prompts]
    with intervene(model, changes) as run:
        steered = generate(model, rows, tokens=tokens, temperature=temperature, seed=seed)
        applied = run.report()
    plain = generate(model, rows, tokens=tokens, temperature=temperature, seed=seed)
    pairs = [
        Pair(prompt, _judged(model, row, a), _judged(model, row, b))
        for prompt, row, a, b in zip(prompts, rows, plain, steered, strict=True)
    ]
    return Steered(pairs, applied)


def perplexity(texts: Sequence[Continuation]) -> float | None:
    """Return the perplexity of all new tokens together; None where there is none."""
    count = sum(len(text.tokens) for text in texts)
    return math.exp(sum(text.loss for text in texts) / count) if count else None


def _judged(model: LanguageModel, prompt: list[int], new: list[int]) -> Continuation:
    losses = token_losses(model, [*prompt, *new])[len(prompt) - 1 :] if new else torch.zeros(0)
    return Continuation(model.tokenizer.decode(new), new, float(losses.double().sum()))


@torch.no_grad()
def token_losses(model: LanguageModel, ids: list[int]) -> Float[Tensor, " following"]:
    """Return -log p of every token but the first, in nats."""
    row = torch.tensor([ids], device=model.device)
    return cross_entropy(model.logits(row)[0, :-1], row[0, 1:]).cpu()
