"""How far a run is, for those who watch: from its files, and from the job while it is at work."""

from dataclasses import dataclass, field

from sememe.artefacts import is_finished, read_json
from sememe.atlas.early import Early
from sememe.progress import KeptProgress, Stage
from sememe.run import SECONDS, Run
from sememe.training.history import read_history
from sememe.web.job import Curves, EarlyFeatures, Job, JobStage, shown_early
from sememe.web.text import TokenText


@dataclass
class JobView:
    """What the job's page shows of ``run``; ``progress`` is kept by the job, if one is at work."""

    run: Run
    model: str | None = None
    progress: KeptProgress = field(default_factory=KeptProgress)
    ready: bool = False
    """Whether the atlas's pages are served."""
    _early: EarlyFeatures | None = None
    _text: TokenText | None = None

    def show(self, early: Early) -> None:
        """Have the page show ``early``."""
        self._text = self._text or TokenText(early.vocabulary)
        self._early = shown_early(early, self._text)

    def __call__(self) -> Job:
        """Return how far the job is by now."""
        points = read_history(self.run.dictionary)
        curves = Curves(*([point[name] for point in points] for name in Curves.__struct_fields__))
        told = self.progress.stages.get("train")
        return Job(
            out=str(self.run.path),
            model=self.model,
            ready=self.ready,
            stages=self._stages(),
            activations=told.total if told else max(curves.tokens, default=None),
            curves=curves,
            early=self._early,
            messages=[*self.progress.messages],
        )

    def _stages(self) -> list[JobStage]:
        run, told = self.run, {**self.progress.stages}
        done = {
            "corpus": is_finished(run.corpus),
            "harvest": is_finished(run.activations),
            "harvest held-out": is_finished(run.held_out),
            "train": is_finished(run.dictionary),
            "evaluate": run.report.exists(),
            "describe": is_finished(run.atlas),
        }
        took = read_json(run.path / SECONDS) if (run.path / SECONDS).exists() else {}
        stages = [
            _stage(name, told.get(name), done.get(name, False), took.get(name))
            for name in dict.fromkeys([*done, *told])
        ]
        # Between what two stages tell the next is at work already.
        if told and not self.ready and all(stage.state != "running" for stage in stages):
            for stage in stages:
                if stage.state == "waiting":
                    stage.state = "running"
                    break
        return stages


def _stage(name: str, told: Stage | None, finished: bool, took: float | None) -> JobStage:
    if told is None:
        return JobStage(name=name, state="done" if finished else "waiting", seconds=took)
    running = told.ended is None
    rest = told.total - told.done
    return JobStage(
        name=name,
        state="running" if running else "done",
        unit=told.unit,
        total=told.total,
        done=told.done,
        rate=told.rate,
        left=rest / told.rate if running and rest > 0 and told.rate else None,
        seconds=told.seconds,
        note=told.note,
    )
