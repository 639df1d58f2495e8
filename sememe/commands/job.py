"""The commands of a whole run: make it, show it."""

import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from sememe.commands.dials import ModelDtype, Training
from sememe.commands.figures import show
from sememe.terminal import terminal_progress

if TYPE_CHECKING:
    from sememe.job import MapConfig


@dataclass(frozen=True, kw_only=True)
class Job(Training):
    """What `map` and `plan` are asked for."""

    model: Positional[str]
    """A packaged model (smollm2-135m, gemma3-270m), a directory, or a hub id."""
    site: str | None = None
    """Where to read the model; by default the residual stream after its middle layer."""
    tokens: int = 1_000_000
    """Tokens of text, those of the held-out twentieth of the documents included."""
    text: tuple[str, ...] = ()
    """Sources (`sememe corpus --list`) or paths of your own text; by default the default set."""
    context: int = 256
    """Longest stretch of a document that the model reads at once, in tokens."""
    model_dtype: ModelDtype = "auto"
    """What the model computes in; auto is bf16 where the processor is made for it."""
    accept_terms: bool = False
    """Accept the terms of a model that has them (Gemma)."""
    out: Path | None = None
    """Directory of the run; by default runs/MODEL."""

    def place(self) -> Path:
        """Return the directory of the run."""
        return self.out or Path("runs") / Path(self.model).name

    def config(self) -> "MapConfig":
        """Return the configuration of the job."""
        from sememe.activations.rules import HarvestConfig
        from sememe.job import MapConfig

        return MapConfig(
            model=self.model,
            site=self.site,
            tokens=self.tokens,
            text=self.text,
            seed=self.seed,
            model_dtype=self.model_dtype,
            accept_terms=self.accept_terms,
            harvest=HarvestConfig(context=self.context),
            train=self.training(),
            device=self.device,
        )


@dataclass(frozen=True, kw_only=True)
class Map(Job):
    """Take a model apart: corpus, harvest, train, evaluate, describe. Resumes where it was."""

    serve: bool = False
    """Show the job in the browser from the begin on, and the atlas when it is done."""
    port: int = 8765
    """Port to serve on; 0 takes any free one."""
    json: bool = False
    """Print the figures as one JSON object."""

    def __call__(self) -> None:
        from sememe.job import map_model

        out, config = self.place(), self.config()
        if self.serve:
            return self._served(config, out)
        with terminal_progress() as progress:
            figures = map_model(config, out, progress=progress)
        show(figures, self.json)
        if not self.json:
            sys.stdout.write(f"\nLook at it: sememe serve {out}\n")
        return None

    def _served(self, config: "MapConfig", out: Path) -> None:
        from sememe.showing import map_and_show
        from sememe.web.listener import Listener
        from sememe.web.server import check_built

        check_built()
        stream = sys.stderr if self.json else sys.stdout
        with Listener(self.port) as listener:
            stream.write(f"sememe shows how {out} comes to be at\n\n    {listener.address}\n\n")
            stream.flush()
            with terminal_progress() as progress:
                figures = map_and_show(config, out, listener, progress=progress)
            with suppress(KeyboardInterrupt):
                show(figures, self.json)
                stream.write(_shown(out, listener.address))
                stream.flush()
                listener.wait()


@dataclass(frozen=True, kw_only=True)
class Plan(Job):
    """Say what `map` with the same options would take: disk, memory, and time by stage.

    Nothing is kept, and a job that cannot fit fails with the numbers. Time is measured on a few
    thousand tokens; fetching packages is not counted.
    """

    json: bool = False
    """Print JSON."""

    def __call__(self) -> None:
        from sememe.job import plan

        with terminal_progress() as progress:
            figures = plan(self.config(), self.place(), progress=progress)
        show(figures, self.json)


def _shown(run: Path, url: str) -> str:
    return f"sememe shows {run} at\n\n    {url}\n\nCtrl-C ends it.\n"


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Show a run in the browser, on this machine only."""

    run: Positional[Path]
    """What `sememe map` made."""
    port: int = 8765
    """Port to listen on; 0 takes any free one."""

    def __call__(self) -> None:
        from sememe.serving import serve_run

        def announce(url: str) -> None:
            sys.stdout.write(_shown(self.run, url))
            sys.stdout.flush()

        with terminal_progress() as progress:
            serve_run(self.run, port=self.port, announce=announce, progress=progress)


@dataclass(frozen=True, kw_only=True)
class Index:
    """Index a run's atlas for search by example, by meaning and by neuron. Resumes where it was."""

    run: Positional[Path]
    """What `sememe map` made."""
    meaning: bool = False
    """Search by meaning too, with MiniLM: fetches 84 MB, then 50 to 200 features a second."""
    json: bool = False
    """Print JSON."""

    def __call__(self) -> None:
        from sememe.atlas.index import index, index_meanings
        from sememe.atlas.labels import Labels
        from sememe.atlas.store import Atlas
        from sememe.run import Run
        from sememe.serving import sentence_encoder

        run = Run(self.run)
        atlas = Atlas.open(run.atlas)
        with terminal_progress() as progress:
            index(atlas, run.index, progress=progress)
            if self.meaning:
                labels = Labels(run.labels).all() if run.labels.exists() else None
                encode = sentence_encoder(progress)
                index_meanings(atlas, run.meanings, encode, labels=labels, progress=progress)
        show({"features": atlas.features, "out": str(run.index)}, self.json)
