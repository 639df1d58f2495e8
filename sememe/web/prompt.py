"""Run texts through the model, and show which features their tokens fire."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from sememe.errors import UsageError
from sememe.web import answers
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


@runtime_checkable
class Effects(Protocol):
    """What features do to logits, by their weights alone."""

    def token(self, text: str) -> int:
        """Return the token that ``text`` is; UsageError where it is several."""

    def on_token(self, features: Sequence[int], token: int) -> npt.NDArray[np.float32]:
        """Return what one unit of each feature adds to the logit of ``token``."""

    def of_feature(self, feature: int) -> npt.NDArray[np.float32]:
        """Return what one unit of a feature adds to the logit of every token."""


class Prompter:
    """Answers prompts, one at a time; the model behind ``prompt`` may load at the first.

    ``effects`` is None where the dictionary's site has no direct path to the logits.
    """

    def __init__(self, views: Views, prompt: Prompt, effects: Effects | None) -> None:
        self.views = views
        self.prompt = prompt
        self.effects = effects

    def run(self, text: str, following: str | None) -> answers.PromptAnswer:
        """Return the pieces of ``text`` with their features, and every feature with its values.

        ``following`` is the text of a token whose logit the features' effects are shown on.
        """
        given = self._direct_path().token(following) if following is not None else None
        tokens = self._tokens(text)
        shown: list[answers.PromptPiece] = []
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
            ids = [item.token for item in tokens[start:stop]]
            shown.append(
                answers.PromptPiece(
                    text_,
                    ids,
                    all(item.excluded for item in tokens[start:stop]),
                    [(feature, round(value, 4)) for feature, value in ranked],
                    self.views.text.broken(ids),
                )
            )
        effect = self._effects(list(strongest), given)
        features = [
            answers.PromptFeature(
                **self.views.name(feature),
                value=round(value, 4),
                pieces=count,
                effect=effect.get(feature),
            )
            for feature, (value, count) in strongest.items()
        ]
        features.sort(key=lambda item: (-item.value, item.feature))
        chosen = None
        if given is not None:
            chosen = answers.Token(given, self.views.text.label(given))
        return answers.PromptAnswer(len(tokens), shown, features, chosen)

    def _direct_path(self) -> Effects:
        if self.effects is None:
            raise UsageError("this dictionary's site has no direct path to the logits")
        return self.effects

    def _effects(self, features: list[int], token: int | None) -> dict[int, float]:
        if token is None or not features:
            return {}
        found = self._direct_path().on_token(features, token)
        return dict(zip(features, (round(value, 4) for value in found.tolist()), strict=True))

    def effects_of(self, feature: int) -> answers.EffectsAnswer:
        """Return what a feature adds to the logit of every token that its page shows."""
        page = self.views.atlas.feature(feature)
        examples = [
            *page["top"],
            *(item for part in page["intervals"] for item in part["examples"]),
        ]
        tokens = sorted({token for example in examples for token in example["tokens"]})
        effect = self._direct_path().of_feature(feature)
        return answers.EffectsAnswer({token: round(float(effect[token]), 4) for token in tokens})

    def contrast(
        self, positive: Sequence[str], negative: Sequence[str], limit: int
    ) -> answers.ContrastAnswer:
        """Rank features by how much larger their mean over one group's tokens is."""
        means, counts = [], []
        for texts in (positive, negative):
            total = np.zeros(self.views.atlas.features, np.float32)
            kept = 0
            for text in texts:
                for item in self._tokens(text):
                    kept += not item.excluded
                    for feature, value in item.features:
                        total[feature] += value
            means.append(total / max(kept, 1))
            counts.append(kept)
        difference = means[0] - means[1]
        order = np.argsort(-difference, kind="stable")

        def named(numbers: npt.NDArray[np.intp]) -> list[answers.Contrasted]:
            return [
                answers.Contrasted(
                    **self.views.name(number),
                    positive=round(float(means[0][number]), 4),
                    negative=round(float(means[1][number]), 4),
                    difference=round(float(difference[number]), 4),
                )
                for number in numbers.tolist()
            ]

        first, last = order[:limit], order[::-1][:limit]
        return answers.ContrastAnswer(
            counts[0],
            counts[1],
            named(first[difference[first] > 0]),
            named(last[difference[last] < 0]),
        )

    def _tokens(self, text: str) -> Sequence[PromptToken]:
        tokens = self.prompt(text)
        if len(tokens) > MAX_TOKENS:
            raise UsageError(
                f"text is {len(tokens)} tokens long: expected at most {MAX_TOKENS}, shorten it"
            )
        return tokens
