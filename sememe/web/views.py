"""An atlas as the JSON that pages show: text in place of token ids, names beside numbers."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import sememe
from sememe.atlas.annotations import Annotations
from sememe.atlas.query import SORTS, TOKEN_COLUMNS, Finder, Query
from sememe.atlas.search import Search
from sememe.atlas.store import STATUSES, Atlas, Page
from sememe.web import answers
from sememe.web.report import Evaluations, read_reports, suites_in
from sememe.web.text import TokenText

NAME_TOKENS = 4
NAMES = 1 << 13
"""Features whose names are remembered."""
BEFORE, AFTER = 14, 10


class Views:
    """Turns what an atlas stores into what a page shows.

    Attributes:
        atlas: The atlas.
        text: The text of its tokens.
    """

    def __init__(
        self,
        atlas: Atlas,
        report: Mapping[str, Any],
        *,
        prompt: bool,
        effects: bool = False,
        job: bool = False,
        search: Search | None = None,
        annotations: Annotations | None = None,
        evaluation: Path | None = None,
    ) -> None:
        self.atlas = atlas
        self.search = search or Search(atlas)
        self.annotations = annotations
        self.evaluation = evaluation
        self.finder = Finder(atlas, self.search.ranked)
        self.text = TokenText(atlas.vocabulary)
        self._fires_on = lru_cache(maxsize=NAMES)(self._tokens_or_characters)
        self._promoted = lru_cache(maxsize=NAMES)(self._promoted_tokens)
        self._alive = np.flatnonzero(atlas.columns["status"] == STATUSES.index("alive"))
        self._index = self._summary(report, prompt, effects, job)

    def index(self) -> answers.Index:
        """Return what was mapped, its headline figures and the histogram of frequencies."""
        return msgspec.structs.replace(self._index, suites=suites_in(self.evaluation))

    def reports(self) -> Evaluations:
        """Return the reports of the evaluation's suites, as they are by now."""
        return read_reports(self.evaluation)

    def _summary(
        self, report: Mapping[str, Any], prompt: bool, effects: bool, job: bool
    ) -> answers.Index:
        manifest, columns = self.atlas.manifest, self.atlas.columns
        places = [report, manifest, manifest["config"], manifest["made_from"]]
        found = {
            key: next((place[key] for place in places if place.get(key) is not None), None)
            for key in ("model", "site", "tokens", "width")
        }
        counts = np.bincount(columns["status"], minlength=len(STATUSES))
        logarithms = np.log10(columns["frequency"][columns["frequency"] > 0])
        low = np.floor(logarithms.min()) if len(logarithms) else -1.0
        bins, edges = np.histogram(logarithms, bins=round(-low * 8) or 8, range=(low, 0.0))
        return answers.Index(
            version=sememe.__version__,
            atlas=manifest["hash"],
            **found,
            features=self.atlas.features,
            status={name: int(counts[i]) for i, name in enumerate(STATUSES)},
            report=dict(report),
            frequencies=answers.Histogram(edges.tolist(), bins.tolist()),
            prompt=prompt,
            effects=effects,
            job=job,
            suites=[],
            notes=self.annotations is not None,
            searches=[*TOKEN_COLUMNS, *self.search.ranked],
            sorts=[sort for sort in SORTS if sort[0] in "rft" or sort in self.finder.numeric],
            ranges={
                name: (float(np.nanmin(columns[name])), float(np.nanmax(columns[name])))
                for name in self.finder.numeric
            },
            sources=self.finder.sources,
            map="x" in columns,
            neurons=self.search.neurons,
        )

    def name(self, feature: int) -> dict[str, Any]:
        """Return the fields of a feature at a glance: tokens, numbers, label."""
        columns = self.atlas.columns
        source = int(columns["source"][feature]) if "source" in columns else -1
        cluster = int(columns["cluster"][feature]) if "cluster" in columns else -1
        return {
            "feature": feature,
            "status": STATUSES[columns["status"][feature]],
            "frequency": float(columns["frequency"][feature]),
            "mean": float(columns["mean"][feature]),
            "maximum": float(columns["maximum"][feature]),
            "tokens": self._fires_on(feature),
            "promotes": self._promoted(feature),
            "label": self.search.label(feature),
            "source": self.finder.sources[source] if source >= 0 else None,
            "cluster": cluster if cluster >= 0 else None,
        }

    def _promoted_tokens(self, feature: int) -> list[str]:
        return self.text.labels(self.atlas.columns["promotes"][feature].tolist(), NAME_TOKENS)

    def _tokens_or_characters(self, feature: int) -> list[str]:
        """The tokens it fires on; where these are single bytes, the characters they are part of."""
        tokens = [token for token in self.atlas.columns["tokens"][feature].tolist() if token >= 0]
        whole = [token for token in tokens if self.text.is_whole(token)]
        if whole or not tokens:
            return self.text.labels(whole, NAME_TOKENS)
        examples = [self.example(example) for example in self.atlas.summary(feature)["top"]]
        characters = [example.pieces[example.peak].text for example in examples]
        return list(dict.fromkeys(characters))[:NAME_TOKENS]

    def row(self, feature: int, examples: int = 1) -> answers.Row:
        """Return a line of the table: name, small histogram, middles of strong examples."""
        counts, strongest = self.atlas.strongest(feature)
        chosen: list[Page] = []
        others: list[Page] = []
        documents: set[int] = set()
        for example in strongest:
            (others if example["document"] in documents else chosen).append(example)
            documents.add(example["document"])
            if len(chosen) == examples:
                break
        return answers.Row(
            **self.name(feature),
            histogram=counts,
            examples=[self._middle(example) for example in [*chosen, *others][:examples]],
        )

    def _middle(self, stored: Mapping[str, Any]) -> answers.Example:
        example = self.example(stored)
        start = max(example.peak - BEFORE, 0)
        example.pieces = example.pieces[start : example.peak + AFTER]
        example.peak -= start
        return example

    def rows(self, query: Query, offset: int, limit: int, *, facets: bool = True) -> answers.Rows:
        """Return how many features match, and ``limit`` lines of the table from ``offset``."""
        found = self.finder.find(query, offset, limit, facets=facets)
        rows = [self.row(number) for number in found.numbers.tolist()]
        return answers.Rows(found.total, offset, found.more, rows, found.facets)

    def sample(self, seed: int, count: int) -> answers.Sample:
        """Return lines of ``count`` features drawn from the alive ones that are not dense."""
        count = min(count, len(self._alive))
        drawn = np.random.default_rng(seed).choice(self._alive, count, replace=False)
        rows = [self.row(int(number), examples=3) for number in drawn]
        return answers.Sample(seed, len(self._alive), rows)

    def random(self) -> answers.Drawn:
        """Return the number of a feature drawn from the alive ones (from all when none is)."""
        drawn = np.random.default_rng().integers(len(self._alive) or self.atlas.features)
        return answers.Drawn(int(self._alive[drawn]) if len(self._alive) else int(drawn))

    def feature(self, number: int) -> answers.Feature:
        """Return everything about one feature, as text."""
        page = self.atlas.feature(number)
        last = self.atlas.features - 1
        logits = page.get("logits")
        return answers.Feature(
            feature=number,
            status=page["status"],
            frequency=page["frequency"],
            count=page["count"],
            mean=page["mean"],
            maximum=page["maximum"],
            mean_square=page.get("mean_square"),
            norm=page.get("norm"),
            alignment=page.get("alignment"),
            neurons=page.get("neurons"),
            histogram=answers.Histogram(**page["histogram"]),
            logits=answers.Histogram(logits["edges"], logits["counts"]) if logits else None,
            name=answers.Name(**self.name(number)),
            tokens=self._shares(page["tokens"]),
            before=self._shares(page.get("before", [])),
            after=self._shares(page.get("after", [])),
            promotes=self._effects(page["promotes"]),
            suppresses=self._effects(page["suppresses"]),
            sources=[answers.SourceShare(label, share) for label, share in page["sources"]],
            neighbours=[
                answers.Neighbour(**self.name(other), cosine=cosine)
                for other, cosine in page["neighbours"]
            ],
            cofiring=[
                answers.Cofiring(**self.name(other), strength=strength)
                for other, strength in page.get("cofiring", [])
            ],
            other=self._nearest_other(number),
            basis=[answers.NeuronWeight(*pair) for pair in page.get("basis", [])],
            correlated=[answers.NeuronCorrelation(*pair) for pair in page.get("correlated", [])],
            top=[self.example(example) for example in page["top"]],
            intervals=[
                answers.Interval(
                    part["low"],
                    part["high"],
                    part["count"],
                    [self.example(example) for example in part["examples"]],
                )
                for part in page["intervals"]
            ],
            inactive=[self.example(example) for example in page.get("inactive", [])],
            note=self.note(number),
            previous=number - 1 if number > 0 else None,
            next=number + 1 if number < last else None,
        )

    def neuron(self, number: int, offset: int, limit: int) -> answers.Neuron:
        """Return the features that write to a neuron, from ``offset``, and how many those are."""
        found = self.search.writers(number)
        squares = found.weight.astype(np.float64) ** 2
        last = (self.search.neurons or 1) - 1
        shown = slice(offset, offset + limit)
        return answers.Neuron(
            number,
            last + 1,
            total=len(squares),
            effective=float(squares.sum() ** 2 / (squares**2).sum()) if len(squares) else 0.0,
            positive=int((found.weight > 0).sum()),
            offset=offset,
            rows=[
                answers.NeuronRow(**self.name(feature), weight=round(weight, 4))
                for feature, weight in zip(
                    found.feature[shown].tolist(), found.weight[shown].tolist(), strict=True
                )
            ],
            previous=number - 1 if number > 0 else None,
            next=number + 1 if number < last else None,
        )

    def other(self, number: int) -> dict[str, Any]:
        """Return the fields of a feature of the dictionary on whose map these lie."""
        other = self.atlas.other
        assert other is not None
        ids = other.columns["tokens"][number] if "tokens" in other.columns else np.array([], int)
        tokens = self.text.labels(ids[ids >= 0].tolist(), NAME_TOKENS)
        return {"dictionary": other.name, "feature": number, "tokens": tokens}

    def _nearest_other(self, feature: int) -> answers.NearestOther | None:
        columns = self.atlas.columns
        if self.atlas.other is None or (nearest := int(columns["other"][feature])) < 0:
            return None
        cosine = float(columns["other_cosine"][feature])
        return answers.NearestOther(**self.other(nearest), cosine=cosine)

    def note(self, feature: int) -> answers.Note | None:
        """Return what somebody has noted on a feature."""
        found = self.annotations.get(feature) if self.annotations is not None else None
        return answers.Note(**found._asdict()) if found else None

    def _shares(self, pairs: Sequence[Sequence[Any]]) -> list[answers.TokenShare]:
        return [answers.TokenShare(id_, self.text.label(id_), share) for id_, share in pairs]

    def _effects(self, pairs: Sequence[Sequence[Any]]) -> list[answers.TokenEffect]:
        return [answers.TokenEffect(id_, self.text.label(id_), effect) for id_, effect in pairs]

    def example(self, example: Mapping[str, Any]) -> answers.Example:
        """Return an example with its tokens as pieces; ``peak`` is the piece it was chosen for."""
        pieces = self.text.pieces(example["tokens"], example["values"])
        centre = example["centre"]
        peak = centre
        if len(pieces) < len(example["tokens"]):
            place, peak = 0, 0
            for number, piece in enumerate(pieces):
                place += len(piece.tokens)
                if place > centre:
                    peak = number
                    break
        return answers.Example(
            pieces,
            peak,
            example["value"],
            example["source"],
            example["document"],
            example["position"],
        )
