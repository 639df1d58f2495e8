"""Where the tokens of a pass stand: in which row, at which position, read before or new."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from sememe.errors import SememeError
from sememe.models.language_model import LanguageModel

# Axis names: batch = rows of a pass, time = their tokens, padding included, tokens = without it.


class Pass(NamedTuple):
    """One run of a model over some tokens."""

    valid: Bool[Tensor, "batch time"]
    """Which are no padding on the left; padding on the right is not told from text."""
    ids: Int[Tensor, " tokens"]
    position: Int[Tensor, " tokens"]
    """As the model counts: 0 is the first token of a row, its BOS if it has one."""
    new: Bool[Tensor, " tokens"]
    """Whether the token was generated, and not part of the prompt."""

    @property
    def row(self) -> Int[Tensor, " tokens"]:
        """The row that each token stands in."""
        return self.valid.nonzero()[:, 0]

    @classmethod
    def of(cls, arguments: dict[str, Any], prompt: Sequence[int] | int | None) -> "Pass":
        """Return where the tokens stand, from what the model is given.

        A token is new if the model reads it on top of a cache, or, where the lengths of the prompts
        are told, if it stands behind the prompt of its row.
        """
        ids = arguments.get("input_ids")
        if ids is None:
            raise SememeError("the model is given vectors, but interventions need input_ids")
        cache = arguments.get("past_key_values")
        before = int(cache.get_seq_length()) if cache is not None else 0
        mask = arguments.get("attention_mask")
        if isinstance(mask, Tensor) and mask.ndim == 2:
            own = mask.to(ids.device).bool()
            valid = own[:, -ids.shape[1] :]
            position = (own.long().cumsum(1) - 1)[:, -ids.shape[1] :]
        else:
            valid = torch.ones_like(ids, dtype=torch.bool)
            position = (before + torch.arange(ids.shape[1], device=ids.device)).expand_as(ids)
        if prompt is None:
            new = torch.full_like(valid, before > 0)
        else:
            new = position >= torch.as_tensor(prompt, device=ids.device).reshape(-1, 1)
        return cls(valid, ids[valid], position[valid], new[valid])


@contextmanager
def watched(
    model: LanguageModel, begin: Callable[[dict[str, Any]], None], end: Callable[[], None]
) -> Iterator[None]:
    """Inside the context ``begin`` is given the arguments of each pass, and ``end`` ends it.

    A pass that is broken off (a reader that has seen enough, an error) does not end.
    """

    def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        begin({"input_ids": args[0], **kwargs} if args else kwargs)

    handles = [
        model.module.register_forward_pre_hook(before, with_kwargs=True),
        model.module.register_forward_hook(lambda _module, _args, _output: end()),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
