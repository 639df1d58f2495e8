"""The commands of stores of activations: verify, info, merge."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg, subcommand

from sememe.commands.figures import show
from sememe.errors import SememeError
from sememe.terminal import print_table, terminal_progress

if TYPE_CHECKING:
    from sememe.objects import Place


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Compare every file of stores with its checksum; name each damaged one and fail."""

    stores: Positional[tuple[str, ...]]
    """Directories or URLs of stores."""
    json: bool = False
    """Print JSON."""

    def __call__(self) -> None:
        from sememe.artefacts import damage_of, read_manifest
        from sememe.objects import place

        listed: list[tuple[Place, Any]] = [
            (store / name, expected)
            for store in map(place, self.stores)
            for name, expected in read_manifest(store, "activations")["files"].items()
        ]
        found = {str(path): damage_of(path, expected) for path, expected in listed}
        damaged = {path: damage for path, damage in found.items() if damage}
        if damaged:
            raise SememeError(
                f"{len(damaged)} of {len(listed)} files are damaged: "
                + "; ".join(f"{path} {damage}" for path, damage in damaged.items())
            )
        size = sum(expected["bytes"] for _, expected in listed)
        show({"stores": len(self.stores), "files": len(listed), "bytes": size}, self.json)


@dataclass(frozen=True, kw_only=True)
class Info:
    """Show what stores hold: sites, norms, rows, documents, left-out tokens, provenance."""

    stores: Positional[tuple[str, ...]]
    """Directories or URLs of stores."""
    json: bool = False
    """Print JSON."""

    def __call__(self) -> None:
        from sememe.activations.store import Activations
        from sememe.activations.summary import summary

        found = [summary(Activations.open(store, verify=False)) for store in self.stores]
        if self.json:
            show({"stores": found}, as_json=True)
            return
        for facts in found:
            sites = facts.pop("sites")
            print_table([*sites[0]], [[*site.values()] for site in sites])
            show(facts, as_json=False)


@dataclass(frozen=True, kw_only=True)
class Merge:
    """Make one store of several of the same model, sites, dtype and token rules.

    Stores of parts of one corpus go on with that corpus. Stores of several corpora can only be
    trained on: their documents get new numbers, which no corpus has.
    """

    stores: Positional[tuple[str, ...]]
    """Directories or URLs of stores, two or more."""
    out: str
    """Directory or URL of the merged store; files are linked where the disk allows it."""
    json: bool = False
    """Print JSON."""

    def __call__(self) -> None:
        from sememe.activations.merge import merge

        with terminal_progress() as progress:
            merged = merge(self.stores, self.out, progress=progress)
        show(
            {"rows": merged.rows, "sites": merged.manifest["sites"], "out": self.out},
            self.json,
        )


STORES = {"verify": Verify, "info": Info, "merge": Merge}
"""Every command of stores by name."""


@dataclass(frozen=True, kw_only=True)
class Activations:
    """Look after stores of activations: verify, info, merge."""

    action: Annotated[
        Annotated[Verify, subcommand("verify", prefix_name=False)]
        | Annotated[Info, subcommand("info", prefix_name=False)]
        | Annotated[Merge, subcommand("merge", prefix_name=False)],
        arg(name=""),
    ]
    """What to do."""

    def __call__(self) -> None:
        self.action()
