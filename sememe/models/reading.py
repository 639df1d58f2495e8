"""Read the activations of a model at sites, and run it with an activation replaced."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sememe.errors import SememeError, UsageError
from sememe.models.hooks import by_token, capture
from sememe.models.language_model import LanguageModel
from sememe.models.parts import RandomProjection
from sememe.models.sites import Site

# Axis names: batch = documents or windows, time = tokens, width = numbers of one activation.


def read(
    model: LanguageModel,
    ids: Int[Tensor, "batch time"],
    sites: Sequence[str],
    *,
    valid: Bool[Tensor, "batch time"] | None = None,
) -> dict[str, Float[Tensor, "batch time width"]]:
    """Return the activation of each site for every token, as a forward hook there would see it.

    The pass ends at the last site needed. Rows that are shorter than ``time`` are padded on the
    right with any valid id: every token sees only what is before it, so no mask is needed, and what
    comes out at padding is to be ignored. Rows padded on the left need ``valid``, which is true
    where their own tokens stand. Of a module that runs several times the first is read.

    Raises UsageError for a site that the model lacks and for ``valid`` with gaps, and SememeError
    for a module that does not run, or does not give a vector for every token.
    """
    if not sites:
        return {}
    wanted = {name: model.site(name) for name in dict.fromkeys(sites)}
    folded: list[str] = []

    def see(site: Site, tensor: Tensor | None) -> Tensor:
        whole = by_token(tensor, ids.shape)
        if whole is None:
            raise SememeError(_unfit(model, site, tensor, ids.shape))
        if tensor is not None and tensor.ndim == 2:
            folded.append(site.name)
        return site.part.take(whole) if site.part else whole

    inputs = {"input_ids": ids, "use_cache": False, **padding_inputs(model, valid)}
    inputs = {k: v.to(model.device) if isinstance(v, Tensor) else v for k, v in inputs.items()}
    found = capture(model.module, list(wanted.values()), lambda: model.module(**inputs), see)
    if missing := [name for name in wanted if name not in found]:
        raise SememeError(
            f"site {missing[0]!r}: that module of {model.name} does not run when it reads text; "
            "choose another"
        )
    for name in folded:
        model.width(name)  # refuses a module that has the rows in another order than the tokens
    return found


def _unfit(model: LanguageModel, site: Site, tensor: Tensor | None, shape: torch.Size) -> str:
    given = "no tensor" if tensor is None else f"a tensor of shape {tuple(tensor.shape)}"
    advice = "choose another module"
    if tensor is not None and tensor.ndim == 2:
        advice = (
            "an expert reads only the tokens that are routed to it: choose the module that holds "
            "all experts"
        )
    return (
        f"site {site.name!r} of {model.name} gives {given}, but (batch, time, width) = "
        f"({shape[0]}, {shape[1]}, ...) is needed; {advice}"
    )


def padding_inputs(
    model: LanguageModel, valid: Bool[Tensor, "batch time"] | None
) -> dict[str, Tensor]:
    """Return the inputs that keep padding on the left from being seen; none without any.

    Raises UsageError for ``valid`` with gaps, SememeError for a model that takes no positions.
    """
    if valid is None:
        return {}
    begins = valid[:, 0].int() + (valid[:, 1:] & ~valid[:, :-1]).sum(1)
    if (begins > 1).any():
        raise UsageError("valid has a gap: the tokens of a row must stand next to each other")
    if valid[:, 0].all():
        return {}
    if "position_ids" not in inspect.signature(model.module.forward).parameters:
        raise SememeError(
            f"{model.name} takes no positions, so that rows padded on the left would be read "
            "wrongly: read rows of one length, or pad on the right"
        )
    positions = (valid.long().cumsum(1) - 1).clamp(min=0)
    return {"attention_mask": valid.long(), "position_ids": positions}


@contextmanager
def replaced(
    model: LanguageModel,
    site: str,
    function: Callable[[Float[Tensor, "batch time width"]], Float[Tensor, "batch time width"]],
) -> Iterator[None]:
    """Inside the context, the model goes on with ``function(activation)`` at ``site``.

    Contexts nest: a later one at the same site sees what the earlier one returned, and so does
    :func:`read`. Of a part of a vector (a head, the logits of some tokens) the rest stays.

    Raises UsageError for a site that the model lacks and for a random projection, which many
    activations share. Inside, SememeError for another shape and for a router, whose choice of
    experts is not made from what it returns first.
    """
    place = model.site(site)
    part = place.part
    if isinstance(part, RandomProjection):
        raise UsageError(
            f"site {site!r} can be read but not replaced: many logits have the same projection; "
            "replace logits, or logits.tokens.IDS"
        )
    shapes: list[torch.Size] = []

    def note_shape(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = [*args, kwargs.get("input_ids"), kwargs.get("inputs_embeds")]
        shapes[:] = [next(x for x in given if isinstance(x, Tensor)).shape[:2]]

    def change(tensor: Tensor) -> Tensor:
        if not shapes:
            raise SememeError(
                f"a part of {model.name} is run by itself: run the whole model, so that the number "
                f"of tokens at site {site!r} is known"
            )
        whole = by_token(tensor, shapes[0])
        if whole is None:
            raise SememeError(_unfit(model, place, tensor, shapes[0]))
        old = part.take(whole) if part else whole
        new = function(old)
        if new.shape != old.shape:
            raise SememeError(
                f"the replacement at {site} has shape {tuple(new.shape)}, the activation "
                f"{tuple(old.shape)}: they must be equal"
            )
        new = new.to(tensor.dtype)
        return (part.put(whole, new) if part else new).reshape(tensor.shape)

    def change_output(output: object) -> object:
        if isinstance(output, tuple) and output[0].ndim == 2:
            raise SememeError(
                f"site {site!r} of {model.name} can be read but not replaced: it is a router, "
                "whose choice of experts stands in its other outputs; replace what it reads, "
                f"module:{place.path}:in"
            )
        return _with_first(output, change)

    target = model.module.get_submodule(place.path)
    handles = [
        model.module.register_forward_pre_hook(note_shape, with_kwargs=True),
        target.register_forward_pre_hook(
            lambda _module, args, kwargs: (
                (_with_first(args, change), kwargs) if args else (args, _with_first(kwargs, change))
            ),
            with_kwargs=True,
        )
        if place.side == "in"
        else target.register_forward_hook(lambda _module, _args, output: change_output(output)),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def check_replaceable(model: LanguageModel, site: str) -> None:
    """Raise what :func:`replaced` raises at ``site``, before work that needs it. Reads a token."""
    with replaced(model, site, lambda activation: activation):
        model.logits(torch.zeros((1, 1), dtype=torch.long))


def _with_first(values: Any, change: Callable[[Tensor], Tensor]) -> Any:  # noqa: ANN401
    """Return a hook's arguments or results with the first changed."""
    if isinstance(values, tuple):
        return (change(values[0]), *values[1:])
    if isinstance(values, dict):
        first = next(iter(values))
        return {**values, first: change(values[first])}
    return change(values)
