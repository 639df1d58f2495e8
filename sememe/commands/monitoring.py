"""The command that watches features on text, or while text is written."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import UseAppendAction

from sememe.commands.intervening import Subject
from sememe.errors import SememeError, UsageError
from sememe.terminal import terminal_progress

if TYPE_CHECKING:
    from sememe.intervention.features import FeatureSet
    from sememe.intervention.monitor import Alert, Watched
    from sememe.intervention.monitor import Monitor as Watches
    from sememe.models.language_model import LanguageModel


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
        if not (self.text or self.prompt or self.save):
            raise UsageError("expected --text FILE, --prompt TEXT or --save FILE")
        with terminal_progress() as progress:
            model, features = self.opened(progress)
            monitor = self._monitor(features)
            monitor.check(model)
            if self.save is not None:
                monitor.save(self.save)
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
        from sememe.activations.rules import HarvestConfig
        from sememe.models.generation import generate, prompt_ids

        made_from = features[0].dictionary.manifest.get("made_from", {})
        window = int(made_from.get("context", HarvestConfig.context))
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

    def _texts(self) -> Iterator[str]:
        for place in self.text:
            if place == "-":
                yield from (line.rstrip("\n") for line in sys.stdin)
                continue
            try:
                yield Path(place).read_text()
            except (OSError, UnicodeDecodeError) as error:
                raise SememeError(f"cannot read {place}: {error}") from error


def _line(number: int) -> "Callable[[Alert], None]":
    """Return what writes an alert of a text, or of a prompt counted from ``number``, as a line."""

    def write(alert: "Alert") -> None:
        row = {**alert.to_json(), "text": number + alert.text}
        sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    return write
