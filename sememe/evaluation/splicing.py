"""What the model loses when it goes on from reconstructions: sums of each held-out document.

Axis names: tokens = places where a next token is predicted, documents = those of chosen windows.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from sememe.activations.batches import WindowBatch, window_batches
from sememe.activations.rules import TokenRules
from sememe.corpora.corpus import Windows
from sememe.errors import SememeError
from sememe.evaluation.arms import Arm
from sememe.evaluation.metrics import cross_entropy, kl_divergence
from sememe.models.reading import replaced
from sememe.models.resuming import Outputs, layers_before, recorded, resumed
from sememe.models.sites import layer_count
from sememe.progress import Progress


@dataclass(frozen=True)
class EvaluateConfig:
    """How much held-out text the model is run on with its activations replaced."""

    spliced_tokens: int = 8_192
    """Tokens for the cross-entropies, at most; four forward passes each."""
    spliced_share: float = 0.25
    """Share of the held-out tokens that this may be, so that a small job stays small."""
    batch_logits: int = 50_000_000
    """Logits of one of those passes, all in memory at once: tokens times vocabulary."""
    seed: int = 0
    """Of the choice of windows."""


class Spliced(NamedTuple):
    """Sums over the tokens predicted in each document."""

    tokens: Float[np.ndarray, " documents"]
    """How many."""
    original: Float[np.ndarray, " documents"]
    """Cross-entropy of the model as it is, in nats."""
    spliced: Float[np.ndarray, " documents"]
    """Of the model that goes on from reconstructions."""
    kl: Float[np.ndarray, " documents"]
    """KL(original || spliced), in nats."""
    agreed: Float[np.ndarray, " documents"]
    """Places where both have the same likeliest token."""
    zero_ablated: Float[np.ndarray, " documents"]
    """Cross-entropy where the site is zero."""
    mean_ablated: Float[np.ndarray, " documents"]
    """Cross-entropy where the site is the mean of the held-out rows."""


Replacement = Callable[[Float[Tensor, "rows width"]], Float[Tensor, "rows width"]]


def choose_windows(windows: Windows, config: EvaluateConfig) -> list[int]:
    """Return windows in a random order fixed by the seed, until there are enough tokens."""
    order = np.random.default_rng(config.seed).permutation(len(windows.start))
    wanted = min(config.spliced_tokens, config.spliced_share * windows.length.sum())
    enough = np.cumsum(windows.length[order]) >= wanted
    last = int(enough.argmax()) + 1 if enough.any() else len(order)
    return [int(number) for number in order[:last]]


def held_out_windows(arm: Arm) -> Windows:
    """Return the windows that the arm's held-out activations were read in."""
    return arm.corpus.windows(arm.held_out.manifest["config"]["window"], held_out=True)


def spliced_tokens(arm: Arm, config: EvaluateConfig) -> int:
    """Return the tokens of the windows that :func:`splice` reads."""
    windows = held_out_windows(arm)
    return int(windows.length[choose_windows(windows, config)].sum())


def splice(
    arm: Arm, mean: Float[Tensor, " width"], config: EvaluateConfig, progress: Progress
) -> Spliced:
    """Run the model on held-out windows with the site rebuilt, zero, and ``mean``.

    Tokens that the token rules leave out keep the model's own activation. An arm is spliced once
    for all sections; the model as it is and the ablations are run once for all arms that read the
    same rows, and what is before the site is not run again.
    """
    return arm.once(f"spliced {arm.name} {config}", lambda: _splice(arm, mean, config, progress))


@torch.no_grad()
def _splice(
    arm: Arm, mean: Float[Tensor, " width"], config: EvaluateConfig, progress: Progress
) -> Spliced:
    text = SplicedText.of(arm, config)
    outputs = arm.once(f"layers {config}", lambda: text.run(arm))
    sums = torch.zeros(5, len(text.documents), dtype=torch.float64)
    for known, (batch, target, document) in zip(outputs, text.batches(arm), strict=True):
        original = text.original(arm, batch, known)
        changed = text.changed(arm, batch, known, lambda x: arm.dictionary(x.float()).to(x.dtype))
        values = (
            torch.ones(len(target)),
            cross_entropy(original, target),
            cross_entropy(changed, target),
            kl_divergence(original, changed),
            original.argmax(-1) == changed.argmax(-1),
        )
        sums.index_add_(1, document, torch.stack([value.double() for value in values]))
        progress.advance(2 * int(batch.valid.sum()))
    if not sums[0].sum():
        raise SememeError(f"{arm.corpus.path} has no held-out window of two tokens: use more text")

    def ablate() -> Float[np.ndarray, "two documents"]:
        ablated = torch.zeros(2, len(text.documents), dtype=torch.float64)
        for known, (batch, target, document) in zip(outputs, text.batches(arm), strict=True):
            for row, value in enumerate((torch.zeros_like(mean), mean)):
                logits = text.changed(arm, batch, known, partial(_constant, value))
                ablated[row].index_add_(0, document, cross_entropy(logits, target).double())
                progress.advance(int(batch.valid.sum()))
        found: np.ndarray = ablated.numpy()
        return found

    return Spliced(*sums.numpy(), *arm.once(f"ablated {config}", ablate))


