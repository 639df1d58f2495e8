"""A dictionary with what is known of its features: what interventions are told in."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sememe.activations.rules import HarvestConfig, TokenRules
from sememe.artefacts import is_finished, refuse_unfit
from sememe.atlas.store import Atlas
from sememe.dictionaries.dictionary import Dictionary
from sememe.errors import UsageError
from sememe.intervention.changes import Amount
from sememe.kernels import Code
from sememe.models.language_model import LanguageModel
from sememe.models.tokenizer import Tokenizer

# Axis names: tokens = some tokens of a pass, n = chosen features, k = entries of a code.

MARGIN = 1e-3
"""How far below its limit a score may be and the token still be encoded, relative and absolute."""


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """A dictionary that reads one site and writes one, its atlas and its token rules.

    Attributes:
        dictionary: An autoencoder or a transcoder.
        atlas: Tells observed maxima and means; without one, amounts are in units of the code.
    """

    dictionary: Dictionary
    atlas: Atlas | None = None

    def __post_init__(self) -> None:
        config = self.dictionary.config
        if len(config.reads) > 1 or len(config.writes) > 1:
            raise UsageError(
                f"the dictionary reads {', '.join(config.reads)} and writes "
                f"{', '.join(config.writes)}: an intervention needs one that reads one site and "
                "writes one"
            )
        if self.atlas is not None:
            made_from = self.atlas.manifest["made_from"]["dictionary"]
            own = self.dictionary.manifest.get("hash", made_from)
            refuse_unfit(str(self.atlas.path), {"dictionary": (made_from, own)})

    @classmethod
    def open(cls, path: Path | str) -> "FeatureSet":
        """Open a run of `sememe map`, or a dictionary's directory with the atlas beside it, if any.

        SememeError where there is neither, or the two do not belong together.
        """
        path = Path(path)
        directory = path / "dictionary" if is_finished(path / "dictionary") else path
        dictionary = Dictionary.load(directory)
        atlas = directory.parent / "atlas"
        return cls(dictionary, Atlas.open(atlas) if is_finished(atlas) else None)

    @property
    def reads(self) -> str:
        """The site whose activations are encoded."""
        return self.dictionary.config.reads[0]

    @property
    def writes(self) -> str:
        """The site where features are added."""
        return self.dictionary.config.writes[0]

    @cached_property
    def rules(self) -> TokenRules | None:
        """The token rules that it was trained by; None where they are not recorded."""
        rules = self.dictionary.manifest.get("made_from", {}).get("rules")
        return None if rules is None else TokenRules(**rules)

    @property
    def window(self) -> int:
        """Tokens that the model read at once when the dictionary was trained, as far as known."""
        made_from = self.dictionary.manifest.get("made_from", {})
        return int(made_from.get("context", HarvestConfig.context))

    def check(self, model: LanguageModel) -> None:
        """Raise UsageError, naming both values, unless the dictionary fits the model."""
        config = self.dictionary.config
        self.dictionary.check_fits(model_hash=model.hash, width=model.width(self.reads))
        if model.width(self.writes) != config.write_width:
            raise UsageError(
                f"the dictionary writes {self.writes} with width {config.write_width}, but there "
                f"{model.name} has width {model.width(self.writes)}: use the model that it was "
                "made for"
            )

    def check_feature(self, feature: int) -> None:
        """Raise UsageError unless there is such a feature."""
        last = self.dictionary.config.features - 1
        if not 0 <= feature <= last:
            raise UsageError(
                f"feature {feature} of the dictionary at {self.reads}: expected 0 to {last}"
            )

    def maximum(self, feature: int) -> float:
        """Return the feature's observed maximum, in units of the code.

        UsageError where there is no atlas, or the feature was never seen to fire.
        """
        self.check_feature(feature)
        maximum = float(self._known("maximum")[feature])
        if not maximum > 0:
            raise UsageError(
                f"feature {feature} of the dictionary at {self.reads} never fired on the atlas's "
                "text, so that it has no observed maximum: give a value without x"
            )
        return maximum

    def amount(self, feature: int, amount: Amount) -> float:
        """Return an amount in units of the code; UsageError as :meth:`maximum`."""
        self.check_feature(feature)
        if amount.unit == "max":
            return amount.number * self.maximum(feature)
        if amount.unit == "mean":
            mean, frequency = (float(self._known(n)[feature]) for n in ("mean", "frequency"))
            return amount.number * mean * frequency
        return amount.number

    def _known(self, column: str) -> npt.NDArray[Any]:
        if self.atlas is None:
            raise UsageError(
                f"a multiple of a maximum, or a mean, of the dictionary at {self.reads} needs its "
                "atlas (`sememe describe`): give a value in units of the code instead"
            )
        return self.atlas.columns[column]

    def top_tokens(self, feature: int, tokenizer: Tokenizer) -> list[str]:
        """Return the tokens of its strongest examples; none where there is no atlas."""
        if self.atlas is None:
            return []
        found = self.atlas.columns["tokens"][feature].tolist()
        return [tokenizer.decode([token]) for token in found if token >= 0]

    def directions(self, features: Int[Tensor, " n"]) -> Float[Tensor, "n write_width"]:
        """Return what one unit of each feature adds to a raw activation."""
        return self.dictionary.directions(features) / self.dictionary.write_scale

    def kept(
        self, ids: Int[Tensor, " tokens"], rows: Float[Tensor, "tokens width"]
    ) -> Bool[Tensor, " tokens"]:
        """Return the tokens that the rules keep: neither special nor attention sinks."""
        if self.rules is None:
            return torch.ones(len(ids), dtype=torch.bool, device=ids.device)
        return self.rules.keep(ids.cpu(), {self.reads: rows.cpu()}).to(ids.device)

    @torch.no_grad()
    def encode(self, rows: Float[Tensor, "tokens width"]) -> Code:
        """Return the code of raw activations, where the dictionary is."""
        return self.dictionary.encode(rows.to(self.dictionary.W_enc.device))

    @torch.no_grad()
    def values(
        self,
        rows: Float[Tensor, "tokens width"],
        features: Int[Tensor, " n"],
        above: Float[Tensor, " n"] | None = None,
    ) -> Float[Tensor, "tokens n"]:
        """Return the values of some features on the CPU, 0 where they do not fire.

        And 0 on tokens where none is above its limit, by default 0. Where a value is its score or 0
        only those tokens are encoded on which a score is near or above a limit.
        """
        dictionary = self.dictionary
        found = torch.zeros(len(rows), len(features))
        suspects = torch.ones(len(rows), dtype=torch.bool)
        if dictionary.config.nonlinearity.passes_scores:
            limits = torch.zeros(len(features)) if above is None else above
            own = features.to(dictionary.W_enc.device)
            x = dictionary.centred(rows.to(dictionary.W_enc) * dictionary.read_scale)
            scores = x @ dictionary.W_enc[own].T + dictionary.b_enc[own]
            near = (limits - MARGIN * (1 + limits.abs())).to(scores)
            suspects = (scores > near).any(1).cpu()
        if suspects.any():
            code = self.encode(rows[suspects])
            found[suspects] = values_of(code, features.to(code.indices.device)).cpu()
        return found


def values_of(code: Code, features: Int[Tensor, " n"]) -> Float[Tensor, "tokens n"]:
    """Return the values of some features, 0 where they do not fire."""
    there = (code.indices[:, :, None] == features) & (code.values > 0)[:, :, None]
    return (there * code.values[:, :, None]).sum(1)
