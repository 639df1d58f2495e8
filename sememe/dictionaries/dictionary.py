"""The dictionary: encoder, decoder, biases and scale, and their directory on disk."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save
from torch import Tensor, nn

from sememe.artefacts import read_json, read_manifest, verify_files, write_bytes, write_json
from sememe.artefacts import write_manifest as finish
from sememe.dictionaries.config import DictionaryConfig
from sememe.dictionaries.nonlinearities import Nonlinearity
from sememe.dictionaries.scores import Activity, Encoder
from sememe.errors import SememeError, UsageError
from sememe.kernels import Code, centred, decode, reconstruct, squared_distance

WEIGHTS = "dictionary.safetensors"
CONFIG = "config.json"
KIND = "dictionary"


class Folded(NamedTuple):
    """Weights for raw activations: f = sigma(W_enc x + b_enc), x^ = f W_dec + b_dec + W_skip x.

    sigma works with ``extra`` in place of the dictionary's own; codes do not change.
    """

    W_enc: Float[Tensor, "features width"]
    W_dec: Float[Tensor, "features write_width"]
    b_enc: Float[Tensor, " features"]
    b_dec: Float[Tensor, " write_width"]
    extra: Mapping[str, Tensor]
    """What the nonlinearity keeps beside the encoder: thresholds, gates."""
    W_skip: Float[Tensor, "write_width width"] | None = None


class Dictionary(nn.Module):
    """Writes an activation as a sparse sum of feature directions.

    With s_r and s_w the scales of the sites read and written, sigma the nonlinearity, and
    c = b_dec (centre ``tied``) or 0 (``none``)::

        f  = sigma(W_enc (s_r x - c) + b_enc)
        x^ = (sum_i f_i W_dec[i] + b_dec + W_skip s_r x) / s_w

    W_enc is (features, width), W_dec (features, write_width) with rows of norm 1; W_skip is there
    for skip transcoders only. ``encode``, ``decode`` and ``forward`` take and give raw activations,
    several sites side by side; values of a code are in scaled units.
    """

    def __init__(
        self,
        config: DictionaryConfig,
        read_scales: Sequence[float] = (),
        write_scales: Sequence[float] = (),
    ) -> None:
        super().__init__()
        self.config = config
        features, width, write_width = config.features, config.width, config.write_width
        self.W_enc = nn.Parameter(torch.zeros(features, width))
        self.W_dec = nn.Parameter(torch.zeros(features, write_width))
        self.b_enc = nn.Parameter(torch.zeros(features))
        self.b_dec = nn.Parameter(torch.zeros(write_width))
        if config.skip:
            self.W_skip = nn.Parameter(torch.zeros(write_width, width))
        self.learnt = nn.ParameterDict(config.nonlinearity.parameters(features))
        self.estimates = nn.Module()
        for name, value in config.nonlinearity.estimates().items():
            self.estimates.register_buffer(name, value)
        self.register_buffer("read_scale", _columns(read_scales, config.read_widths))
        self.register_buffer("write_scale", _columns(write_scales, config.write_widths))
        self.read_scale: Tensor
        """What each column of an input is multiplied by: its site's scale."""
        self.write_scale: Tensor
        """What each column of a reconstruction is divided by: its site's scale."""
        self.manifest: dict[str, Any] = {}
        """The manifest it was loaded or saved with; empty before."""

    def encode(self, x: Float[Tensor, "rows width"]) -> Code:
        """Return the code of raw activations, largest value first in every row."""
        centred = self.centred(self._accepted(x) * self.read_scale)
        return self.config.nonlinearity.encode(centred, self.encoder())

    def decode(self, code: Code) -> Float[Tensor, "rows write_width"]:
        """Return the raw activations that a code stands for, without the skip."""
        return (decode(code, self.W_dec) + self.b_dec) / self.write_scale

    def forward(self, x: Float[Tensor, "rows width"]) -> Float[Tensor, "rows write_width"]:
        """Return the reconstruction from raw activations."""
        rebuilt = self.decode(self.encode(x))
        if not self.config.skip:
            return rebuilt
        return rebuilt + (self._accepted(x) * self.read_scale) @ self.W_skip.T / self.write_scale

    def encoder(self) -> Encoder:
        """Return what the nonlinearity works with."""
        return Encoder(self.W_enc, self.b_enc, self._extra(), self.W_dec)

    def _extra(self) -> dict[str, Tensor]:
        return {**dict(self.learnt.items()), **dict(self.estimates.named_buffers())}

    def centred(self, x: Float[Tensor, "rows width"]) -> Float[Tensor, "rows width"]:
        """Return scaled inputs as the encoder sees them."""
        return centred(x, self.b_dec) if self.config.centre == "tied" else x

    def activate(
        self, x: Float[Tensor, "rows width"], nonlinearity: Nonlinearity | None = None
    ) -> Activity:
        """Return the differentiable features of scaled inputs, for training.

        ``nonlinearity`` stands in for the dictionary's own where that changes while training.
        """
        chosen = nonlinearity or self.config.nonlinearity
        return chosen.forward(self.centred(x), self.encoder())

    def base(self, x: Float[Tensor, "rows width"]) -> Float[Tensor, "..."]:
        """Return the scaled reconstruction without any feature: the bias, and the skip."""
        return self.b_dec + x @ self.W_skip.T if self.config.skip else self.b_dec

    def rebuild(
        self, activity: Activity, x: Float[Tensor, "rows width"]
    ) -> Float[Tensor, "rows write_width"]:
        """Return the scaled reconstruction from features and scaled inputs, for training."""
        values = activity.values
        if isinstance(values, Code):
            return decode(values, self.W_dec, activity.present).add_(self.base(x))
        return values @ self.W_dec + self.base(x)

    def residual(
        self,
        activity: Activity,
        x: Float[Tensor, "rows width"],
        target: Float[Tensor, "rows write_width"],
    ) -> tuple[Float[Tensor, "rows write_width"], Float[Tensor, ""]]:
        """Return what :meth:`rebuild` leaves of ``target``, detached, and its square, which is not.

        The second is summed; the two take half the time of one after the other.
        """
        values = activity.values
        if isinstance(values, Code):
            base = self.base(x)
            base = base if base.ndim == 2 else base[None]
            return reconstruct(values, self.W_dec, base, target, activity.present)
        rebuilt = self.rebuild(activity, x)
        return target - rebuilt.detach(), squared_distance(target, rebuilt)

    def decoder_norms(self) -> Float[Tensor, " features"]:
        """Return the norm of every decoder row, summed over the sites written."""
        parts = self.W_dec.split(list(self.config.write_widths), dim=1)
        return torch.stack([part.norm(dim=1) for part in parts]).sum(0)

    @torch.no_grad()
    def unit_rows(self) -> None:
        """Scale decoder rows to norm 1 and the encoder to match; reconstructions stay the same.

        SememeError for a kind whose choice of features depends on the norms.
        """
        if not self.config.nonlinearity.rescalable:
            raise SememeError(
                f"{self.config.nonlinearity.kind} chooses features by their values, so that the "
                "norms of decoder rows cannot move to the encoder: train with unit rows"
            )
        norms = self.W_dec.norm(dim=1).clamp_min(1e-12)
        self.W_dec.div_(norms[:, None])
        self.W_enc.mul_(norms[:, None])
        self.b_enc.mul_(norms)
        stretched = self.config.nonlinearity.stretch(self._extra(), norms)
        for name, value in self.learnt.items():
            value.copy_(stretched[name])

    def fold(self) -> Folded:
        """Return weights with the scales and the centre folded in; codes stay the same.

        SememeError for a kind that compares its centred input with what it decodes.
        """
        if self.config.nonlinearity.compares:
            raise SememeError(
                f"{self.config.nonlinearity.kind} compares its input with the reconstruction, "
                "which a product with folded weights cannot do: use the dictionary as it is"
            )
        with torch.no_grad():
            tied = self.config.centre == "tied"
            moved = self.W_enc @ self.b_dec if tied else torch.zeros_like(self.b_enc)
            skip = None
            if self.config.skip:
                skip = self.W_skip * self.read_scale / self.write_scale[:, None]
            return Folded(
                W_enc=self.W_enc * self.read_scale,
                W_dec=self.W_dec / self.write_scale,
                b_enc=self.b_enc - moved,
                b_dec=self.b_dec / self.write_scale,
                extra=self.config.nonlinearity.shift(self._extra(), moved),
                W_skip=skip,
            )

    def directions(
        self, features: Int[Tensor, " n"] | None = None
    ) -> Float[Tensor, "n write_width"]:
        """Return decoder rows (of ``features``, or all), detached."""
        rows = self.W_dec.detach()
        return rows if features is None else rows[features]

    @property
    def site(self) -> str:
        """The one site that it reads and writes; UsageError for any but a plain autoencoder."""
        if not self.config.autoencodes or len(self.config.reads) > 1:
            raise UsageError(
                f"the dictionary reads {', '.join(self.config.reads)} and writes "
                f"{', '.join(self.config.writes)}: only autoencoders of one site are evaluated, "
                "described and shown so far"
            )
        return self.config.reads[0]

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
        try:
            config = DictionaryConfig.from_json(read_json(directory / CONFIG))
        except (KeyError, TypeError) as error:
            raise SememeError(
                f"{directory / CONFIG} is not what this sememe writes ({error}): train again, or "
                "use the version that made it"
            ) from None
        dictionary = cls(config)
        try:
            dictionary.load_state_dict(load_file(directory / WEIGHTS))
        except RuntimeError as error:
            raise SememeError(
                f"{directory / WEIGHTS} does not fit its config.json: {error}"
            ) from error
        dictionary.manifest = manifest
        return dictionary

    def _accepted(self, x: Float[Tensor, "rows width"]) -> Float[Tensor, "rows width"]:
        """Return activations in the dictionary's dtype; models may compute in a lower one."""
        if x.shape[-1] != self.config.width:
            raise UsageError(
                f"activations of width {x.shape[-1]} were given to a dictionary of width "
                f"{self.config.width} (site {', '.join(self.config.reads)}): read what it was made "
                "for"
            )
        return x.to(self.W_enc.dtype)


def _columns(scales: Sequence[float], widths: Sequence[int]) -> Float[Tensor, " width"]:
    """Return each site's scale for each of its columns; 1 where none are given."""
    known = torch.tensor(list(scales) or [1.0] * len(widths), dtype=torch.float32)
    return known.repeat_interleave(torch.tensor(widths))
