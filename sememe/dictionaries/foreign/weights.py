"""Weights of a foreign dictionary in our orientation, and the dictionary that they make."""

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sememe.artefacts import checksum, read_json
from sememe.dictionaries.config import DictionaryConfig
from sememe.dictionaries.dictionary import Dictionary
from sememe.dictionaries.nonlinearities import Nonlinearity
from sememe.errors import SememeError, UsageError


class Foreign(NamedTuple):
    """What a format's files say: f = sigma(W_enc (s x - c) + b_enc), x^ = (f W_dec + b_dec) / s."""

    W_enc: Float[Tensor, "features width"]
    W_dec: Float[Tensor, "features write_width"]
    b_enc: Float[Tensor, " features"]
    b_dec: Float[Tensor, " write_width"]
    nonlinearity: Nonlinearity
    extra: Mapping[str, Tensor]
    """What the nonlinearity keeps beside the encoder."""
    files: dict[str, str]
    """Checksums of the files read, by name."""
    hooks: tuple[str | None, ...]
    """Where it reads, and where it writes if that is elsewhere, in the format's names."""
    sites: tuple[str | None, ...]
    """The same in ours; None where there is no such site."""
    centred: bool = True
    """Whether c is b_dec; 0 otherwise."""
    scale: float | None = 1.0
    """s; None if it was not 1 and the files leave it out."""
    W_skip: Float[Tensor, "write_width width"] | None = None

    def scaled_by(self, scale: float) -> "Foreign":
        """Return it with another scale; UsageError where the files have their own."""
        if not 0 < scale < math.inf:
            raise UsageError(f"scale is {scale}; expected a positive number")
        if self.scale is not None:
            raise UsageError(f"scale is {scale}, but the files say {self.scale:g}: leave it out")
        return self._replace(scale=scale)

    def dictionary(self, sites: tuple[str, ...]) -> Dictionary:
        """Return our dictionary, with unit decoder rows where the kind allows it."""
        if self.scale is None:
            raise SememeError(
                "activations were multiplied by their average norm's inverse in training, and the "
                "files do not say by how much: give --scale, sqrt(width) / the mean norm"
            )
        config = DictionaryConfig(
            reads=sites[:1],
            writes=sites[-1:],
            read_widths=(self.W_enc.shape[1],),
            write_widths=(self.W_dec.shape[1],),
            features=len(self.W_enc),
            nonlinearity=self.nonlinearity,
            centre="tied" if self.centred else "none",
            skip=self.W_skip is not None,
        )
        dictionary = Dictionary(config, [self.scale], [self.scale])
        weights = {"W_enc": self.W_enc, "W_dec": self.W_dec, "b_enc": self.b_enc}
        weights |= {"b_dec": self.b_dec}
        weights |= {f"learnt.{name}": value for name, value in self.extra.items()}
        weights |= {"read_scale": dictionary.read_scale, "write_scale": dictionary.write_scale}
        if self.W_skip is not None:
            weights["W_skip"] = self.W_skip
        try:
            dictionary.load_state_dict({name: value.float() for name, value in weights.items()})
        except RuntimeError as error:
            raise SememeError(f"the weights do not fit each other: {error}") from error
        if self.nonlinearity.rescalable:
            dictionary.unit_rows()
        return dictionary


class Files:
    """The config and the weights of a directory; every tensor must be asked for."""

    def __init__(self, directory: Path, config: str, weights: str) -> None:
        self.directory = directory
        self.config: dict[str, Any] = read_json(directory / config)
        self.weights = directory / weights
        if not isinstance(self.config, dict):
            raise SememeError(f"{directory / config} holds no JSON object")
        if not self.weights.exists():
            raise SememeError(f"{self.weights} does not exist")
        try:
            self.tensors = load_file(self.weights)
        except SafetensorError as error:
            raise SememeError(f"{self.weights} is not a safetensors file: {error}") from error
        self.checksums = {name: checksum(directory / name) for name in (config, weights)}

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def take(self, name: str) -> Tensor:
        """Return a tensor in fp32; SememeError if it is missing or not finite."""
        if name not in self.tensors:
            raise SememeError(f"{self.weights} lacks the tensor {name}")
        value = self.tensors.pop(name).float()
        if not value.isfinite().all():
            raise SememeError(f"{self.weights}: {name} holds NaN or infinite numbers")
        return value

    def setting(self, name: str, kind: type = str) -> Any:  # noqa: ANN401 - any JSON value
        """Return a setting that the config must have; SememeError if it is missing."""
        value = self.config.get(name)
        if not isinstance(value, kind):
            raise SememeError(
                f"{self.directory}: {name} in the config is {value!r}; expected {kind.__name__}"
            )
        return value

    def refuse(self, what: str, why: str) -> SememeError:
        """Return the error for what a dictionary of ours cannot be."""
        return SememeError(f"{self.directory} cannot be imported: {what} {why}")

    def finish(self) -> None:
        """Raise SememeError if there are tensors that nothing asked for: they would be ignored."""
        if self.tensors:
            names = ", ".join(sorted(self.tensors))
            raise self.refuse(names, "in its weights is nothing that this architecture has")


def threshold(value: Tensor, features: int) -> dict[str, Tensor]:
    """Return JumpReLU's extras; the peers' ReLU makes a threshold below zero the same as zero."""
    return {"threshold": value.expand(features).clamp_min(0).clone()}


def translated(
    name: str | None, table: tuple[tuple[str, Callable[[int], str | None]], ...]
) -> str | None:
    """Return our site for a format's name: the first pattern that fits, given its layer."""
    for pattern, site in table:
        if match := re.fullmatch(pattern, name or ""):
            return site(int(match[1]))
    return None


def sites_of(foreign: Foreign, given: tuple[str, ...]) -> tuple[str, ...]:
    """Return the sites given, or else those of the files; UsageError where neither says."""
    wanted = len(foreign.hooks)
    if not given and None not in foreign.sites:
        return tuple(site for site in foreign.sites if site is not None)
    if len(given) != wanted:
        said = ", ".join(hook or "nothing" for hook in foreign.hooks)
        raise UsageError(
            f"--site is {' '.join(given) or 'not given'}, but the dictionary has {wanted} "
            f"(it says {said}): give {'its site' if wanted == 1 else 'what it reads and writes'}"
        )
    return given
