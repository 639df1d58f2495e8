"""The command that watches features on text, or while text is written."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import UseAppendAction

from sememe.commands.figures import show
from sememe.commands.intervening import Subject
from sememe.errors import SememeError, UsageError
from sememe.terminal import terminal_progress

if TYPE_CHECKING:
    from sememe.intervention.features import FeatureSet
    from sememe.intervention.monitor import Alert, Watched
    from sememe.intervention.monitor import Monitor as Watches
    from sememe.models.language_model import LanguageModel
    from sememe.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Monitor(Subject):
    """Watch features on text or while the model writes: a line of JSON for every alert."""

    watch: UseAppendAction[tuple[str, ...]] = ()
    """[NAME=][SITE:]FEATURE>LIMIT, such as water=1234>0.5x; the limit is a value, or a multiple of
    the observed maximum. Again for several."""
    file: Path | None = None
    """A monitor file to take the watches from."""
    save: Path | None = None
    """Write the watches as a monitor file."""
    text: UseAppendAction[tuple[str, ...]] = ()
    """A file to read, one text; - reads standard input, a text a line. Again for several."""
    labelled: str | None = None
    """Measure how often alerts are right, beside a linear probe: a file of JSON lines with text and
    label (true or false), or a set of sae-probes such as 96_spam_is (fetches 45 MB)."""
    most: int = 1000
    """Labelled texts to read, at most."""
    prompt: UseAppendAction[tuple[str, ...]] = ()
    """A prompt to continue while watching; again for several."""
    tokens: int = 40
    """New tokens of a prompt, at most."""
    temperature: float = 0.0
    """Of the draw of each token; 0 takes the likeliest."""
    seed: int = 0
    """Of the draws."""

    def __call__(self) -> None:
        if bool(self.watch) == (self.file is not None):
            raise UsageError("expected either --watch FEATURE>LIMIT or --file FILE")
        if not (self.text or self.prompt or self.labelled or self.save):
            raise UsageError("expected --text FILE, --prompt TEXT, --labelled SET or --save FILE")
        with terminal_progress() as progress:
            model, features = self.opened(progress)
            monitor = self._monitor(features)
            monitor.check(model)
            if self.save is not None:
                monitor.save(self.save)
            if self.labelled is not None:
                self._tried(model, features, monitor, progress)
            begun = time.perf_counter()
            for done in self._watched(model, features, monitor):
                seconds, begun = time.perf_counter() - begun, time.perf_counter()
                progress.say(
                    f"{done.alerts:,} alerts on {done.tokens:,} tokens, "
                    f"{done.tokens / seconds:,.0f} a second"
                )

    def _monitor(self, features: "list[FeatureSet]") -> "Watches":
        from sememe.intervention.monitor import Monitor, parse_watch

        if self.file is not None:
            return Monitor.open(self.file, features)
        return Monitor([parse_watch(text, features) for text in self.watch], features)

    def _watched(
        self, model: "LanguageModel", features: "list[FeatureSet]", monitor: "Watches"
    ) -> "Iterator[Watched]":
        """Watch the texts, then the prompts; yield what was seen of each kind."""
        from sememe.models.generation import generate, prompt_ids

        window = features[0].window
        for number, text in enumerate(self._texts()):
            ids = model.tokenizer.encode(text)
            if ids:
                yield monitor.read(model, [ids], _line(number), window=window)
        if self.prompt:
            rows = [prompt_ids(model, prompt) for prompt in self.prompt]
            with monitor.watching(model, _line(0)) as done:
                generate(
                    model,
                    rows,
                    tokens=self.tokens,
                    temperature=self.temperature,
                    seed=self.seed,
                )
            yield done

    def _tried(
        self,
        model: "LanguageModel",
        features: "list[FeatureSet]",
        monitor: "Watches",
        progress: "Progress",
    ) -> None:
        from sememe.intervention.trial import trial

        assert self.labelled is not None
        texts, labels = _labelled(self.labelled, self.most, self.seed, progress)
        window = features[0].window
        found = trial(model, monitor, texts, labels, window=window, seed=self.seed)
        show({"labelled": self.labelled, "model": model.name, **found}, as_json=True)

    def _texts(self) -> Iterator[str]:
        for place in self.text:
            if place == "-":
                yield from (line.rstrip("\n") for line in sys.stdin)
                continue
            try:
                yield Path(place).read_text()
            except (OSError, UnicodeDecodeError) as error:
                raise SememeError(f"cannot read {place}: {error}") from error


def _labelled(
    place: str, most: int, seed: int, progress: "Progress"
) -> tuple[list[str], list[bool]]:
    """Return labelled texts, of more than ``most`` a random choice."""
    import random

    if Path(place).is_file():
        texts, labels = _read_labelled(Path(place))
    else:
        from sememe.corpora.fetch import fetch
        from sememe.corpora.labelled import binary_sets, labelled_set
        from sememe.corpora.sources import SETS

        path = fetch(SETS, progress)
        if place not in (known := binary_sets(path)):
            raise UsageError(
                f"--labelled {place}: no such file, and no set of sae-probes; these are "
                f"{', '.join(known)}"
            )
        found = labelled_set(place, path)
        texts, labels = found.texts, found.labels.tolist()
    chosen = random.Random(seed).sample(range(len(texts)), min(most, len(texts)))
    return [texts[number] for number in chosen], [labels[number] for number in chosen]


def _read_labelled(path: Path) -> tuple[list[str], list[bool]]:
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            row = json.loads(line)
            text, label = row["text"], row["label"]
        except (ValueError, KeyError, TypeError):
            text = label = None
        if not isinstance(text, str) or not isinstance(label, bool):
            raise UsageError(
                f'{path}, line {number}: expected {{"text": "...", "label": true or false}}'
            )
        rows.append((text, label))
    return [text for text, _ in rows], [label for _, label in rows]


def _line(number: int) -> "Callable[[Alert], None]":
    """Return what writes an alert of a text, or of a prompt counted from ``number``, as a line."""

    def write(alert: "Alert") -> None:
        row = {**alert.to_json(), "text": number + alert.text}
        sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    return write