def _constant(
    value: Float[Tensor, " width"], x: Float[Tensor, "rows width"]
) -> Float[Tensor, "rows width"]:
    return value.to(x.dtype).expand_as(x)


class SplicedText(NamedTuple):
    """Windows that the model is run on, and the documents that they are of."""

    windows: Windows
    chosen: list[int]
    documents: Int64[np.ndarray, " documents"]
    rules: TokenRules
    batch_tokens: int

    @classmethod
    def of(cls, arm: Arm, config: EvaluateConfig) -> "SplicedText":
        windows = held_out_windows(arm)
        chosen = choose_windows(windows, config)
        return cls(
            windows,
            chosen,
            np.unique(windows.document[chosen]),
            TokenRules.of(arm.held_out),
            max(1, config.batch_logits // arm.model.vocabulary),
        )

    def batches(
        self, arm: Arm
    ) -> Iterator[tuple[WindowBatch, Int[Tensor, " tokens"], Int[Tensor, " tokens"]]]:
        """Yield batches, the tokens to predict, and the places of their documents."""
        for batch in window_batches(
            arm.corpus,
            self.windows,
            self.chosen,
            batch_tokens=self.batch_tokens,
            bos=arm.model.tokenizer.bos,
        ):
            asked = _asked(batch)
            document = np.searchsorted(self.documents, self.windows.document[batch.windows])
            of_token = torch.from_numpy(document)[:, None].expand(asked.shape)
            yield batch, batch.ids[:, 1:][asked], of_token[asked]

    def run(self, arm: Arm) -> list[Outputs]:
        """Run the model as it is on every batch, and return what its layers returned."""
        counts = layers_before(arm.model, arm.site), layer_count(arm.model.module)
        found = []
        for batch, _, _ in self.batches(arm):
            with recorded(arm.model, counts) as outputs:
                arm.model.logits(batch.ids)
            found.append(outputs)
        return found

    def original(
        self, arm: Arm, batch: WindowBatch, known: Outputs
    ) -> Float[Tensor, "tokens vocab"]:
        """Return the model's logits wherever a token is predicted."""
        with resumed(arm.model, known, layer_count(arm.model.module)):
            return arm.model.logits(batch.ids)[:, :-1][_asked(batch)]

    def changed(
        self, arm: Arm, batch: WindowBatch, known: Outputs, replacement: Replacement
    ) -> Float[Tensor, "tokens vocab"]:
        """Return the logits there with the site replaced."""
        change = _on_kept_tokens(replacement, batch, self.rules, arm.site)
        before = layers_before(arm.model, arm.site)
        with resumed(arm.model, known, before), replaced(arm.model, arm.site, change):
            return arm.model.logits(batch.ids)[:, :-1][_asked(batch)]


def _asked(batch: WindowBatch) -> Tensor:
    """Return where a prediction stands: at places whose next one holds a token of the window."""
    return batch.valid[:, 1:]


def _on_kept_tokens(
    replacement: Replacement, batch: WindowBatch, rules: TokenRules, site: str
) -> Callable[[Float[Tensor, "batch time width"]], Float[Tensor, "batch time width"]]:
    """Return ``replacement`` applied to the tokens that the rules keep, and to no others."""

    def change(
        activation: Float[Tensor, "batch time width"],
    ) -> Float[Tensor, "batch time width"]:
        rows = activation[batch.valid]
        keep = rules.keep(batch.ids[batch.valid], {site: rows})
        new = rows.clone()
        new[keep] = replacement(rows[keep])
        result = activation.clone()
        result[batch.valid] = new
        return result

    return change
