"""Show a run: everything in its directory, its atlas and what lies beside it, in the browser."""

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Before torch is loaded: its threads would wait for the next search at a whole core's cost.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import numpy.typing as npt
from starlette.applications import Starlette

from sememe.activations.store import Activations
from sememe.artefacts import is_finished, read_json, read_manifest, refuse_unfit
from sememe.atlas.annotations import Annotations
from sememe.atlas.index import Encoder, index
from sememe.atlas.search import Search
from sememe.atlas.store import Atlas
from sememe.progress import Progress
from sememe.run import Run
from sememe.watching import JobView
from sememe.web.completions import Completions
from sememe.web.listener import Listener
from sememe.web.prompt import PromptToken
from sememe.web.server import check_built, make_app, prepare

if TYPE_CHECKING:
    from sememe.web.writing import SteeredModel

INDEXED_AT_ONCE = 100_000
"""The atlas of at most so many features is indexed, but for meanings, when it is first served."""


TOGETHER = 32
"""Sentences that MiniLM reads at once."""


def serve_run(
    path: Path, *, port: int, announce: Callable[[str], None], progress: Progress | None = None
) -> None:
    """Serve the run in ``path`` until Ctrl-C; ``announce`` gets the address.

    Raises SememeError when its parts do not belong together, or the port is taken.
    """
    check_built()
    with Listener(port) as listener:
        view = JobView(Run(path), ready=True)
        listener.app = prepare(application(view, listener, progress or Progress()))
        announce(listener.address)
        listener.run()


class RunPrompt:
    """The model of a run behind the prompt page.

    What runs it is imported at the first prompt: transformers alone is 200 MB of memory.
    """

    def __init__(self, run: Run, held_out: Activations) -> None:
        self.run, self.held_out = run, held_out

    @cached_property
    def _live(self) -> Any:  # noqa: ANN401 - a LivePrompt
        from sememe.activations.rules import TokenRules
        from sememe.dictionaries.dictionary import Dictionary
        from sememe.web.live import LivePrompt

        window = self.held_out.manifest["config"]["window"]
        dictionary = Dictionary.load(self.run.dictionary)
        return LivePrompt(self.run.load_model, dictionary, TokenRules.of(self.held_out), window)

    @cached_property
    def writer(self) -> "SteeredModel":
        """The model as what writes texts, with the run's dictionary and atlas."""
        from sememe.intervention.features import FeatureSet
        from sememe.web.writing import SteeredModel

        return SteeredModel(self._live.model, FeatureSet.open(self.run.path), self._live.lock)

    def __call__(self, text: str) -> Sequence[PromptToken]:
        """See :class:`sememe.web.live.LivePrompt`."""
        found: Sequence[PromptToken] = self._live(text)
        return found

    def token(self, text: str) -> int:
        """See :class:`sememe.web.prompt.Effects`."""
        return int(self._live.token(text))

    def on_token(self, features: Sequence[int], token: int) -> npt.NDArray[np.float32]:
        """See :class:`sememe.web.prompt.Effects`."""
        found: npt.NDArray[np.float32] = self._live.on_token(features, token)
        return found

    def of_feature(self, feature: int) -> npt.NDArray[np.float32]:
        """See :class:`sememe.web.prompt.Effects`."""
        found: npt.NDArray[np.float32] = self._live.of_feature(feature)
        return found


def application(view: JobView, listener: Listener, progress: Progress) -> Starlette:
    """Return what shows a finished run, and whatever lies beside it."""
    run = view.run
    atlas = Atlas.open(run.atlas)
    held_out = Activations.open(run.held_out, verify=False)
    made_from = atlas.manifest["made_from"]["dictionary"]
    own = read_manifest(run.dictionary, "dictionary")["hash"]
    refuse_unfit(str(run.atlas), {"dictionary": (made_from, own)})
    prompt = RunPrompt(run, held_out)
    if not is_finished(run.index) and atlas.features <= INDEXED_AT_ONCE:
        index(atlas, run.index, progress=progress)
    return make_app(
        atlas,
        token=listener.token,
        port=listener.port,
        prompt=prompt,
        effects=prompt,
        report=read_json(run.report) if run.report.exists() else {},
        search=Search(atlas, run.path, encoder=sentence_encoder),
        annotations=Annotations(run.annotations, made_from),
        evaluation=run.evaluation,
        job=view,
        completions=Completions(lambda: prompt.writer),
    )


def sentence_encoder(progress: Progress | None = None) -> Encoder:
    """Load MiniLM-L6 as what gives sentences their vectors."""
    import torch  # the server answers all other searches without it

    from sememe.models.sentences import load_sentence_encoder
    from sememe.processor import fast_bf16

    dtype = torch.bfloat16 if fast_bf16() else torch.float32
    model = load_sentence_encoder(progress, dtype=dtype)

    def encode(sentences: Sequence[str]) -> npt.NDArray[np.float32]:
        found = np.empty((len(sentences), model.bert.width), np.float32)
        # Of like length, so that little is padding.
        order = sorted(range(len(sentences)), key=lambda place: len(sentences[place]))
        for start in range(0, len(order), TOGETHER):
            part = order[start : start + TOGETHER]
            tokens = model.tokens([sentences[place] for place in part])
            with torch.no_grad():
                found[part] = model(**tokens).numpy()
        return found

    return encode
