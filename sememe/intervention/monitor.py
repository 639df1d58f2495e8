"""Watch features while a model reads or writes: an alert where one is above its limit."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from sememe.artefacts import read_json, write_json
from sememe.errors import SememeError, UsageError
from sememe.intervention.changes import Condition
from sememe.intervention.features import FeatureSet
from sememe.intervention.passes import Pass, watched
from sememe.models.generation import left_padded
from sememe.models.language_model import LanguageModel
from sememe.models.reading import read, replaced

# Axis names: tokens = some tokens of a pass; n = watched features of one dictionary; batch, time =
# a pass with its padding.

KIND, FORMAT = "monitor", 1
BATCH_TOKENS = 4096
_WATCH = re.compile(r"(?:([^=]+)=)?(?:(.+):)?(\d+>.+)")


class Watch(NamedTuple):
    """A feature and the limit above which it gives an alert."""

    site: str
    """Which its dictionary reads."""
    feature: int
    above: float
    """In units of the code."""
    name: str = ""


class Alert(NamedTuple):
    """A watched feature above its limit on a token."""

    text: int
    """Number of the text, or row of the batch."""
    position: int
    """As the model counts: 0 is the first token that it reads."""
    token: str
    site: str
    feature: int
    name: str
    value: float
    above: float
    new: bool
    """Whether the token was generated."""

    def to_json(self) -> dict[str, Any]:
        """Return it as a line of JSON has it."""
        return self._asdict()


@dataclass(frozen=True)
class _Group:
    """The watches of one dictionary."""

    features: FeatureSet
    watches: list[Watch]

    @property
    def numbers(self) -> Int[Tensor, " n"]:
        return torch.tensor([watch.feature for watch in self.watches])

    @property
    def limits(self) -> Float[Tensor, " n"]:
        return torch.tensor([watch.above for watch in self.watches])

    def above(
        self, ids: Int[Tensor, " tokens"], x: Float[Tensor, "tokens width"]
    ) -> Iterator[tuple[int, Watch, float]]:
        """Yield the places at which a watched feature is above its limit, and its values there."""
        kept = self.features.kept(ids, x).nonzero()[:, 0].cpu()
        values = self.features.values(x[kept], self.numbers, self.limits)
        for place, column in (values > self.limits).nonzero().tolist():
            yield int(kept[place]), self.watches[column], float(values[place, column])


@dataclass
class Watched:
    """How many tokens were watched, and the alerts that they gave."""

    tokens: int = 0
    alerts: int = 0


class Monitor:
    """Features with limits, of one or several dictionaries of one model.

    UsageError for a feature that does not exist, a limit below 0 or not finite, and a dictionary
    twice at the same site.
    """

    def __init__(self, watches: Sequence[Watch], features: Sequence[FeatureSet]) -> None:
        if not watches:
            raise UsageError("a monitor of no features; expected at least one")
        by_site = {each.reads: each for each in features}
        if len(by_site) < len(features):
            raise UsageError("two of the dictionaries read the same site; expected one a site")
        for watch in watches:
            if watch.site not in by_site:
                raise UsageError(
                    f"feature {watch.feature} is watched at {watch.site}, but the dictionaries "
                    f"read {', '.join(by_site)}"
                )
            by_site[watch.site].check_feature(watch.feature)
            if not 0 <= watch.above < math.inf:
                raise UsageError(
                    f"the limit of feature {watch.feature} is {watch.above}; expected 0 or more"
                )
        self.watches = list(watches)
        self.groups = [
            _Group(each, [watch for watch in watches if watch.site == site])
            for site, each in by_site.items()
            if any(watch.site == site for watch in watches)
        ]

    @classmethod
    def open(cls, path: Path, features: Sequence[FeatureSet]) -> "Monitor":
        """Read a monitor file; SememeError for one of other dictionaries than these."""
        found = read_json(path)
        if not isinstance(found, dict) or found.get("kind") != KIND:
            raise SememeError(f"{path} is no monitor file")
        if found.get("format", 0) > FORMAT:
            raise SememeError(f"{path} was written by a newer sememe: install that")
        own = {each.reads: each.dictionary.manifest.get("hash") for each in features}
        for site, made_for in found["dictionaries"].items():
            if own.get(site) != made_for:
                raise SememeError(
                    f"{path} was made for dictionary {made_for} at {site}, but "
                    f"{own.get(site) or 'none'} is given"
                )
        return cls([Watch(**watch) for watch in found["watches"]], features)

    def save(self, path: Path) -> None:
        """Write a monitor file: the watches, and which dictionaries they are of."""
        made_for = {
            group.features.reads: group.features.dictionary.manifest.get("hash")
            for group in self.groups
        }
        watches = [watch._asdict() for watch in self.watches]
        write_json(
            path, {"kind": KIND, "format": FORMAT, "dictionaries": made_for, "watches": watches}
        )

    @contextmanager
    def watching(self, model: LanguageModel, alert: Callable[[Alert], None]) -> Iterator[Watched]:
        """Inside the context ``alert`` is given every alert, however ``model`` is run.

        After each pass that is whole; of an intervention it sees what was changed before it if it
        is entered after. SememeError where a site's module does not run, or runs twice in a pass.
        """
        self.check(model)
        done = Watched()
        now: list[Pass] = []
        pending: dict[str, list[Alert]] = {}

        def begin(arguments: dict[str, Any]) -> None:
            now[:] = [Pass.of(arguments, None)]
            pending.clear()

        def look(group: _Group, x: Shaped[Tensor, "batch time width"]) -> Tensor:
            site = group.features.reads
            if site in pending or not now:
                raise SememeError(
                    f"the module at {site} of {model.name} runs more than once in a pass, or by "
                    "itself: it cannot be watched"
                )
            where = now[0]
            pending[site] = list(self._alerts(model, group, where, x.detach()[where.valid]))
            return x

        def end() -> None:
            if missed := [group for group in self.groups if group.features.reads not in pending]:
                raise SememeError(
                    f"the module at {missed[0].features.reads} of {model.name} did not run, so "
                    "that its tokens were not watched"
                )
            found = sorted(each for alerts in pending.values() for each in alerts)
            done.tokens += len(now[0].ids)
            done.alerts += len(found)
            now.clear()
            for each in found:
                alert(each)

        with ExitStack() as stack:
            stack.enter_context(watched(model, begin, end))
            for group in self.groups:
                stack.enter_context(replaced(model, group.features.reads, partial(look, group)))
            yield done

    def read(
        self,
        model: LanguageModel,
        texts: Sequence[Sequence[int]],
        alert: Callable[[Alert], None],
        *,
        window: int = 256,
    ) -> Watched:
        """Give ``alert`` the alerts of texts, which are read ``window`` tokens at once.

        The model runs up to the last site watched. Positions are those in the text; a BOS that the
        model wants is put in front of every window, and not counted.
        """
        self.check(model)
        bos = model.tokenizer.bos
        lead = [] if bos is None else [bos]
        step = min(window, model.context) - len(lead)
        pieces = [
            (number, start, [*lead, *text[start : start + step]])
            for number, text in enumerate(texts)
            for start in range(0, len(text), step)
        ]
        done = Watched()
        together = max(1, BATCH_TOKENS // window)
        sites = [group.features.reads for group in self.groups]
        for first in range(0, len(pieces), together):
            part = pieces[first : first + together]
            ids, valid = left_padded([row for _, _, row in part])
            where = Pass.of({"input_ids": ids, "attention_mask": valid.long()}, None)
            found = read(model, ids, sites, valid=valid)
            alerts = [
                each._replace(
                    text=part[each.text][0],
                    position=part[each.text][1] + each.position - len(lead),
                )
                for group in self.groups
                for each in self._alerts(
                    model, group, where, found[group.features.reads][valid.to(model.device)]
                )
            ]
            done.tokens += int(valid.sum()) - len(lead) * len(part)
            done.alerts += len(alerts)
            for each in sorted(alerts):
                alert(each)
        return done

    def check(self, model: LanguageModel) -> None:
        """Raise UsageError unless the dictionaries fit the model."""
        for group in self.groups:
            group.features.check(model)

    def _alerts(
        self, model: LanguageModel, group: _Group, where: Pass, x: Shaped[Tensor, "tokens width"]
    ) -> Iterator[Alert]:
        for token, watch, value in group.above(where.ids, x.float()):
            yield Alert(
                int(where.row[token]),
                int(where.position[token]),
                model.tokenizer.decode([int(where.ids[token])]),
                watch.site,
                watch.feature,
                watch.name,
                value,
                watch.above,
                bool(where.new[token]),
            )


def parse_watch(text: str, features: Sequence[FeatureSet]) -> Watch:
    """Return the watch written as ``[NAME=][SITE:]FEATURE>LIMIT``, such as ``water=88>0.5x``.

    UsageError where it is none, and where there are several dictionaries and no site is given.
    """
    found = _WATCH.fullmatch(text)
    if found is None:
        raise UsageError(
            f"watch is {text!r}; expected [NAME=][SITE:]FEATURE>VALUE or >MULTIPLEx, such as "
            "water=1234>0.5x"
        )
    name, site, rest = found.groups()
    fitting = [each for each in features if site in (None, each.reads)]
    if len(fitting) != 1:
        sites = ", ".join(each.reads for each in features)
        raise UsageError(f"watch is {text!r}; expected SITE: with one of {sites}")
    condition = Condition.parse(rest)
    above = fitting[0].amount(condition.feature, condition.above)
    fitting[0].check_feature(condition.feature)
    return Watch(fitting[0].reads, condition.feature, above, name or "")
