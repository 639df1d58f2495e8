"""Change features while a model runs: x' = x + decode(code') - decode(code).

The part of an activation that the dictionary does not explain stays as it is, and where no feature
changes the activation is the same bit for bit.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from sememe.dictionaries.dictionary import Dictionary
from sememe.errors import SememeError, UsageError
from sememe.intervention.changes import Change, Condition
from sememe.intervention.features import FeatureSet
from sememe.intervention.passes import Pass, watched
from sememe.models.language_model import LanguageModel
from sememe.models.reading import replaced

# Axis names: batch, time = a pass with its padding; tokens = those without padding; kept = those
# that the token rules keep; n = changed features.

Wanted = Mapping[int, Change | str | float | int]
"""By feature, what is done to it, as :meth:`Change.parse` reads it."""
Owner = FeatureSet | Dictionary
Changes = Mapping[FeatureSet, Wanted] | Mapping[Dictionary, Wanted] | Mapping[Owner, Wanted]
"""By dictionary, what is done to its features."""


@dataclass
class Applied:
    """How often one change was applied; every token that the model read is counted once."""

    site: str
    feature: int
    change: Change
    amount: float
    """Of the change, in units of the code; 0 for ``out``."""
    tokens: int = 0
    """Tokens that passed the site."""
    outside: int = 0
    """Tokens outside the scope."""
    left_out: int = 0
    """Tokens in scope that the token rules leave out: special tokens and attention sinks."""
    unmet: int = 0
    """Tokens in scope on which the condition did not hold."""
    applied: int = 0
    """All others: the change was applied."""
    changed: int = 0
    """Tokens of those whose activation it moved."""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        counts = {k: v for k, v in asdict(self).items() if k not in ("change", "amount")}
        return {**counts, "how": str(self.change), "amount": self.amount}


@dataclass
class Intervention:
    """What is being changed, and what has been counted so far."""

    model: LanguageModel
    applied: list[Applied]
    tokens: int = 0
    """Tokens that the model read in whole passes, padding aside."""
    prompt_tokens: Sequence[int] | int | None = None
    """Tokens of the prompt of each row. To be set where there is no cache, so that prompts are read
    again with what was generated; otherwise tokens that are read on top of a cache are new."""
    _now: Pass | None = None
    _counted: list[tuple[Applied, dict[str, int]]] = field(default_factory=list)

    def report(self) -> list[Applied]:
        """Return the counts; SememeError if a change has missed a token that the model read."""
        for each in self.applied:
            whole = each.outside + each.left_out + each.unmet + each.applied
            if each.tokens != self.tokens or whole != self.tokens:
                raise SememeError(
                    f"{self.model.name} read {self.tokens} tokens, but {whole} were seen at "
                    f"{each.site}, where feature {each.feature} is changed: the module there did "
                    "not run, or ran more than once, so that nothing is reported"
                )
        return self.applied

    def _begin(self, arguments: dict[str, Any]) -> None:
        self._now = Pass.of(arguments, self.prompt_tokens)
        self._counted = []

    def _end(self) -> None:
        assert self._now is not None
        self.tokens += len(self._now.ids)
        for each, counts in self._counted:
            for name, count in counts.items():
                setattr(each, name, getattr(each, name) + count)
        self._now, self._counted = None, []

    def _tokens(self) -> Pass:
        if self._now is None:
            raise SememeError(
                f"a part of {self.model.name} is run by itself: run the whole model, so that it is "
                "known where its tokens stand"
            )
        return self._now


@contextmanager
def intervene(model: LanguageModel, changes: Changes) -> Iterator[Intervention]:
    """Inside the context, ``model`` goes on from changed features, however it is run.

    ``changes`` say, for one or several dictionaries, what is done to which features: ``{features:
    {1234: "5x", 88: 0.0}}``, as :meth:`Change.parse` reads it, or as :class:`Change`. Values are in
    units of the code. Tokens that the dictionary's token rules leave out (special tokens, attention
    sinks), and padding on the left, keep their activations. All changes at a site are made
    together, from the code of its activation before any of them; ``out`` comes last. A dictionary
    at a later site, or given later at the same one, sees what the earlier have changed.

    Raises UsageError for a feature that does not exist, an amount that is not finite or needs an
    atlas that is not there, and a dictionary of another model.
    """
    edits = [_Edit.of(model, owner, wanted) for owner, wanted in changes.items()]
    run = Intervention(model, [each for edit in edits for each in edit.applied])
    with ExitStack() as stack:
        stack.enter_context(watched(model, run._begin, run._end))
        for edit in edits:
            edit.enter(run, stack)
        yield run


class _Seen(NamedTuple):
    """What an edit needs of the tokens of a pass, padding aside."""

    kept: Bool[Tensor, " tokens"]
    values: Float[Tensor, "kept n"]
    """Of the changed features, then of those in conditions; 0 where no code is needed."""


@dataclass
class _Edit:
    """The changes of one dictionary."""

    model: LanguageModel
    features: FeatureSet
    applied: list[Applied]
    conditions: list[Condition]
    _seen: _Seen | None = None

    @classmethod
    def of(
        cls,
        model: LanguageModel,
        owner: Owner,
        wanted: Wanted,
    ) -> "_Edit":
        features = owner if isinstance(owner, FeatureSet) else FeatureSet(owner)
        features.check(model)
        applied = []
        for number, given in wanted.items():
            change = given if isinstance(given, Change) else Change.parse(given)
            amount = features.amount(number, change.amount)
            if not torch.tensor(amount).isfinite():
                raise UsageError(
                    f"feature {number} is changed by {amount}; expected a finite number"
                )
            applied.append(Applied(features.writes, number, change, amount))
        conditions = [each.change.when for each in applied if each.change.when is not None]
        for condition in conditions:
            features.check_feature(condition.feature)
        return cls(model, features, applied, conditions)

    def enter(self, run: Intervention, stack: ExitStack) -> None:
        """Hook the sites."""
        reads, writes = self.features.reads, self.features.writes
        if reads != writes:
            stack.enter_context(replaced(self.model, reads, partial(self._look, run)))
        stack.enter_context(replaced(self.model, writes, partial(self._change, run)))

    def _look(
        self, run: Intervention, x: Shaped[Tensor, "batch time width"]
    ) -> Shaped[Tensor, "batch time width"]:
        """Keep what is needed of the activations that are encoded."""
        now = run._tokens()
        rows = x.detach()[now.valid].float()
        kept = self.features.kept(now.ids, rows)
        numbers = torch.tensor(
            [each.feature for each in self.applied] + [each.feature for each in self.conditions]
        )
        if any(each.change.needs_code for each in self.applied):
            values = self.features.values(rows[kept], numbers)
        else:
            values = torch.zeros(int(kept.sum()), len(numbers))
        self._seen = _Seen(kept.cpu(), values)
        return x

    def _change(
        self, run: Intervention, x: Shaped[Tensor, "batch time width"]
    ) -> Shaped[Tensor, "batch time width"]:
        """Return the activations with the changes made; the same where there are none."""
        if self.features.reads == self.features.writes:
            self._look(run, x)
        if self._seen is None:
            raise SememeError(
                f"{self.features.writes} comes before {self.features.reads} in {self.model.name}: "
                "the dictionary writes what it has not read yet"
            )
        now, seen = run._tokens(), self._seen
        self._seen = None
        values, new, out = self._new_values(run, now, seen)
        rows = x[now.valid]
        moved = torch.zeros(len(rows), dtype=torch.bool)
        moved[seen.kept] = (new != values).any(1) | out.any(1)
        if not moved.any():
            return x
        numbers = torch.tensor([each.feature for each in self.applied])
        directions = self.features.directions(numbers).to(x.device)
        inside = moved[seen.kept]
        delta = (new - values)[inside].to(x.device) @ directions
        changed = _project_out(rows[moved].float() + delta, directions, out[inside])
        rows[moved] = changed.to(rows.dtype)
        result = x.clone()
        result[now.valid] = rows
        return result

    def _new_values(
        self, run: Intervention, now: Pass, seen: _Seen
    ) -> tuple[Float[Tensor, "kept n"], Float[Tensor, "kept n"], Bool[Tensor, "kept n"]]:
        """Return the values before and after, and where directions go; count every token."""
        n = len(self.applied)
        values, others = seen.values[:, :n], iter(seen.values[:, n:].T)
        new, out = values.clone(), torch.zeros_like(values, dtype=torch.bool)
        for column, each in enumerate(self.applied):
            scope = each.change.scope.holds(now.position, now.new).cpu()
            active = scope[seen.kept]
            if (when := each.change.when) is not None:
                active = active & (next(others) > self.features.amount(when.feature, when.above))
            if each.change.how == "out":
                out[:, column] = active
            else:
                old = values[active, column]
                new[active, column] = each.change.apply(old, each.amount)
            in_scope, applied = int(scope.sum()), int(active.sum())
            unmet = int(scope[seen.kept].sum()) - applied
            moved = out[:, column] | (new[:, column] != values[:, column])
            counts = {
                "tokens": len(scope),
                "outside": len(scope) - in_scope,
                "left_out": in_scope - unmet - applied,
                "unmet": unmet,
                "applied": applied,
                "changed": int(moved.sum()),
            }
            run._counted.append((each, counts))
        return values, new, out


def _project_out(
    rows: Float[Tensor, "tokens width"],
    directions: Float[Tensor, "n width"],
    out: Bool[Tensor, "tokens n"],
) -> Float[Tensor, "tokens width"]:
    """Return each row without its part in the span of the directions that are to go from it."""
    for chosen in out.unique(dim=0):
        if not chosen.any():
            continue
        mine = (out == chosen).all(1).to(rows.device)
        left, sizes, _ = torch.linalg.svd(
            directions[chosen.to(directions.device)].T, full_matrices=False
        )
        basis = left[:, sizes > 1e-6 * sizes[0]]
        rows[mine] = rows[mine] - (rows[mine] @ basis) @ basis.T
    return rows
