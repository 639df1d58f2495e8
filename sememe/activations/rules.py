"""Which tokens count: the rules that every stage applies alike, and the pilot that fixes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from sememe.activations.batches import window_batches
from sememe.activations.store import Activations
from sememe.corpora.corpus import Corpus, Windows
from sememe.errors import SememeError
from sememe.models.load import LanguageModel
from sememe.models.reading import read

PILOT_WINDOWS = 64
FP16_LIMIT = 30_000.0
"""Stored as fp16 if no pilot activation is beyond this (fp16 ends at 65,504), else as bf16."""
DTYPES = {
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp32": torch.float32,
    "int8": torch.int8,
}


@dataclass(frozen=True)
class HarvestConfig:
    """How to run the model and what to keep."""

    context: int = 256
    """Longest window of a document that the model sees at once, in tokens, with its BOS."""
    dtype: Literal["auto", "fp16", "bf16", "fp32", "int8"] = "auto"
    """Of the store; auto is fp16 unless the activations are too large for it, then bf16. int8 has
    a scale for each row."""
    sink_multiple: float = 10.0
    """Tokens whose norm is beyond this multiple of the site's median norm are left out."""
    batch_tokens: int = 4096
    """Tokens in one forward pass."""
    shard_rows: int = 65_536
    """Tokens in one file of the store, at most."""


class TokenRules(NamedTuple):
    """Which tokens are left out, as recorded with everything made from them."""

    special: list[int]
    """Ids never kept: beginning of sequence, padding and the like."""
    norm_limits: dict[str, float]
    """By site, the norm beyond which a token counts as an attention sink."""
    dtype: str
    """Of the store."""

    def keep(
        self, ids: Int[torch.Tensor, " tokens"], values: dict[str, torch.Tensor]
    ) -> Bool[torch.Tensor, " tokens"]:
        """Return which tokens to keep, given their activations (tokens, width) at every site."""
        limited = {
            site: row_norms(rows) for site, rows in values.items() if site in self.norm_limits
        }
        return self.keep_by_norm(ids, limited)

    def keep_by_norm(
        self, ids: Int[torch.Tensor, " tokens"], norms: dict[str, torch.Tensor]
    ) -> Bool[torch.Tensor, " tokens"]:
        """Return which tokens to keep, given the norms of their activations at every site."""
        kept = ~torch.isin(ids, torch.tensor(self.special, dtype=ids.dtype))
        for site, limit in self.norm_limits.items():
            if site in norms:
                # a NaN stays, so that the check of what is stored finds it
                kept &= ~(norms[site] > limit)
        return kept

    def left_out(
        self, ids: Int[torch.Tensor, " tokens"], kept: Bool[torch.Tensor, " tokens"]
    ) -> dict[str, int]:
        """Return how many tokens are not among the ``kept``, by reason."""
        special = int(torch.isin(ids, torch.tensor(self.special, dtype=ids.dtype)).sum())
        return {"special": special, "sink": len(ids) - special - int(kept.sum())}

    @classmethod
    def of(cls, activations: Activations) -> "TokenRules":
        """Return the rules by which a store was made."""
        return cls(**activations.manifest["rules"])


def row_norms(activation: Float[torch.Tensor, "rows width"]) -> Float[torch.Tensor, " rows"]:
    """Return the norm of every row, in fp32."""
    norms: torch.Tensor = torch.linalg.vector_norm(activation.float(), dim=1)
    return norms


def pilot(
    model: LanguageModel,
    corpus: Corpus,
    windows: Windows,
    sites: Sequence[str],
    config: HarvestConfig,
) -> TokenRules:
    """Look at windows spread over the corpus and fix the rules for all of it."""
    count = len(windows.start)
    chosen = np.unique(np.linspace(0, count - 1, min(PILOT_WINDOWS, count)).astype(np.int64))
    special = sorted(model.tokenizer.special)
    norms: dict[str, list[torch.Tensor]] = {site: [] for site in sites}
    values: dict[str, list[torch.Tensor]] = {site: [] for site in sites}
    bos = model.tokenizer.bos
    for batch in window_batches(corpus, windows, chosen, batch_tokens=config.batch_tokens, bos=bos):
        ordinary = ~torch.isin(batch.ids[batch.valid], torch.tensor(special))
        for site, activation in read(model, batch.ids, sites).items():
            rows = activation[batch.valid].float()[ordinary]
            norms[site].append(rows.norm(dim=1))
            values[site].append(rows.abs().amax(dim=1))
    limits, largest = {}, 0.0
    for site in sites:
        norm = torch.cat(norms[site])
        if not len(norm):
            raise SememeError("no tokens are left after the token rules; use other text")
        limits[site] = float(norm.median()) * config.sink_multiple
        kept = torch.cat(values[site])[norm <= limits[site]]
        largest = max(largest, float(kept.max()) if len(kept) else 0.0)
    dtype = config.dtype
    if dtype == "auto":
        dtype = "fp16" if largest < FP16_LIMIT else "bf16"
    return TokenRules(special, limits, dtype)
