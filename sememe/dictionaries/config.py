"""What a dictionary is, apart from its weights."""

from dataclasses import asdict, dataclass
from typing import Any

from sememe.dictionaries import nonlinearities
from sememe.dictionaries.nonlinearities import Nonlinearity
from sememe.errors import UsageError

CENTRES = ("tied", "none")


@dataclass(frozen=True)
class DictionaryConfig:
    """Shape, kind and sites of a dictionary.

    One site read and the same written: a sparse autoencoder. Another written: a transcoder (with
    ``skip`` a skip transcoder). The same several read and written: a crosscoder, whose rows hold
    the sites side by side.
    """

    reads: tuple[str, ...]
    """Sites whose activations it encodes, side by side."""
    writes: tuple[str, ...]
    """Sites whose activations it reconstructs, side by side."""
    read_widths: tuple[int, ...]
    """Widths of the sites read."""
    write_widths: tuple[int, ...]
    """Widths of the sites written."""
    features: int
    """Number of features."""
    nonlinearity: Nonlinearity
    """How scores become feature values."""
    centre: str = "tied"
    """What the encoder takes away from its input: ``tied`` the decoder bias, ``none`` nothing."""
    skip: bool = False
    """Whether a matrix from input to output stands beside the features (transcoders)."""

    def __post_init__(self) -> None:
        if self.features < 1:
            raise UsageError(f"features is {self.features}; expected 1 or more")
        for name, sites in (("read_widths", self.reads), ("write_widths", self.writes)):
            widths = getattr(self, name)
            if len(widths) != len(sites) or not sites or min(widths) < 1:
                raise UsageError(
                    f"{name} is {widths}; expected a width of 1 or more for each of {sites}"
                )
        k = getattr(self.nonlinearity, "k", 1)
        if not 1 <= k <= self.features:
            raise UsageError(
                f"k is {k}; expected 1 to {self.features}, the number of features: lower k or "
                "raise features"
            )
        if self.centre not in CENTRES:
            raise UsageError(f"centre is {self.centre!r}; expected one of {', '.join(CENTRES)}")
        if self.centre == "tied" and not self.autoencodes:
            raise UsageError(
                f"centre is 'tied', but it reads {self.reads} and writes {self.writes}: the "
                "decoder bias lies at what is written, not at what is read; give centre='none'"
            )
        if self.nonlinearity.compares and not self.autoencodes:
            raise UsageError(
                f"{self.nonlinearity.kind} compares its input with the reconstruction, but it "
                f"reads {self.reads} and writes {self.writes}: expected the same sites"
            )
        shared = set(self.reads) & set(self.writes)
        if self.skip and shared:
            raise UsageError(
                f"skip is set, but it reads and writes {', '.join(sorted(shared))}: the input "
                "would pass through and leave nothing to the features; use skip with a transcoder"
            )

    @property
    def autoencodes(self) -> bool:
        """Whether it writes the sites that it reads."""
        return self.reads == self.writes

    @property
    def width(self) -> int:
        """Width of an input: of the sites read, together."""
        return sum(self.read_widths)

    @property
    def write_width(self) -> int:
        """Width of a reconstruction: of the sites written, together."""
        return sum(self.write_widths)

    @property
    def sites(self) -> tuple[str, ...]:
        """All sites, those read first, each once."""
        return tuple(dict.fromkeys((*self.reads, *self.writes)))

    def to_json(self) -> dict[str, Any]:
        """Return what config.json holds."""
        plain = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }
        return {**plain, "nonlinearity": nonlinearities.to_json(self.nonlinearity)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "DictionaryConfig":
        """Return the config that :meth:`to_json` described."""
        plain: dict[str, Any] = {
            name: tuple(part) if isinstance(part, list) else part for name, part in value.items()
        }
        plain["nonlinearity"] = nonlinearities.from_json(value["nonlinearity"])
        return cls(**plain)
