"""Run a text through the model, and show which features its tokens fire."""

import json
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sememe.errors import UsageError
from sememe.web.text import Json
from sememe.web.views import Views

MAX_TOKENS = 2000


class PromptToken(NamedTuple):
    """One token of a prompt, and the features that fire on it, in any order.

    ``excluded`` marks a token that the dictionary never sees (an attention sink, a special token).
    """

    token: int
    features: Sequence[tuple[int, float]]
    excluded: bool = False


Prompt = Callable[[str], Sequence[PromptToken]]


class Prompter:
    """Answers prompts one at a time; the model behind ``prompt`` may load at the first."""

    def __init__(self, views: Views, prompt: Prompt) -> None:
        self.views = views
        self.prompt = prompt
        self._lock = threading.Lock()

    def __call__(self, text: str) -> Json:
        """Return the pieces of ``text`` with their features, and every feature with its values."""
        with self._lock:
            tokens = self.prompt(text)
        if len(tokens) > MAX_TOKENS:
            raise UsageError(
                f"text is {len(tokens)} tokens long: expected at most {MAX_TOKENS}, shorten it"
            )
        shown: list[Json] = []
        strongest: dict[int, tuple[float, int]] = {}
        for text_, start, stop in self.views.text.spans([item.token for item in tokens]):
            merged: dict[int, float] = {}
            for item in tokens[start:stop]:
                for feature, value in item.features:
                    merged[feature] = max(value, merged.get(feature, 0.0))
            for feature, value in merged.items():
                best, count = strongest.get(feature, (0.0, 0))
                strongest[feature] = (max(best, value), count + 1)
            ranked = sorted(merged.items(), key=lambda pair: (-pair[1], pair[0]))
            shown.append(
                {
                    **self.views.text.piece([item.token for item in tokens[start:stop]], text_),
                    "excluded": all(item.excluded for item in tokens[start:stop]),
                    "features": [[feature, round(value, 4)] for feature, value in ranked],
                }
            )
        features = [
            {**self.views.name(feature), "value": round(value, 4), "pieces": count}
            for feature, (value, count) in strongest.items()
        ]
        features.sort(key=lambda item: (-item["value"], item["feature"]))
        return {"tokens": len(tokens), "pieces": shown, "features": features}


def prompt_text(body: bytes) -> str:
    """Return the text in a request's body, ``{"text": ...}``; UsageError says what is wrong."""
    try:
        value: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UsageError(f'body: expected JSON like {{"text": "..."}} ({error})') from None
    if not isinstance(value, dict) or set(value) != {"text"} or not isinstance(value["text"], str):
        raise UsageError('body: expected an object with one string, like {"text": "..."}')
    text: str = value["text"]
    if not text:
        raise UsageError("text '': expected at least one character")
    for place, character in enumerate(text):
        if "\ud800" <= character <= "\udfff":
            raise UsageError(
                f"text has half a surrogate pair (U+{ord(character):04X}) at character {place}: "
                "expected whole characters"
            )
    return text
