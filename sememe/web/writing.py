"""Texts that a run's model writes on request, with features changed and traced."""

import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct

from sememe.intervention.changes import Change
from sememe.intervention.features import FeatureSet
from sememe.intervention.intervene import Applied, intervene
from sememe.intervention.monitor import Alert, Monitor, Watch
from sememe.models.chat import chat_ids
from sememe.models.generation import check_generation, prompt_ids, stream
from sememe.models.language_model import LanguageModel
from sememe.web.completion_bodies import Asked, ChatAsked, CompletionAsked
from sememe.web.writer import Writer

COUNTS = ("tokens", "outside", "left_out", "unmet", "applied", "changed")


class Fired(Struct):
    """A traced feature that fired on a token that the model read."""

    index: int
    """Number of the text."""
    position: int
    """As the model counts: 0 is the first token that it reads."""
    token: str
    new: bool
    """Whether the model wrote the token."""
    feature: int
    value: float


@dataclass
class SteeredModel:
    """A model, the features of a dictionary of it, and whose turn it is."""

    language: LanguageModel
    features: FeatureSet
    lock: threading.Lock
    """Held by whoever runs the model."""

    @property
    def name(self) -> str:
        """What requests call it."""
        return self.language.name

    def begin(self, asked: Asked) -> "Writing":
        """Return the texts that are asked for, none of them begun; UsageError for what is wrong."""
        asked.check(self.name)
        if isinstance(asked, CompletionAsked):
            rows = [prompt_ids(self.language, text) for text in asked.prompts]
        else:
            assert isinstance(asked, ChatAsked)
            rows = [chat_ids(self.language, [message.plain() for message in asked.messages])]
        changes = {
            number: Change.parse(each.how, scope=each.scope, when=each.when)
            for number, each in asked.changes().items()
        }
        seed = secrets.randbits(32) if asked.seed is None else asked.seed
        with self.lock:
            return Writing.begin(self, rows, asked, changes, seed)


@dataclass
class Writing:
    """The texts of one request, as far as they are written."""

    model: SteeredModel
    rows: list[list[int]]
    """Tokens of the prompts."""
    asked: Asked
    changes: dict[int, Change]
    seed: int
    writers: list[Writer]
    applied: list[Applied]
    """How often each change was applied."""
    steps: Iterator[list[int | None]] = field(repr=False)
    monitor: Monitor | None

    @classmethod
    def begin(
        cls,
        model: SteeredModel,
        rows: list[list[int]],
        asked: Asked,
        changes: dict[int, Change],
        seed: int,
    ) -> "Writing":
        """Check everything that can be wrong, before anything is answered."""
        features = model.features
        with intervene(model.language, {features: changes}) as run:
            applied = run.applied
        watches = [Watch(features.reads, number, 0.0) for number in dict.fromkeys(asked.trace)]
        temperature = 1.0 if asked.temperature is None else asked.temperature
        check_generation(model.language, rows, asked.tokens, temperature)
        return cls(
            model,
            rows,
            asked,
            changes,
            seed,
            [Writer(model.language.tokenizer.bytes_of, asked.stops) for _ in rows],
            applied,
            stream(model.language, rows, tokens=asked.tokens, temperature=temperature, seed=seed),
            Monitor(watches, [features]) if watches else None,
        )

    def step(self) -> tuple[list[str], list[Fired]] | None:
        """Write the next token of every text: return what may be shown, and what fired.

        None when all texts have ended.
        """
        if all(writer.finish for writer in self.writers):
            return None
        alerts: list[Alert] = []
        with self.model.lock, ExitStack() as stack:
            language = self.model.language
            run = stack.enter_context(intervene(language, {self.model.features: self.changes}))
            if self.monitor is not None:
                stack.enter_context(self.monitor.watching(language, alerts.append))
            made = next(self.steps, None)
            done = run.report()
        for whole, part in zip(self.applied, done, strict=True):
            for name in COUNTS:
                setattr(whole, name, getattr(whole, name) + getattr(part, name))
        tokens = [None] * len(self.rows) if made is None else made
        texts = [writer.write(token) for writer, token in zip(self.writers, tokens, strict=True)]
        for number, writer in enumerate(self.writers):
            if writer.tokens == self.asked.tokens:
                texts[number] += writer.end("length")
        return texts, [_fired(alert) for alert in alerts]

    def facts(self, fired: Sequence[Fired]) -> dict[str, Any]:
        """Return sememe's own part of an answer."""
        applied = [
            {"feature": each.feature, "how": str(each.change), "amount": each.amount}
            | {name: getattr(each, name) for name in COUNTS}
            for each in self.applied
        ]
        return {"seed": self.seed, "features": applied, "trace": fired}

    def usage(self) -> dict[str, int]:
        """Return the tokens read and written."""
        read = sum(map(len, self.rows))
        written = sum(writer.tokens for writer in self.writers)
        return {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
        }


def _fired(alert: Alert) -> Fired:
    value = round(alert.value, 4)
    return Fired(alert.text, alert.position, alert.token, alert.new, alert.feature, value)
