"""The command that says what features do to a text's loss, or to the choice of its next token."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import UseAppendAction

from sememe.commands.figures import show, with_interval
from sememe.commands.intervening import Subject, one_of
from sememe.errors import UsageError
from sememe.terminal import print_heading, print_table, terminal_progress

if TYPE_CHECKING:
    from sememe.intervention.attribution import Attribution, Figure, Text
    from sememe.intervention.features import FeatureSet
    from sememe.models.language_model import LanguageModel
    from sememe.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Attribute(Subject):
    """Say how much each feature does to the next token of a prompt, or to the loss on it."""

    prompt: UseAppendAction[tuple[str, ...]] = ()
    """A text; again for several."""
    site: str = ""
    """Of several dictionaries, that which reads this site."""
    target: str | None = None
    """The next token whose logit is looked at; by default the likeliest."""
    baseline: str | None = None
    """The token whose logit is taken from it; by default the mean of all logits."""
    loss: bool = False
    """Look at the loss on the whole prompt instead."""
    way: Literal["gradient", "direct", "integrated", "ablation"] = "gradient"
    """gradient and direct take one pass, integrated 16; ablation sets each feature to 0 and runs
    the model again, a pass each."""
    top: int = 20
    """Features to show, of the largest effects either way."""
    correlate: int = 0
    """Instead: on so many held-out texts of the run, how well each way, and the activation alone,
    agree with ablation."""
    length: int = 64
    """Tokens of such a text."""
    per_text: int = 64
    """Features ablated in each."""
    seed: int = 0
    """Of the choice of texts and features."""
    json: bool = False
    """Print one JSON object."""

    def __call__(self) -> None:
        if bool(self.prompt) == bool(self.correlate):
            raise UsageError("expected either --prompt TEXT or --correlate N")
        with terminal_progress() as progress:
            model, opened = self.opened(progress)
            model, features = model.exact(), one_of(opened, self.site)
            if self.correlate:
                found = self._correlated(model, features, progress)
            else:
                found = {"prompts": [self._attributed(model, features, p) for p in self.prompt]}
        facts = {"model": model.name, "site": features.reads}
        if self.json:
            show({**facts, **found}, as_json=True)
        elif self.correlate:
            _print_correlations(found)
        else:
            for prompt in found["prompts"]:
                _print_prompt(prompt)

    def _attributed(
        self, model: "LanguageModel", features: "FeatureSet", prompt: str
    ) -> dict[str, Any]:
        from sememe.intervention.attribution import Attribution, effects_of, figure_of, look
        from sememe.models.generation import prompt_ids

        text = look(model, features, prompt_ids(model, prompt))
        figure, on = self._figure(model, text)
        effects = effects_of(model, features, text, figure, way=self.way)
        value = figure_of(text, figure)
        found = Attribution(text, value, effects)
        return {
            "prompt": prompt,
            "tokens": [model.tokenizer.decode([token]) for token in text.ids.tolist()],
            "of": on,
            "way": self.way,
            "value": value,
            "effects": float(effects.sum()),
            "features": _strongest(model, features, found, self.top),
        }

    def _figure(self, model: "LanguageModel", text: "Text") -> "tuple[Figure, str]":
        from sememe.intervention.attribution import LogitDifference, Loss

        if self.loss:
            if self.target is not None or self.baseline is not None:
                raise UsageError("--loss is of the whole prompt: leave --target and --baseline out")
            return Loss(), "loss on the prompt"
        target = (
            int(text.logits[0, -1].argmax()) if self.target is None else _token(model, self.target)
        )
        baseline = None if self.baseline is None else _token(model, self.baseline)
        shown = [model.tokenizer.decode([target]), self.baseline]
        over = "the mean logit" if baseline is None else f"that of {shown[1]!r}"
        return LogitDifference(target, baseline), f"logit of {shown[0]!r} over {over}"

    def _correlated(
        self, model: "LanguageModel", features: "FeatureSet", progress: "Progress"
    ) -> dict[str, Any]:
        from sememe.corpora.corpus import Corpus
        from sememe.intervention.agreement import agreement, held_out_texts

        place = Path((self.subject, *self.dictionaries)[-1])
        corpus = place / "corpus" if (place / "corpus").is_dir() else place.parent / "corpus"
        texts = held_out_texts(
            Corpus.open(corpus), model.tokenizer.bos, self.correlate, self.length, self.seed
        )
        found = agreement(
            model, features, texts, per_text=self.per_text, seed=self.seed, progress=progress
        )
        return {
            "of": "logit of the likeliest next token over that of the second",
            "texts": len(texts),
            "length": self.length,
            "pairs": len(found.ablation),
            "correlation_with_ablation": found.correlations(),
        }


def _token(model: "LanguageModel", text: str) -> int:
    ids = model.tokenizer.encode(text)
    if len(ids) != 1:
        shown = ", ".join(repr(model.tokenizer.decode([token])) for token in ids)
        raise UsageError(f"{text!r} is {len(ids)} tokens ({shown}): expected one")
    return ids[0]


def _strongest(
    model: "LanguageModel", features: "FeatureSet", found: "Attribution", top: int
) -> list[dict[str, Any]]:
    """Return the features of the largest effects, with what each does token by token."""
    numbers, sums = found.by_feature()
    rows = []
    for place in sums.abs().argsort(descending=True, stable=True)[:top].tolist():
        mine = (found.text.firings.feature == numbers[place]).nonzero()[:, 0].tolist()
        token, _, value = (part[mine].tolist() for part in found.text.firings)
        rows.append(
            {
                "feature": int(numbers[place]),
                "effect": float(sums[place]),
                "fires_most_on": features.top_tokens(int(numbers[place]), model.tokenizer),
                "tokens": [
                    {"position": where, "value": strength, "effect": effect}
                    for where, strength, effect in zip(
                        token, value, found.effects[mine].tolist(), strict=True
                    )
                ],
            }
        )
    return rows


def _print_prompt(prompt: dict[str, Any]) -> None:
    print_heading(f"{prompt['of']}: {prompt['value']:.4g}; by {prompt['way']}")
    rows = [
        [
            row["feature"],
            row["effect"],
            max(each["value"] for each in row["tokens"]),
            " ".join(f"{prompt['tokens'][each['position']]!r}" for each in row["tokens"][:4]),
            " ".join(map(repr, row["fires_most_on"])),
        ]
        for row in prompt["features"]
    ]
    print_table(("feature", "effect", "value", "fires here on", "fires most on"), rows)


def _print_correlations(found: dict[str, Any]) -> None:
    sys.stdout.write(
        f"{found['pairs']} features of {found['texts']} texts of {found['length']} tokens; effects "
        f"on the {found['of']}\n"
    )
    rows = [
        [way, with_interval(kinds["pearson"]), with_interval(kinds["spearman"])]
        for way, kinds in found["correlation_with_ablation"].items()
    ]
    print_table(("way", "Pearson with ablation", "ranks with ablation"), rows)
