"""What a client of OpenAI's API may ask for, and sememe's two fields beside it."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from sememe.errors import UsageError

MAX_TOKENS = 2048
MAX_PROMPTS = 8
MAX_FEATURES = 64
_DEFAULT_TOKENS = 64
_NEUTRAL: Mapping[str, Sequence[Any]] = {
    "n": (1, None),
    "best_of": (1, None),
    "top_p": (1, None),
    "frequency_penalty": (0, None),
    "presence_penalty": (0, None),
    "logprobs": (None, False),
    "echo": (False, None),
}
"""What the API has and this server has not, with the values that ask for nothing."""

Text = Annotated[str, Meta(max_length=200_000)]


class FeatureChange(Struct, forbid_unknown_fields=True):
    """What is done to a feature, on which tokens, under which condition."""

    how: str | int | float
    scope: str = "all"
    when: str | None = None


class Asked(Struct, kw_only=True, forbid_unknown_fields=True):
    """What both kinds of requests have."""

    model: str
    max_tokens: Annotated[int, Meta(ge=1, le=MAX_TOKENS)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1, le=MAX_TOKENS)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=10)] | None = None
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    stop: Text | Annotated[list[Text], Meta(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    user: str | None = None
    n: int | None = None
    best_of: int | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logprobs: bool | int | None = None
    echo: bool | None = None
    features: Annotated[dict[str, str | int | float | FeatureChange], Meta(max_length=64)] = {}
    """By the number of a feature, what is done to it."""
    trace: Annotated[list[int], Meta(max_length=MAX_FEATURES)] = []
    """Features whose values are told wherever they fire."""

    @property
    def tokens(self) -> int:
        """New tokens of each text, at most."""
        return self.max_completion_tokens or self.max_tokens or _DEFAULT_TOKENS

    @property
    def stops(self) -> list[str]:
        """What ends a text."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    def changes(self) -> dict[int, FeatureChange]:
        """Return what is done to which features; UsageError where one is no number."""
        found = {}
        for name, given in self.features.items():
            if not name.isascii() or not name.isdigit():
                raise UsageError(f"features has {name[:40]!r}; expected numbers of features")
            found[int(name)] = given if isinstance(given, FeatureChange) else FeatureChange(given)
        return found

    def check(self, model: str) -> None:
        """Raise UsageError for what this server cannot do, so that nothing is left out in silence.

        ``model`` is the only one that it has.
        """
        for name, neutral in _NEUTRAL.items():
            if (given := getattr(self, name)) not in neutral:
                raise UsageError(f"{name} is {given!r}, which this server cannot do: leave it out")
        if self.model != model:
            raise UsageError(f"model is {self.model[:80]!r}; expected {model}")


class CompletionAsked(Asked, kw_only=True, forbid_unknown_fields=True):
    """Texts to go on with."""

    prompt: Text | Annotated[list[Text], Meta(min_length=1, max_length=MAX_PROMPTS)]

    @property
    def prompts(self) -> list[str]:
        """The texts."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


class TextPart(Struct):
    """A part of a message; of the API's kinds of parts only text is read."""

    type: Literal["text"]
    text: Text


class Message(Struct, forbid_unknown_fields=True):
    """What somebody says."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart]
    name: str | None = None

    def plain(self) -> dict[str, str]:
        """Return it as templates read it."""
        role = "system" if self.role == "developer" else self.role
        if isinstance(self.content, str):
            return {"role": role, "content": self.content}
        return {"role": role, "content": "".join(part.text for part in self.content)}


class ChatAsked(Asked, kw_only=True, forbid_unknown_fields=True):
    """A chat to answer in."""

    messages: Annotated[list[Message], Meta(min_length=1, max_length=256)]


def read_asked(data: bytes, kind: type[Any]) -> Any:  # noqa: ANN401
    """Return a request's body; UsageError says what is wrong with it."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise UsageError(f"body: {error}") from None
