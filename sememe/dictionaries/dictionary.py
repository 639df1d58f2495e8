"""The dictionary: encoder, decoder, biases and scale, and their directory on disk."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save
from torch import Tensor, nn

from sememe.artefacts import read_json, read_manifest, verify_files, write_bytes, write_json
from sememe.artefacts import write_manifest as finish
from sememe.dictionaries.config import DictionaryConfig
from sememe.dictionaries.nonlinearities import Activity
from sememe.errors import SememeError, UsageError
from sememe.kernels import Code, decode

WEIGHTS = "dictionary.safetensors"
CONFIG = "config.json"
KIND = "dictionary"


class Folded(NamedTuple):
    """Weights for raw activations: f = nonlinearity(W_enc x + b_enc), x^ = f W_dec + b_dec."""

    W_enc: Float[Tensor, "features width"]
    W_dec: Float[Tensor, "features width"]
    b_enc: Float[Tensor, " features"]
    b_dec: Float[Tensor, " width"]


class Dictionary(nn.Module):
    """Writes an activation as a sparse sum of feature directions.

    With s the scale, sigma the nonlinearity, and c = b_dec (centre ``tied``) or 0 (``none``)::

        f  = sigma(W_enc (s x - c) + b_enc)
        x^ = (sum_i f_i W_dec[i] + b_dec) / s

    Both matrices are (features, width); rows of W_dec have norm 1. ``encode``, ``decode`` and
    ``forward`` take and give raw activations; values of a code are in scaled units.
    """

    def __init__(self, config: DictionaryConfig, scale: float = 1.0) -> None:
        super().__init__()
        self.config = config
        shape = (config.features, config.width)
        self.W_enc = nn.Parameter(torch.zeros(shape))
        self.W_dec = nn.Parameter(torch.zeros(shape))
        self.b_enc = nn.Parameter(torch.zeros(config.features))
        self.b_dec = nn.Parameter(torch.zeros(config.width))
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))
        self.scale: Tensor
        self.manifest: dict[str, Any] = {}
        """The manifest it was loaded or saved with; empty before."""

    def encode(self, x: Float[Tensor, "rows width"]) -> Code:
        """Return the code of raw activations, largest value first in every row."""
        self._check_width(x)
        centred = self.centred(x * self.scale)
        return self.config.nonlinearity.encode(centred, self.W_enc, self.b_enc)

    def decode(self, code: Code) -> Float[Tensor, "rows width"]:
        """Return the raw activations that a code stands for."""
        return (decode(code, self.W_dec) + self.b_dec) / self.scale

    def forward(self, x: Float[Tensor, "rows width"]) -> Float[Tensor, "rows width"]:
        """Return the reconstruction of raw activations."""
        return self.decode(self.encode(x))

    def centred(self, x: Float[Tensor, "rows width"]) -> Float[Tensor, "rows width"]:
        """Return scaled inputs as the encoder sees them."""
        return x - self.b_dec if self.config.centre == "tied" else x

    def activate(self, x: Float[Tensor, "rows width"]) -> Activity:
        """Return the differentiable feature values of scaled inputs, for training."""
        return self.config.nonlinearity.forward(self.centred(x), self.W_enc, self.b_enc)

    def rebuild(self, activity: Activity) -> Float[Tensor, "rows width"]:
        """Return the scaled reconstruction from feature values, for training."""
        if isinstance(activity, Code):
            return decode(activity, self.W_dec) + self.b_dec
        return torch.addmm(self.b_dec, activity, self.W_dec)

    def fold(self) -> Folded:
        """Return weights with the scale and the centre folded in; codes stay the same."""
        with torch.no_grad():
            moved = self.W_enc @ self.b_dec if self.config.centre == "tied" else 0.0
            return Folded(
                W_enc=self.W_enc * self.scale,
                W_dec=self.W_dec / self.scale,
                b_enc=self.b_enc - moved,
                b_dec=self.b_dec / self.scale,
            )

    def directions(self, features: Int[Tensor, " n"] | None = None) -> Float[Tensor, "n width"]:
        """Return decoder rows (of ``features``, or all), detached."""
        rows = self.W_dec.detach()
        return rows if features is None else rows[features]

    def check_fits(
        self, *, model_hash: str | None = None, site: str | None = None, width: int | None = None
    ) -> None:
        """Raise UsageError, naming both values, unless it was made for these."""
        own = self.manifest.get("made_from", {}).get("model")
        pairs = [
            ("model", own, model_hash),
            ("site", self.config.reads[0], site),
            ("width", self.config.width, width),
        ]
        for name, made_for, asked in pairs:
            if asked is not None and made_for is not None and asked != made_for:
                raise UsageError(
                    f"the dictionary was made for {name} {made_for}, but {name} {asked} is asked: "
                    f"use that {name}, or train a dictionary for {asked}"
                )

    def save(
        self, directory: Path, *, made_from: Mapping[str, object], **facts: object
    ) -> dict[str, Any]:
        """Write weights, config.json and last the manifest to ``directory``; return the manifest.

        ``made_from`` names model, tokenizer, corpus and activations by hash; ``facts`` may hold
        anything else a reader should know (figures of the training, its config).
        """
        directory.mkdir(parents=True, exist_ok=True)
        weights = {name: value.contiguous().cpu() for name, value in self.state_dict().items()}
        write_bytes(directory / WEIGHTS, save(weights))
        write_json(directory / CONFIG, self.config.to_json())
        self.manifest = finish(
            directory,
            KIND,
            config=self.config.to_json(),
            made_from=made_from,
            files=[WEIGHTS, CONFIG],
            **facts,
        )
        return self.manifest

    @classmethod
    def load(cls, directory: Path) -> "Dictionary":
        """Return the dictionary in ``directory``, its files compared with their checksums."""
        manifest = read_manifest(directory, KIND)
        verify_files(directory, manifest)
        config = DictionaryConfig.from_json(read_json(directory / CONFIG))
        dictionary = cls(config)
        try:
            dictionary.load_state_dict(load_file(directory / WEIGHTS))
        except RuntimeError as error:
            raise SememeError(
                f"{directory / WEIGHTS} does not fit its config.json: {error}"
            ) from error
        dictionary.manifest = manifest
        return dictionary

    def _check_width(self, x: Tensor) -> None:
        if x.shape[-1] != self.config.width:
            raise UsageError(
                f"activations of width {x.shape[-1]} were given to a dictionary of width "
                f"{self.config.width} (site {self.config.reads[0]}): read the site it was made for"
            )
