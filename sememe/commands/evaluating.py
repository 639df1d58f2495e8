"""The command of an evaluation: one report, or a suite with controls."""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from sememe.commands.dials import ModelDtype
from sememe.commands.figures import short, show, with_interval
from sememe.errors import UsageError
from sememe.terminal import print_heading, print_table, print_text, terminal_progress

if TYPE_CHECKING:
    from sememe.evaluation.arms import Arm
    from sememe.progress import Progress
    from sememe.training.streams import ActivationStream


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Evaluate a dictionary on held-out text; with --suite beside controls, with intervals."""

    run: Positional[Path]
    """What `sememe map` made, or a dictionary's directory with --model, --corpus and --out."""
    suite: Literal["quick", "standard", "full"] | None = None
    """How much to measure: quick beside controls that need no training, standard beside trained
    ones too, full on more text. Without it the run's report.json is made."""
    model: str | None = None
    """The model of a dictionary that is no run's: a packaged model, a directory, or a hub id."""
    corpus: Path | None = None
    """Directory of the corpus whose held-out documents to evaluate such a dictionary on."""
    model_dtype: ModelDtype = "auto"
    """What such a model computes in."""
    accept_terms: bool = False
    """Accept the terms of such a model (Gemma)."""
    out: Path | None = None
    """Where to write what is made; by default the directory evaluation of the run."""
    family: Path | None = None
    """Family of language models for compute-equivalent loss; by default the one that
    `sememe lm-family` has made of the same text, if it has."""
    json: bool = False
    """Print the whole report as JSON."""

    def __call__(self) -> None:
        with terminal_progress() as progress:
            subject, stream, out = self._subject(progress)
            report = (
                self._suite(subject, stream, out, progress)
                if self.suite
                else self._report(subject, out, progress)
            )
        if self.json:
            show(report, as_json=True)
        elif self.suite:
            print_suite(report)
        else:
            plain = {n: v for n, v in report.items() if isinstance(v, str | float | int)}
            entropies = {f"cross_entropy {n}": v for n, v in report["cross_entropy"].items()}
            show({**plain, **entropies}, as_json=False)

    def _subject(self, progress: "Progress") -> "tuple[Arm, ActivationStream, Path]":
        """Return the dictionary as an arm, what it trains on, and where to write."""
        if (self.run / "manifest.json").exists():
            return self._dictionary(progress)
        from sememe.activations.stream import Stream
        from sememe.evaluation.arms import Arm
        from sememe.job import open_run

        for name in ("model", "corpus"):
            if getattr(self, name) is not None:
                raise UsageError(
                    f"--{name} is for a dictionary's directory, but {self.run} is none: it has no "
                    "manifest.json"
                )
        run, dictionary, stored, held_out, corpus = open_run(self.run)
        subject = Arm.subject(dictionary, run.load_model(progress), held_out, corpus)
        out = self.out or (run.evaluation if self.suite else run.path)
        return subject, Stream(stored, (subject.site,)), out

    def _dictionary(self, progress: "Progress") -> "tuple[Arm, ActivationStream, Path]":
        from sememe.activations.buffered import BufferedStream
        from sememe.activations.harvest import harvest
        from sememe.activations.rules import HarvestConfig
        from sememe.corpora.corpus import Corpus
        from sememe.dictionaries.dictionary import Dictionary
        from sememe.evaluation.arms import Arm
        from sememe.models.load import load_model

        if self.model is None or self.corpus is None or self.out is None:
            raise UsageError(
                f"{self.run} is a dictionary: --model, --corpus and --out are needed: the model "
                "and the text to evaluate it on, and where to write"
            )
        dictionary = Dictionary.load(self.run)
        site, corpus = dictionary.site, Corpus.open(self.corpus)
        model = load_model(
            self.model, dtype=self.model_dtype, accept_terms=self.accept_terms, progress=progress
        )
        dictionary.check_fits(model_hash=model.hash)
        context = dictionary.manifest["made_from"].get("context", HarvestConfig.context)
        config = HarvestConfig(context=min(context, model.context))
        stream = BufferedStream(model, corpus, (site,), config)
        held_out = harvest(
            model,
            corpus,
            [site],
            self.out / "activations-held-out",
            held_out=True,
            config=config,
            rules=stream.rules,
            progress=progress,
        )
        return Arm.subject(dictionary, model, held_out, corpus), stream, self.out

    def _report(self, subject: "Arm", out: Path, progress: "Progress") -> dict[str, Any]:
        from sememe.evaluation.evaluate import evaluate

        return evaluate(
            subject.model,
            subject.dictionary,
            subject.held_out,
            subject.corpus,
            out / "report.json",
            progress=progress,
        )

    def _suite(
        self, subject: "Arm", stream: "ActivationStream", out: Path, progress: "Progress"
    ) -> dict[str, Any]:
        from sememe.evaluation.sections import Settings
        from sememe.evaluation.suite import arms_of, run_suite

        assert self.suite is not None
        subject = replace(subject, family=self.family)
        words = ["sememe", "evaluate", str(self.run), "--suite", self.suite]
        if self.model is not None:
            words += ["--model", self.model, "--corpus", str(self.corpus)]
        if self.family is not None:
            words += ["--family", str(self.family)]
        if self.out is not None:
            words += ["--out", str(self.out)]
        return run_suite(
            arms_of(subject, stream, self.suite, (self.out or self.run) / "controls", progress),
            Settings(self.suite),
            out,
            command=shlex.join(words),
            progress=progress,
        )


def print_suite(report: dict[str, Any]) -> None:
    """Print a table a section: the dictionary with its interval, the other arms, the verdict.

    Below it stands why figures of the dictionary are left out.
    """
    names = [arm["name"] for arm in report["arms"]]
    subject, others = names[0], names[1:]
    for section in report["sections"]:
        print_heading(section["title"])
        if section["caution"]:
            print_text(section["caution"])
        rows = []
        for row in section["rows"]:
            figures = row["figures"]
            rows.append(
                [
                    row["title"],
                    with_interval(figures.get(subject)),
                    *(short(figures.get(name)) for name in others),
                    row["verdict"] or "",
                ]
            )
        print_table(("", subject, *others, "verdict"), rows)
        reasons: dict[str, list[str]] = {}
        for row in section["rows"]:
            if reason := row["left_out"].get(subject):
                reasons.setdefault(reason, []).append(row["title"])
        for reason, titles in reasons.items():
            print_text(f"No {', '.join(titles)}: {reason}.")
