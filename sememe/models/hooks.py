"""Forward hooks: what modules read and return while a model runs."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sememe.models.sites import Site


class _Stop(Exception):  # noqa: N818 - a signal, not an error
    """Ends the forward pass when the last site has been read."""


def capture(
    module: nn.Module,
    sites: Sequence[Site],
    run: Callable[[], object],
    see: Callable[[Site, Tensor | None], Tensor | None],
) -> dict[str, Tensor]:
    """Return by site what ``see`` makes of the tensor there while ``run`` runs the module.

    The pass ends at the last site. Of a module that runs several times the first is taken. A site
    is missing from the result when its module does not run, or when ``see`` returns None; ``see``
    is given None where there is no tensor.
    """
    found: dict[str, Tensor] = {}

    def keep(site: Site, value: object) -> None:
        if site.name in found:
            return
        tensor = see(site, first_tensor(value))
        if tensor is None:
            return
        found[site.name] = tensor
        if len(found) == len(sites):
            raise _Stop
        # What follows might work in place; the copy is small beside the layer that made it.
        found[site.name] = tensor.clone()

    handles = [_watch(module, site, keep) for site in sites]
    try:
        with torch.no_grad():
            run()
    except _Stop:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return {site.name: found[site.name] for site in sites if site.name in found}


def _watch(module: nn.Module, site: Site, keep: Callable[[Site, object], None]) -> RemovableHandle:
    target = module.get_submodule(site.path)
    if site.side == "in":
        return target.register_forward_pre_hook(
            lambda _module, args, kwargs: keep(site, args or tuple(kwargs.values())),
            with_kwargs=True,
        )
    return target.register_forward_hook(lambda _module, _args, output: keep(site, output))


def first_tensor(value: object) -> Tensor | None:
    """Return the tensor among a hook's arguments or results: the value or its first element."""
    if isinstance(value, tuple | list) and value:
        value = value[0]
    return value if isinstance(value, Tensor) else None


def by_token(tensor: Tensor | None, shape: torch.Size) -> Tensor | None:
    """Return a module's tensor as (batch, time, width), or None if it has no vector a token.

    Experts and their routers give (batch x time, width), one row a token, which is folded back.
    """
    if tensor is None:
        return None
    if tensor.ndim == 2 and len(tensor) == shape.numel():
        tensor = tensor.unflatten(0, shape)
    return tensor if tensor.ndim == 3 and tensor.shape[:2] == shape else None
