"""Activations straight from a model, which is at hand to go on from a reconstruction."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from sememe.activations.batches import WindowBatch, window_batches
from sememe.activations.harvest import check_corpus
from sememe.activations.rules import HarvestConfig, TokenRules, pilot
from sememe.corpora.corpus import Corpus, Windows
from sememe.errors import UsageError
from sememe.models.load import LanguageModel
from sememe.models.reading import read, replaced

SAMPLE_SEED = 2**31
"""Seed of the order that samples are drawn in: no training run reaches it."""


@dataclass(frozen=True)
class LiveStream:
    """Training windows of a corpus in random order, read by the model batch by batch.

    A batch is whole windows, as many as hold at most its number of activations, so that the model
    can be run on from what a dictionary makes of them. It costs a pass of the model for every pass
    over the text; a :class:`~sememe.activations.stream.Stream` reads once and shuffles single rows.
    """

    model: LanguageModel
    corpus: Corpus
    sites: tuple[str, ...]
    config: HarvestConfig = field(default_factory=HarvestConfig)
    _last: list[tuple[WindowBatch, Bool[Tensor, " tokens"]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_corpus(self.model, self.corpus, self.config)

    @cached_property
    def windows(self) -> Windows:
        """Training windows, as long as the context allows."""
        lead = 0 if self.model.tokenizer.bos is None else 1
        return self.corpus.windows(self.config.context - lead, held_out=False)

    @cached_property
    def rules(self) -> TokenRules:
        """The token rules, fixed by a pilot as for a store."""
        return pilot(self.model, self.corpus, self.windows, self.sites, self.config)

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

    def steps(self, batch: int, passes: int) -> int:
        """Return the number of batches in ``passes`` passes; the seed does not change it."""
        if batch < self.windows.length.max():
            raise UsageError(
                f"batch {batch} holds no window of {self.windows.length.max()} tokens: expected "
                "that many or more, or a shorter context"
            )
        if self.rows < batch:
            raise UsageError(
                f"batch {batch}: a pass over {self.rows} tokens does not fill one batch"
            )
        return passes * (self.rows // batch)

    def batches(
        self, batch: int, passes: int, seed: int, start: int = 0
    ) -> Iterator[Float[Tensor, "batch width"]]:
        """Yield raw fp32 batches number ``start`` to the last of ``passes`` passes."""
        per_pass = self.steps(batch, passes) // passes
        first, skip = divmod(start, per_pass)
        for turn in range(first, passes):
            yield from map(self._read, self._groups(batch, seed, turn)[skip:per_pass])
            skip = 0

    def sample(self, rows: int) -> Float[Tensor, "rows width"]:
        """Return a fixed random sample of at most ``rows`` raw activations, fp32."""
        parts, held = [], 0
        for members in self._groups(int(self.windows.length.max()), SAMPLE_SEED, 0):
            parts.append(self._read(members))
            held += len(parts[-1])
            if held >= rows:
                break
        return torch.cat(parts)[:rows]

    def divergence(self, rebuilt: Float[Tensor, "batch width"], site: str) -> Float[Tensor, ""]:
        """Return KL(model || model going on from ``rebuilt``), in nats a token predicted.

        ``rebuilt`` are raw activations at ``site`` in place of those of the batch yielded last;
        gradients reach them. Tokens that the rules leave out keep their activations. Memory: about
        six times the batch's tokens x the vocabulary in fp32.
        """
        batch, kept = self._last[0]
        places = batch.valid.clone()
        places[batch.valid] = kept

        def change(activation: Float[Tensor, "windows time width"]) -> Tensor:
            new = activation.clone()
            new[places] = rebuilt.to(activation.dtype)
            return new

        asked = batch.valid[:, 1:]
        original = self.model.logits(batch.ids)[:, :-1][asked].float()
        with replaced(self.model, site, change):
            gone_on = self.model.logits(batch.ids, grad=True)[:, :-1][asked].float()
        return kl_div(
            log_softmax(gone_on, -1),
            log_softmax(original, -1),
            log_target=True,
            reduction="batchmean",
        )

    def _groups(self, batch: int, seed: int, number: int) -> list[np.ndarray]:
        """Return the windows of each batch of a pass; those beyond the last whole batch wait."""
        order = np.random.default_rng([seed, number]).permutation(len(self.windows.length))
        groups, first, held = [], 0, 0
        for place, length in enumerate(self.windows.length[order].tolist()):
            if held + length > batch:
                groups.append(order[first:place])
                first, held = place, 0
            held += length
        return [*groups, order[first:]]

    def _read(self, members: np.ndarray) -> Float[Tensor, "batch width"]:
        total = int(self.windows.length[members].max() + 1) * len(members)
        bos = self.model.tokenizer.bos
        (batch,) = window_batches(self.corpus, self.windows, members, batch_tokens=total, bos=bos)
        found = read(self.model, batch.ids, self.sites)
        values = {site: activation[batch.valid] for site, activation in found.items()}
        kept = self.rules.keep(batch.ids[batch.valid], values)
        self._last[:] = [(batch, kept)]
        return torch.cat([values[site][kept].float() for site in self.sites], dim=1)
