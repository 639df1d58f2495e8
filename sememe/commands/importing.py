"""The command that reads a dictionary which another package wrote."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from sememe.commands.figures import show
from sememe.errors import UsageError
from sememe.terminal import terminal_progress

if TYPE_CHECKING:
    from sememe.dictionaries.config import DictionaryConfig


@dataclass(frozen=True, kw_only=True)
class Import:
    """Turn a dictionary of SAELens, sparsify or dictionary_learning into one of ours."""

    directory: Positional[Path]
    """Folder of its config and its safetensors."""
    out: Path
    """Directory of the dictionary; in a run it is called dictionary."""
    format: Literal["auto", "saelens", "sparsify", "dictionary_learning"] = "auto"
    """Which package wrote it; auto goes by the files' names."""
    site: tuple[str, ...] = ()
    """What it reads, and what it writes if that is another site; by default as its files say."""
    scale: float | None = None
    """What activations were multiplied by in training, where the files leave that out."""
    model: str | None = None
    """Model that it was made for: its site and width are checked, and later stages refuse others.
    """
    accept_terms: bool = False
    """Accept the terms of a model that has them (Gemma)."""
    json: bool = False
    """Print JSON."""

    def __call__(self) -> None:
        from sememe.artefacts import is_finished, read_manifest
        from sememe.dictionaries.foreign import read_foreign

        found = read_foreign(self.directory, self.format, sites=self.site, scale=self.scale)
        config = found.dictionary.config
        made_from = {"format": found.format, "files": found.files, **self._made_for(config)}
        if is_finished(self.out):
            before = read_manifest(self.out, "dictionary")
            if before["made_from"] != made_from or before["config"] != config.to_json():
                raise UsageError(f"{self.out} holds another dictionary: choose another --out")
        else:
            found.dictionary.save(self.out, made_from=made_from)
        figures = {
            "format": found.format,
            "kind": config.nonlinearity.kind,
            "features": config.features,
            "site": ", ".join(config.sites),
            "out": str(self.out),
        }
        show(figures, self.json)

    def _made_for(self, config: "DictionaryConfig") -> dict[str, str]:
        """Return the model's hash and name, its sites compared with the dictionary's widths."""
        if self.model is None:
            return {}
        from sememe.models.load import load_model

        with terminal_progress() as progress:
            model = load_model(self.model, accept_terms=self.accept_terms, progress=progress)
        for sites, widths in (
            (config.reads, config.read_widths),
            (config.writes, config.write_widths),
        ):
            for site, width in zip(sites, widths, strict=True):
                if model.width(site) != width:
                    raise UsageError(
                        f"site {site} of {model.name} has width {model.width(site)}, but the "
                        f"dictionary has {width}: give its model, or its --site"
                    )
        return {"model": model.hash, "model_name": model.name}
