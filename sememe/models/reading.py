"""Read the activations of a model at sites, and run it with an activation replaced."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sememe.errors import SememeError
from sememe.models.language_model import LanguageModel
from sememe.models.sites import Site, first_tensor

# Axis names: batch = documents or windows, time = tokens, width = numbers of one activation.


class _Stop(Exception):  # noqa: N818 - a signal, not an error
    """Ends the forward pass when the last site has been read."""


def read(
    model: LanguageModel, ids: Int[Tensor, "batch time"], sites: Sequence[str]
) -> dict[str, Float[Tensor, "batch time width"]]:
    """Return the activation of each site for every token, as a forward hook there would see it.

    The pass ends at the last site needed. Rows that are shorter than ``time`` are padded on the
    right with any valid id: every token sees only what is before it, so no mask is needed, and what
    comes out at padding is to be ignored. Of a module that runs several times the first is read.

    Raises UsageError for a site that the model lacks, and SememeError for a module that does not
    run, or does not give a tensor of (batch, time, width).
    """
    if not sites:
        return {}
    wanted = {name: model.site(name) for name in dict.fromkeys(sites)}
    found: dict[str, Tensor] = {}

    def keep(site: Site, value: object) -> None:
        if site.name in found:
            return
        tensor = first_tensor(value)
        if tensor is None or tensor.ndim != 3 or tensor.shape[:2] != ids.shape:
            shape = "no tensor" if tensor is None else f"a tensor of shape {tuple(tensor.shape)}"
            raise SememeError(
                f"site {site.name!r} of {model.name} gives {shape}, but (batch, time, width) = "
                f"({ids.shape[0]}, {ids.shape[1]}, ...) is needed; choose another module"
            )
        found[site.name] = tensor
        if len(found) == len(wanted):
            raise _Stop
        # What follows might work in place; the copy is small beside the layer that made it.
        found[site.name] = tensor.clone()

    handles = [_watch(model.module, site, keep) for site in wanted.values()]
    try:
        with torch.no_grad():
            model.module(input_ids=ids.to(model.device), use_cache=False)
    except _Stop:
        return {name: found[name] for name in wanted}
    finally:
        for handle in handles:
            handle.remove()
    missing = next(name for name in wanted if name not in found)
    raise SememeError(
        f"site {missing!r}: that module of {model.name} does not run when it reads text; "
        "choose another"
    )


def _watch(module: nn.Module, site: Site, keep: Callable[[Site, object], None]) -> RemovableHandle:
    target = module.get_submodule(site.path)
    if site.side == "in":
        return target.register_forward_pre_hook(
            lambda _module, args, kwargs: keep(site, args or tuple(kwargs.values())),
            with_kwargs=True,
        )
    return target.register_forward_hook(lambda _module, _args, output: keep(site, output))


@contextmanager
def replaced(
    model: LanguageModel,
    site: str,
    function: Callable[[Float[Tensor, "batch time width"]], Float[Tensor, "batch time width"]],
) -> Iterator[None]:
    """Inside the context, the model goes on with ``function(activation)`` at ``site``.

    Contexts nest: a later one at the same site sees what the earlier one returned, and so does
    :func:`read`. UsageError for a site that the model lacks.
    """
    place = model.site(site)
    target = model.module.get_submodule(place.path)

    def change(tensor: Tensor) -> Tensor:
        new = function(tensor)
        if new.shape != tensor.shape:
            raise SememeError(
                f"the replacement at {site} has shape {tuple(new.shape)}, the activation "
                f"{tuple(tensor.shape)}: they must be equal"
            )
        return new.to(tensor.dtype)

    if place.side == "in":
        handle = target.register_forward_pre_hook(
            lambda _module, args: (change(args[0]), *args[1:]),
        )
    else:
        handle = target.register_forward_hook(
            lambda _module, _args, output: (
                (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)
            )
        )
    try:
        yield
    finally:
        handle.remove()
