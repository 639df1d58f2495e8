"""What a dictionary is, apart from its weights."""

from dataclasses import asdict, dataclass
from typing import Any

from sememe.dictionaries import nonlinearities
from sememe.dictionaries.nonlinearities import Nonlinearity
from sememe.errors import UsageError


@dataclass(frozen=True)
class DictionaryConfig:
    """Shape, kind and sites of a dictionary."""

    reads: tuple[str, ...]
    """Sites whose activations it encodes."""
    writes: tuple[str, ...]
    """Sites whose activations it reconstructs; the same as ``reads`` for an autoencoder."""
    width: int
    """Width of an activation."""
    features: int
    """Number of features."""
    nonlinearity: Nonlinearity
    """How scores become feature values."""
    centre: str = "tied"
    """What the encoder takes away from its input: ``tied`` the decoder bias, ``none`` nothing."""

    def __post_init__(self) -> None:
        for name in ("width", "features"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; expected 1 or more")
        k = getattr(self.nonlinearity, "k", 1)
        if not 1 <= k <= self.features:
            raise UsageError(
                f"k is {k}; expected 1 to {self.features}, the number of features: lower k or "
                "raise features"
            )
        if self.centre not in CENTRES:
            raise UsageError(f"centre is {self.centre!r}; expected one of {', '.join(CENTRES)}")
        if self.reads != self.writes or len(self.reads) != 1:
            raise UsageError(
                f"reads {self.reads} and writes {self.writes}: only autoencoders of one site are "
                "made so far; give the same single site for both"
            )

    def to_json(self) -> dict[str, Any]:
        """Return what config.json holds."""
        return {
            **asdict(self),
            "reads": list(self.reads),
            "writes": list(self.writes),
            "nonlinearity": nonlinearities.to_json(self.nonlinearity),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "DictionaryConfig":
        """Return the config that :meth:`to_json` described."""
        return cls(
            **{
                **value,
                "reads": tuple(value["reads"]),
                "writes": tuple(value["writes"]),
                "nonlinearity": nonlinearities.from_json(value["nonlinearity"]),
            }
        )


CENTRES = ("tied", "none")
