"""A model at hand that reads a corpus: what live streams have in common."""

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from sememe.activations.batches import WindowBatch, window_batches
from sememe.activations.harvest import check_corpus
from sememe.activations.rules import HarvestConfig, TokenRules, pilot
from sememe.activations.stream import SAMPLE_SEED, Batch
from sememe.corpora.corpus import Corpus, Windows
from sememe.models.load import LanguageModel
from sememe.models.reading import read


@dataclass(frozen=True)
class ModelSource:
    """Training windows of a corpus and the model that reads them; abstract.

    Tokens are left out by the rules of a store of the same model, corpus and sites.

    Raises UsageError for a context longer than the model's or a site that it lacks, and SememeError
    for a corpus that was made for another tokenizer or has no training documents.
    """

    model: LanguageModel
    corpus: Corpus
    sites: tuple[str, ...]
    config: HarvestConfig = field(default_factory=HarvestConfig)
    _counted: dict[int, Counter[str]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """By window that was read, its tokens and those left out by reason."""

    def __post_init__(self) -> None:
        check_corpus(self.model, self.corpus, self.config)
        for site in self.sites:
            self.model.site(site)

    @cached_property
    def windows(self) -> Windows:
        """Training windows, as long as the context allows."""
        lead = 0 if self.model.tokenizer.bos is None else 1
        return self.corpus.windows(self.config.context - lead, held_out=False)

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest window."""
        return int(self.windows.length.max())

    @cached_property
    def rules(self) -> TokenRules:
        """The token rules, fixed by a pilot as for a store."""
        return pilot(self.model, self.corpus, self.windows, self.sites, self.config)

    @property
    def made_from(self) -> dict[str, Any]:
        """What a dictionary trained on this is made from: model, tokenizer, corpus, rules."""
        return {
            "model": self.model.hash,
            "model_name": self.model.name,
            "model_dtype": self.model.dtype,
            "tokenizer": self.model.tokenizer.hash,
            "corpus": self.corpus.hash,
            "rules": self.rules._asdict(),
            "context": self.config.context,
        }

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of each site."""
        return tuple(self.model.width(site) for site in self.sites)

    @cached_property
    def scales(self) -> tuple[float, ...]:
        """What to multiply each site by so that its mean squared norm is its width, by a sample."""
        parts = self.sample(8192).split(list(self.widths), dim=1)
        return tuple(float(part.square().mean().rsqrt()) for part in parts)

    @property
    def rows(self) -> int:
        """Tokens in one pass, those included that the rules leave out."""
        return int(self.windows.length.sum())

    @property
    def tokens(self) -> dict[str, int]:
        """Tokens ``read`` so far by this process, each once, and those left out by reason."""
        total = Counter(read=0, special=0, sink=0)
        for counts in self._counted.values():
            total.update(counts)
        return dict(total)

    def sample(self, rows: int) -> Float[Tensor, "rows width"]:
        """Return a fixed random sample of at most ``rows`` raw activations, fp32."""
        parts, held = [], 0
        order = np.random.default_rng([SAMPLE_SEED]).permutation(len(self.windows.length))
        for member in order[:, None]:
            (batch,) = self._window_batches(member, self.longest + 1)
            parts.append(self._rows(batch)[0].inputs)
            held += len(parts[-1])
            if held >= rows:
                break
        return torch.cat(parts)[:rows]

    def _window_batches(
        self, members: Int64[np.ndarray, " some"], batch_tokens: int
    ) -> list[WindowBatch]:
        bos = self.model.tokenizer.bos
        return list(
            window_batches(self.corpus, self.windows, members, batch_tokens=batch_tokens, bos=bos)
        )

    def _rows(self, batch: WindowBatch) -> tuple[Batch, Bool[Tensor, " tokens"]]:
        """Return what the model computes at the tokens kept, and which of them all those are."""
        token = batch.ids[batch.valid]
        found = read(self.model, batch.ids, self.sites)
        values = {site: activation[batch.valid] for site, activation in found.items()}
        kept = self.rules.keep(token, values)
        lengths = self.windows.length[batch.windows]
        start, document = (
            torch.from_numpy(np.repeat(column[batch.windows], lengths))
            for column in (self.windows.start, self.windows.document)
        )
        position = torch.cat([torch.arange(length) for length in lengths.tolist()])
        facts = (fact[kept] for fact in (token, document, position, start + position))
        for window, ids, chosen in zip(
            batch.windows.tolist(),
            token.split(lengths.tolist()),
            kept.split(lengths.tolist()),
            strict=True,
        ):
            if window not in self._counted:
                self._counted[window] = Counter(
                    {"read": len(ids), **self.rules.left_out(ids, chosen)}
                )
        inputs = torch.cat([values[site][kept].float() for site in self.sites], dim=1)
        return Batch(inputs, *facts), kept
