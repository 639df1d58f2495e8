"""A run: the directory of the main job, and where its artefacts are in it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sememe.activations.store import Activations
from sememe.artefacts import is_finished
from sememe.dictionaries.dictionary import Dictionary
from sememe.progress import Progress

SECONDS = "seconds.json"


@dataclass(frozen=True)
class Run:
    """The places of a run's artefacts in its directory."""

    path: Path

    @property
    def corpus(self) -> Path:
        """Documents as token ids."""
        return self.path / "corpus"

    @property
    def activations(self) -> Path:
        """Activations of the training documents."""
        return self.path / "activations"

    @property
    def held_out(self) -> Path:
        """Activations of the held-out documents."""
        return self.path / "activations-held-out"

    @property
    def dictionary(self) -> Path:
        """The trained dictionary."""
        return self.path / "dictionary"

    @property
    def report(self) -> Path:
        """Figures on held-out text."""
        return self.path / "report.json"

    @property
    def evaluation(self) -> Path:
        """Reports of the evaluation's suites."""
        return self.path / "evaluation"

    @property
    def atlas(self) -> Path:
        """Every feature's page."""
        return self.path / "atlas"

    @property
    def index(self) -> Path:
        """Words and neurons of the atlas, for searches."""
        return self.path / "index"

    @property
    def meanings(self) -> Path:
        """Meanings of the atlas's examples, for searches."""
        return self.path / "meanings"

    @property
    def labels(self) -> Path:
        """Texts that describe features."""
        return self.path / "labels.sqlite"

    @property
    def annotations(self) -> Path:
        """Notes and tags that people put on features."""
        return self.path / "annotations.sqlite"

    def load_model(self, progress: Progress | None = None) -> Any:  # noqa: ANN401
        """Load the model of the run's held-out activations, or of its dictionary without those.

        It is a :class:`sememe.models.language_model.LanguageModel`.
        """
        from sememe.models.load import load_model  # which imports transformers

        if is_finished(self.held_out):
            manifest = Activations.open(self.held_out, verify=False).manifest
            facts = {**manifest["made_from"], **manifest["config"]}
        else:
            facts = Dictionary.load(self.dictionary).manifest["made_from"]
        return load_model(
            facts["model_name"],
            dtype=facts.get("model_dtype", "auto"),
            accept_terms=True,  # whoever made the run has accepted them
            progress=progress,
        )
