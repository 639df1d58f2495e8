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
    site: Path | None = None
    """Folder for a read-only site, which opens from its index.html without a server."""
    features: tuple[int, ...] = ()
    """Features that the site shows, about 130 KB each; by default all."""
    json: bool = False
    """Print JSON."""

    def __call__(self) -> None:
        if self.parquet is None and self.site is None:
            raise UsageError("what to write is needed: --parquet DIR or --site DIR")
        if self.features and self.site is None:
            raise UsageError("--features is for --site DIR, but none was given")
        from sememe.artefacts import read_json
        from sememe.atlas.parquet import write_parquet
        from sememe.atlas.search import Search
        from sememe.atlas.store import Atlas
        from sememe.run import Run
        from sememe.web.site import export_site

        run = Run(self.run)
        atlas = Atlas.open(run.atlas)
        figures: dict[str, object] = {"features": atlas.features}
        with terminal_progress() as progress:
            if self.parquet is not None:
                paths = write_parquet(atlas, self.parquet, progress=progress)
                figures |= {path.name: path.stat().st_size for path in paths}
                figures["out"] = str(self.parquet)
            if self.site is not None:
                figures["shown"] = export_site(
                    atlas,
                    self.site,
                    features=self.features or None,
                    report=read_json(run.report) if run.report.exists() else {},
                    search=Search(atlas, run.path),
                    evaluation=run.evaluation,
                    progress=progress,
                )
                figures["site"] = str(self.site)
        show(figures, self.json)
