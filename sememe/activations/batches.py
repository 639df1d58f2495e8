"""Windows of a corpus as padded batches of similar lengths."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Int

from sememe.corpora.corpus import Corpus, Windows


class WindowBatch(NamedTuple):
    """Windows that the model reads together."""

    windows: npt.NDArray[np.int64]
    """Numbers of the windows, one a row of ``ids``."""
    ids: Int[torch.Tensor, "windows time"]
    """Token ids, BOS in front where the model wants one, padded on the right with zeros."""
    valid: Bool[torch.Tensor, "windows time"]
    """Where the windows' own tokens stand: neither BOS nor padding."""


def window_batches(
    corpus: Corpus,
    windows: Windows,
    chosen: Sequence[int] | npt.NDArray[np.int64],
    *,
    batch_tokens: int,
    bos: int | None,
) -> Iterator[WindowBatch]:
    """Yield the chosen windows as batches of similar lengths, longest first, BOS in front."""
    order = np.array(sorted(chosen, key=lambda number: (-windows.length[number], number)))
    lead = 0 if bos is None else 1
    first = 0
    while first < len(order):
        longest = int(windows.length[order[first]]) + lead
        members = order[first : first + max(1, batch_tokens // longest)]
        ids = torch.zeros(len(members), longest, dtype=torch.long)
        if bos is not None:
            ids[:, 0] = bos
        for row, number in enumerate(members):
            start, length = int(windows.start[number]), int(windows.length[number])
            tokens = corpus.tokens(start, start + length).astype(np.int64)
            ids[row, lead : lead + length] = torch.from_numpy(tokens)
        lengths = torch.from_numpy(windows.length[members])
        place = torch.arange(longest)[None, :]
        yield WindowBatch(members, ids, (place >= lead) & (place < lead + lengths[:, None]))
        first += len(members)
