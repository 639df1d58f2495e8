"""The command that writes an atlas in other forms."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from sememe.commands.figures import show
from sememe.errors import UsageError
from sememe.terminal import terminal_progress


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write a run's atlas in another form."""

    run: Positional[Path]
    """What `sememe map` made."""
    parquet: Path | None = None
    """Folder for two Parquet tables: features.parquet and examples.parquet."""
    json: bool = False
    """Print JSON."""

    def __call__(self) -> None:
        if self.parquet is None:
            raise UsageError("what to write is needed: --parquet DIR")
        from sememe.atlas.parquet import write_parquet
        from sememe.atlas.store import Atlas
        from sememe.job import Run

        atlas = Atlas.open(Run(self.run).atlas)
        with terminal_progress() as progress:
            paths = write_parquet(atlas, self.parquet, progress=progress)
        sizes = {path.name: path.stat().st_size for path in paths}
        show({"features": atlas.features, **sizes, "out": str(self.parquet)}, self.json)
