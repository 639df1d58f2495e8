"""Run a torch module on one batch and lay out what it computes as rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import xxhash
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sememe.errors import SememeError, UsageError
from sememe.models.hooks import capture
from sememe.models.sites import Site

# Axis names: inputs = images, sentences, ... of a batch; places = positions in one of them.

Batch = Any
"""A module's input: a tensor, a list or tuple of its arguments, or a mapping of its keywords."""


@dataclass(frozen=True)
class ModuleReader:
    """Reads a module at sites, batch by batch."""

    module: nn.Module
    sites: Sequence[Site]
    name: str
    """How errors name the module."""
    valid: Callable[[Batch], Bool[Tensor, "inputs places"]] | None
    """Given a batch, which places count; None counts all."""
    channel_axis: int | None
    """The axis of the numbers of an activation; None is 1 of four and more axes, else the last."""

    def read(
        self, batch: Batch, number: int
    ) -> tuple[dict[str, Float[Tensor, "inputs places _"]], Bool[Tensor, "inputs places"]]:
        """Return the activations of batch ``number`` by site, and which places count.

        SememeError for a site without finite activations for every input, and for sites that have
        different places.
        """
        inputs = self._inputs(batch, number)
        found = capture(
            self.module,
            self.sites,
            lambda: self._call(batch),
            lambda site, tensor: self._by_place(site, tensor, inputs),
        )
        if missing := [site.name for site in self.sites if site.name not in found]:
            raise SememeError(f"site {missing[0]!r}: that module of {self.name} does not run")
        places = {site: tensor.shape[1] for site, tensor in found.items()}
        if len(set(places.values())) > 1:
            raise SememeError(
                f"the sites have different numbers of places in an input, {places}: what is stored "
                "side by side must have the same; harvest them one by one"
            )
        for site, tensor in found.items():
            if not torch.isfinite(tensor).all():
                raise SememeError(f"batch {number} gives NaN or infinity at {site}")
        return (
            {site: tensor.cpu() for site, tensor in found.items()},
            self._valid(batch, number, inputs, next(iter(places.values()))),
        )

    def _inputs(self, batch: Batch, number: int) -> int:
        """Return how many inputs a batch has: the length of the first tensor in it."""
        parts = [batch]
        if isinstance(batch, Mapping):
            parts = list(batch.values())
        elif isinstance(batch, list | tuple):
            parts = list(batch)
        first = next((part for part in parts if isinstance(part, Tensor) and part.ndim), None)
        if first is None:
            raise UsageError(
                f"batch {number} is {type(batch).__name__} without a tensor: expected the inputs "
                f"of {self.name}"
            )
        return len(first)

    def _call(self, batch: Batch) -> object:
        if isinstance(batch, Mapping):
            return self.module(**batch)
        return self.module(*batch) if isinstance(batch, list | tuple) else self.module(batch)

    def _by_place(
        self, site: Site, tensor: Tensor | None, inputs: int
    ) -> Float[Tensor, "inputs places width"]:
        if tensor is None or not tensor.is_floating_point() or tensor.ndim < 2:
            raise SememeError(f"{_gives(site, tensor)}: expected floats (inputs, ..., width)")
        if len(tensor) != inputs:
            raise SememeError(
                f"{_gives(site, tensor)} for {inputs} inputs: its first axis must be theirs"
            )
        axis = self.channel_axis
        if axis is None:
            axis = 1 if tensor.ndim > 3 else -1
        if not -tensor.ndim < axis < tensor.ndim or axis == 0:
            raise UsageError(f"channel_axis is {axis}, but {_gives(site, tensor)}")
        return tensor.movedim(axis, -1).reshape(inputs, -1, tensor.shape[axis])

    def _valid(
        self, batch: Batch, number: int, inputs: int, places: int
    ) -> Bool[Tensor, "inputs places"]:
        if self.valid is None:
            return torch.ones(inputs, places, dtype=torch.bool)
        kept = self.valid(batch)
        if kept.shape != (inputs, places) or kept.dtype != torch.bool:
            raise UsageError(
                f"valid gives {kept.dtype} {tuple(kept.shape)} for batch {number}: expected "
                f"torch.bool ({inputs}, {places})"
            )
        return kept.cpu()


def _gives(site: Site, tensor: Tensor | None) -> str:
    given = "no tensor" if tensor is None else f"{tensor.dtype} {tuple(tensor.shape)}"
    return f"site {site.name!r} gives {given}"


def checksum_of(value: Any) -> str:  # noqa: ANN401 - batches, weights
    """Return the xxh3-128 of tensors, and of what else there is as it is printed."""
    digest = xxhash.xxh3_128()

    def feed(part: object) -> None:
        if isinstance(part, Tensor):
            digest.update(f"{part.dtype}{tuple(part.shape)}".encode())
            flat = part.detach().cpu().contiguous().view(-1).view(torch.uint8)
            digest.update(flat.numpy().data)
        elif isinstance(part, Mapping):
            feed([[key, part[key]] for key in sorted(part)])
        elif isinstance(part, list | tuple):
            digest.update(f"[{len(part)}".encode())
            for item in part:
                feed(item)
        else:
            digest.update(repr(part).encode())

    feed(value)
    return digest.hexdigest()
