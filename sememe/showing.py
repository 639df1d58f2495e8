"""Show the main job in the browser while it runs."""

from pathlib import Path
from typing import Any

from sememe.job import MapConfig, map_model
from sememe.progress import KeptProgress, Progress
from sememe.run import Run
from sememe.serving import application
from sememe.watching import JobView
from sememe.web.listener import Listener
from sememe.web.server import make_waiting_app, prepare


def map_and_show(
    config: MapConfig, out: Path, listener: Listener, *, progress: Progress | None = None
) -> dict[str, Any]:
    """Run the main job, as :func:`sememe.job.map_model`, and let ``listener`` show it meanwhile.

    At the end it shows the atlas, in a thread of its own, until it is closed.
    """
    kept = KeptProgress(progress or Progress())
    view = JobView(Run(out), Path(config.model).name, kept)
    listener.app = make_waiting_app(view, token=listener.token, port=listener.port)
    listener.start(kept.say)
    figures = map_model(config, out, progress=kept, early=view.show)
    listener.app = prepare(application(view, listener, kept))
    view.ready = True
    return figures
