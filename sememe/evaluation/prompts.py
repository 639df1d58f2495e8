"""Prompts that ask about one word or name: its activation, the answer, and what changes it.

Axis names: prompts = those asked, width = of an activation, among = tokens compared in each.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sememe.evaluation.readings import BATCH_TOKENS
from sememe.models.language_model import LanguageModel
from sememe.models.reading import read, replaced
from sememe.models.tokenizer import Tokenizer


class Prompt(NamedTuple):
    """Tokens that are to be answered, BOS in front where the model wants it."""

    ids: list[int]
    at: int
    """Place of the last token of what is asked about."""


def prompt_of(tokenizer: Tokenizer, before: str, asked: str, after: str) -> Prompt | None:
    """Return the tokens of the three parts; None where tokens straddle the end of ``asked``."""
    lead = [] if tokenizer.bos is None else [tokenizer.bos]
    ids, until = tokenizer.encode(before + asked + after), tokenizer.encode(before + asked)
    if ids[: len(until)] != until or len(ids) == len(until):
        return None
    return Prompt(lead + ids, len(lead) + len(until) - 1)


def asked_activations(
    model: LanguageModel, site: str, prompts: Sequence[Prompt]
) -> Float[Tensor, "prompts width"]:
    """Return the activation of the last token of what each prompt asks about, fp32."""
    found = torch.zeros(len(prompts), model.width(site))
    for members, ids, _last in _batches([Prompt(p.ids[: p.at + 1], p.at) for p in prompts]):
        at = torch.tensor([prompts[n].at for n in members])
        found[members] = read(model, ids, [site])[site].float().cpu()[torch.arange(len(at)), at]
    return found


class Answers(NamedTuple):
    """What comes after prompts."""

    token: Int[Tensor, " prompts"]
    """The likeliest next token."""
    logits: Float[Tensor, "prompts among"]
    """Of the tokens that were asked for."""


@torch.no_grad()
def answers(
    model: LanguageModel,
    site: str,
    prompts: Sequence[Prompt],
    among: Int[Tensor, "prompts among"],
    added: Float[Tensor, "prompts width"] | None = None,
) -> Answers:
    """Return what the model says, with ``added`` to the activation of what is asked about."""
    token = torch.zeros(len(prompts), dtype=torch.long)
    logits = torch.zeros(among.shape)
    for members, ids, last in _batches(prompts):
        at = torch.tensor([prompts[n].at for n in members])
        change = nullcontext() if added is None else _added(model, site, at, added[members])
        with change:
            final = model.logits(ids)[torch.arange(len(last)), last].float().cpu()
        token[members] = final.argmax(1)
        logits[members] = final.gather(1, among[members])
    return Answers(token, logits)


def gradients(
    model: LanguageModel,
    site: str,
    prompts: Sequence[Prompt],
    among: Int[Tensor, "prompts among"],
    weight: Float[Tensor, "prompts among"],
) -> Float[Tensor, "prompts width"]:
    """Return d (weighted sum of the logits ``among``) / d (activation of what is asked about)."""
    found = torch.zeros(len(prompts), model.width(site))
    for members, ids, last in _batches(prompts):
        at = torch.tensor([prompts[n].at for n in members])
        own = torch.zeros(len(members), found.shape[1], requires_grad=True)
        with _added(model, site, at, own):
            final = model.logits(ids, grad=True)[torch.arange(len(last)), last].float().cpu()
        total = (final.gather(1, among[members]) * weight[members]).sum()
        (found[members],) = torch.autograd.grad(total, own)
    return found


def _added(
    model: LanguageModel, site: str, at: Int[Tensor, " batch"], added: Float[Tensor, "batch width"]
) -> AbstractContextManager[None]:
    return replaced(model, site, partial(_add, at, added))


def _add(
    at: Int[Tensor, " batch"],
    added: Float[Tensor, "batch width"],
    activation: Float[Tensor, "batch time width"],
) -> Float[Tensor, "batch time width"]:
    changed = activation.clone()
    changed[torch.arange(len(at)), at] += added.to(activation)
    return changed


def _batches(
    prompts: Sequence[Prompt],
) -> Iterator[tuple[list[int], Int[Tensor, "batch time"], Int[Tensor, " batch"]]]:
    """Yield prompts of similar lengths: their numbers, their tokens, and where they end."""
    order = sorted(range(len(prompts)), key=lambda number: -len(prompts[number].ids))
    first = 0
    while first < len(order):
        longest = len(prompts[order[first]].ids)
        members = order[first : first + max(1, BATCH_TOKENS // 4 // longest)]
        rows = [torch.tensor(prompts[number].ids) for number in members]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        yield members, ids, torch.tensor([len(row) - 1 for row in rows])
        first += len(members)
