"""The commands that change features while a model runs, and say what features do."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional, UseAppendAction

from sememe.commands.dials import ModelDtype
from sememe.commands.figures import show
from sememe.errors import UsageError
from sememe.terminal import print_heading, print_table, terminal_progress

if TYPE_CHECKING:
    from sememe.intervention.changes import Change
    from sememe.intervention.features import FeatureSet
    from sememe.models.language_model import LanguageModel
    from sememe.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model and the dictionaries of its features."""

    subject: Positional[str]
    """A run of `sememe map`, a dictionary's directory, or a model before dictionaries."""
    dictionaries: Positional[tuple[str, ...]] = ()
    """Dictionaries or runs, one or several; their model may be left out where they say which."""
    model_dtype: ModelDtype | None = None
    """What the model computes in; by default what the run's did."""
    accept_terms: bool = False
    """Accept the terms of a model that has them (Gemma)."""

    def opened(self, progress: "Progress") -> "tuple[LanguageModel, list[FeatureSet]]":
        """Load the model and open the dictionaries."""
        from sememe.artefacts import is_finished
        from sememe.intervention.features import FeatureSet
        from sememe.models.load import load_model
        from sememe.run import Run

        def holds_features(word: str) -> bool:
            return any(is_finished(place) for place in (Path(word), Run(Path(word)).dictionary))

        known = holds_features(self.subject)
        if not known and not self.dictionaries:
            raise UsageError(
                f"{self.subject} holds no finished dictionary: expected a run of `sememe map`, a "
                "dictionary's directory, or MODEL DICT ..."
            )
        paths = (self.subject, *self.dictionaries) if known else self.dictionaries
        opened = [FeatureSet.open(path) for path in paths]
        if known and self.model_dtype is None and is_finished(Run(Path(paths[0])).dictionary):
            return Run(Path(paths[0])).load_model(progress), opened
        facts = opened[0].dictionary.manifest.get("made_from", {})
        name = facts.get("model_name") if known else self.subject
        if name is None:
            raise UsageError(
                f"{paths[0]} does not say which model it was made for: write MODEL {paths[0]}"
            )
        model = load_model(
            name,
            dtype=self.model_dtype or facts.get("model_dtype", "auto"),
            accept_terms=self.accept_terms or known,  # whoever made it has
            progress=progress,
        )
        return model, opened


def one_of(features: "list[FeatureSet]", site: str) -> "FeatureSet":
    """Return the dictionary that reads ``site``, or the only one; UsageError if it is not clear."""
    fitting = [each for each in features if site in ("", each.reads)]
    if len(fitting) != 1:
        sites = ", ".join(each.reads for each in features)
        raise UsageError(
            f"site {site!r} is that of {len(fitting)} dictionaries here; expected one of {sites}, "
            "as in SITE:FEATURE"
        )
    return fitting[0]


def parse_change(
    text: str, features: "list[FeatureSet]", scope: str, when: str | None
) -> "tuple[FeatureSet, int, Change]":
    """Return the dictionary, the feature and what ``[SITE:]FEATURE=HOW`` does to it."""
    from sememe.intervention.changes import Change

    place, equals, how = text.rpartition("=")
    site, _, number = place.rpartition(":")
    if not equals or not number.isdecimal():
        raise UsageError(
            f"--feature {text}: expected FEATURE=HOW, such as 1234=5x, or SITE:FEATURE=HOW"
        )
    return one_of(features, site), int(number), Change.parse(how, scope=scope, when=when)


@dataclass(frozen=True, kw_only=True)
class Steer(Subject):
    """Continue prompts with changed features, beside the same without."""

    feature: UseAppendAction[tuple[str, ...]] = ()
    """FEATURE=HOW, or SITE:FEATURE=HOW with several dictionaries; again for several. HOW is a value
    (2.5), a multiple of the observed maximum (5x), mean, scale:F, add:V, add:Fx, or out."""
    prompt: UseAppendAction[tuple[str, ...]] = ()
    """What to continue; again for several."""
    scope: str = "all"
    """Tokens that are changed: all, prompt, new, or positions such as 3, 3:6 or 3:."""
    when: str | None = None
    """Change only tokens on which another feature is above a value: 88>2.5, or 88>0.5x."""
    tokens: int = 40
    """New tokens, at most."""
    temperature: float = 0.0
    """Of the draw of each token; 0 takes the likeliest."""
    seed: int = 0
    """Of the draws, which are the same with and without the changes."""
    json: bool = False
    """Print one JSON object."""

    def __call__(self) -> None:
        from sememe.intervention.steering import steer

        if not self.feature or not self.prompt:
            raise UsageError(
                "expected --feature FEATURE=HOW and --prompt TEXT, at least one of each"
            )
        with terminal_progress() as progress:
            model, features = self.opened(progress)
            changes: dict[FeatureSet, dict[int, Change]] = {}
            for text in self.feature:
                owner, number, change = parse_change(text, features, self.scope, self.when)
                mine = changes.setdefault(owner, {})
                if number in mine:
                    raise UsageError(f"--feature {text}: feature {number} was given already")
                mine[number] = change
            found = steer(
                model,
                changes,
                self.prompt,
                tokens=self.tokens,
                temperature=self.temperature,
                seed=self.seed,
            )
        if found.warning:
            sys.stderr.write(f"sememe: warning: {found.warning}\n")
        if self.json:
            show({"model": model.name, "scope": self.scope, **found.to_json()}, as_json=True)
            return
        for pair in found.pairs:
            print_heading(pair.prompt)
            print_table(
                ("", "continuation", "perplexity"),
                [
                    [name, text.text, text.perplexity or "-"]
                    for name, text in (("unsteered", pair.unsteered), ("steered", pair.steered))
                ],
            )
        columns = ("site", "feature", "how", "amount", "tokens", "applied", "changed", "left_out")
        print_heading("changes")
        rows = [each.to_json() for each in found.applied]
        print_table(columns, [[row[name] for name in columns] for row in rows])
