"""Activations straight from a model, which is at hand to go on from a reconstruction."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from sememe.activations.batches import WindowBatch
from sememe.activations.source import ModelSource
from sememe.errors import UsageError
from sememe.models.reading import replaced


@dataclass(frozen=True)
class LiveStream(ModelSource):
    """Training windows of a corpus in random order, read by the model batch by batch.

    A batch is whole windows, as many as hold at most its number of activations, so that the model
    can be run on from what a dictionary makes of them. It costs a pass of the model for every pass
    over the text; a :class:`~sememe.activations.stream.Stream` reads once and shuffles single rows.
    """

    _last: list[tuple[WindowBatch, Bool[Tensor, " tokens"]]] = field(default_factory=list)

    def steps(self, batch: int, passes: int) -> int:
        """Return the number of batches in ``passes`` passes; the seed does not change it."""
        if batch < self.longest:
            raise UsageError(
                f"batch {batch} holds no window of {self.longest} tokens: expected that many or "
                "more, or a shorter context"
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
            new[places] = rebuilt.to(activation)
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
        (batch,) = self._window_batches(members, (self.longest + 1) * len(members))
        rows, kept = self._rows(batch)
        self._last[:] = [(batch, kept)]
        return rows.inputs
