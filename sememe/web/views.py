"""An atlas as the JSON that pages show: text in place of token ids, names beside numbers."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

import sememe
from sememe.atlas.store import STATUSES, Atlas
from sememe.web.text import Json, TokenText

NAME_TOKENS = 4
BEFORE, AFTER = 14, 10


class Views:
    """Turns what an atlas stores into what a page shows.

    Attributes:
        atlas: The atlas.
        text: The text of its tokens.
    """

    def __init__(self, atlas: Atlas, report: Mapping[str, Any], *, prompt: bool) -> None:
        self.atlas = atlas
        self.text = TokenText(atlas.vocabulary)
        self._fires_on = lru_cache(maxsize=1 << 16)(self._tokens_or_characters)
        self._index = self._summary(report, prompt)
        status = np.array(STATUSES)[atlas.columns["status"]]
        self._alive = np.flatnonzero(status == "alive")

    def index(self) -> Json:
        """Return what was mapped, its headline figures and the histogram of frequencies."""
        return self._index

    def _summary(self, report: Mapping[str, Any], prompt: bool) -> Json:
        manifest = self.atlas.manifest
        places = [report, manifest, manifest["config"], manifest["made_from"]]
        found = {
            key: next((place[key] for place in places if place.get(key) is not None), None)
            for key in ("model", "site", "tokens", "width")
        }
        status = self.atlas.columns["status"]
        frequency = self.atlas.columns["frequency"].astype(np.float64)
        logarithms = np.log10(frequency[frequency > 0])
        low = np.floor(logarithms.min()) if len(logarithms) else -1.0
        counts, edges = np.histogram(logarithms, bins=round(-low * 8) or 8, range=(low, 0.0))
        return {
            "version": sememe.__version__,
            **found,
            "features": self.atlas.features,
            "status": {name: int((status == i).sum()) for i, name in enumerate(STATUSES)},
            "report": dict(report),
            "frequencies": {"edges": edges.tolist(), "counts": counts.tolist()},
            "prompt": prompt,
        }

    def name(self, feature: int) -> Json:
        """Return a feature at a glance: tokens it fires on, tokens it promotes, numbers."""
        columns = self.atlas.columns
        return {
            "feature": feature,
            "status": STATUSES[columns["status"][feature]],
            "frequency": float(columns["frequency"][feature]),
            "mean": float(columns["mean"][feature]),
            "maximum": float(columns["maximum"][feature]),
            "tokens": self._fires_on(feature),
            "promotes": self.text.labels(columns["promotes"][feature].tolist(), NAME_TOKENS),
        }

    def _tokens_or_characters(self, feature: int) -> list[str]:
        """The tokens it fires on; where these are single bytes, the characters they are part of."""
        tokens = [int(token) for token in self.atlas.columns["tokens"][feature] if token >= 0]
        whole = [token for token in tokens if self.text.is_whole(token)]
        if whole or not tokens:
            return self.text.labels(whole, NAME_TOKENS)
        examples = [self.example(example) for example in self.atlas.summary(feature)["top"]]
        characters = [example["pieces"][example["peak"]]["text"] for example in examples]
        return list(dict.fromkeys(characters))[:NAME_TOKENS]

    def row(self, page: Json, examples: int = 1) -> Json:
        """Return a line of the table: name, small histogram, middles of strong examples."""
        documents: dict[int, Json] = {}
        for example in page["top"]:
            documents.setdefault(example["document"], example)
        others = [item for item in page["top"] if item is not documents[item["document"]]]
        chosen = [*documents.values(), *others][:examples]
        return {
            **self.name(page["feature"]),
            "histogram": page["histogram"]["counts"],
            "examples": [self._middle(example) for example in chosen],
        }

    def _middle(self, stored: Mapping[str, Any]) -> Json:
        example = self.example(stored)
        start = max(example["peak"] - BEFORE, 0)
        example["pieces"] = example["pieces"][start : example["peak"] + AFTER]
        example["peak"] -= start
        return example

    def rows(self, sort: str, descending: bool, search: str, offset: int, limit: int) -> Json:
        """Return how many features match, and ``limit`` lines of the table from ``offset``."""
        total, pages = self.atlas.rows(
            sort=sort, descending=descending, search=search, offset=offset, limit=limit
        )
        return {"total": total, "offset": offset, "rows": [self.row(page) for page in pages]}

    def sample(self, seed: int, count: int) -> Json:
        """Return lines of ``count`` features drawn from the alive ones that are not dense."""
        count = min(count, len(self._alive))
        drawn = np.random.default_rng(seed).choice(self._alive, count, replace=False)
        return {
            "seed": seed,
            "of": len(self._alive),
            "rows": [self.row(self.atlas.summary(int(number)), examples=3) for number in drawn],
        }

    def random(self) -> Json:
        """Return the number of a feature drawn from the alive ones (from all when none is)."""
        numbers = self._alive if len(self._alive) else np.arange(self.atlas.features)
        return {"feature": int(np.random.default_rng().choice(numbers))}

    def feature(self, number: int) -> Json:
        """Return everything about one feature, as text."""
        page = self.atlas.feature(number)
        same = ("feature", "status", "frequency", "count", "mean", "maximum", "histogram")
        last = self.atlas.features - 1
        return {
            **{key: page[key] for key in same},
            "name": self.name(number),
            "tokens": self._tokens(page["tokens"], "share"),
            "promotes": self._tokens(page["promotes"], "effect"),
            "suppresses": self._tokens(page["suppresses"], "effect"),
            "sources": [{"source": label, "share": share} for label, share in page["sources"]],
            "neighbours": [
                {**self.name(other), "cosine": cosine} for other, cosine in page["neighbours"]
            ],
            "top": [self.example(example) for example in page["top"]],
            "intervals": [
                {**interval, "examples": [self.example(item) for item in interval["examples"]]}
                for interval in page["intervals"]
            ],
            "previous": number - 1 if number > 0 else None,
            "next": number + 1 if number < last else None,
        }

    def _tokens(self, pairs: Sequence[Sequence[Any]], key: str) -> list[Json]:
        return [{"token": id_, "text": self.text.label(id_), key: value} for id_, value in pairs]

    def example(self, example: Mapping[str, Any]) -> Json:
        """Return an example with its tokens as pieces; ``peak`` is the piece it was chosen for."""
        shown = self.text.pieces(example["tokens"], example["values"])
        place, peak = 0, 0
        for number, piece in enumerate(shown):
            place += len(piece["tokens"])
            if place > example["centre"]:
                peak = number
                break
        return {
            "pieces": shown,
            "peak": peak,
            "value": example["value"],
            "source": example["source"],
            "document": example["document"],
            "position": example["position"],
        }
