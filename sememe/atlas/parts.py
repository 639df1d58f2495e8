"""Read some shards of a store for the atlas, apart from the others: what many machines may share.

A part leaves the firings of each of its shards and one sum over all of them. However a store is
cut into parts, and in whatever order they are made, the atlas that they give is the same.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from sememe.activations.in_order import InOrder
from sememe.artefacts import begin
from sememe.atlas.firings import Firings, ShardFirings
from sememe.atlas.neurons import MergedSums, NeuronSums
from sememe.dictionaries.dictionary import Dictionary
from sememe.errors import SememeError, UsageError
from sememe.kernels.code import Code
from sememe.progress import Progress


def describe_part(
    dictionary: Dictionary,
    activations: InOrder,
    folder: Path,
    shards: range,
    *,
    progress: Progress | None = None,
) -> None:
    """Encode consecutive shards and leave in ``folder`` what the atlas needs of them.

    Several processes may do so at the same time, each with shards of its own. A killed one goes on
    at the first shard whose firings are missing. Memory: one shard in fp32, its code, and a number
    of 8 bytes for every entry of the decoder.

    Raises UsageError for shards that the store does not have.
    """
    if not 0 <= shards.start < shards.stop <= activations.shards:
        raise UsageError(
            f"shards {shards.start} to {shards.stop}: there are {activations.shards}, from 0"
        )
    progress = progress or Progress()
    made_from = {"activations": activations.hash, "dictionary": dictionary.manifest["hash"]}
    begin(folder, made_from, shared=True)
    site = dictionary.site
    dictionary.check_fits(site=site, width=activations.width(site))
    path = _sums_path(folder, shards)
    if path.exists():
        return
    sums = NeuronSums.empty(dictionary.config.features, dictionary.config.width)
    for shard in shards:
        firings, chunks = _read_shard(dictionary, activations, folder, shard)
        sums.add(firings, chunks, dictionary.read_scale.numpy())
        progress.advance(activations.shard_starts[shard + 1] - activations.shard_starts[shard])
    sums.save(path)


def shards_of(part: str, shards: int) -> range:
    """Return the shards of a part written ``i/n``, the i-th of n, from 1; UsageError if none."""
    number, _, count = part.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count) <= shards):
        raise UsageError(
            f"part {part!r}: expected i/n, the i-th of n parts, with n from 1 to {shards}, the "
            "number of shards"
        )
    first, last = (shards * end // int(count) for end in (int(number) - 1, int(number)))
    return range(first, last)


def merge_parts(folder: Path, shards: int) -> tuple[Firings, MergedSums]:
    """Return the firings of all shards, and the sums over them, from parts that cover them."""
    firings = Firings([ShardFirings.load(_firings_path(folder, n)) for n in range(shards)])
    return firings, MergedSums([_sums_path(folder, part) for part in covered(folder, shards)])


def covered(folder: Path, shards: int) -> list[range]:
    """Return the parts in ``folder``, in order, none over another."""
    found, reached = [], 0
    for path in sorted(folder.glob("sums-*.safetensors")):
        _, first, last = path.stem.split("-")
        if reached <= int(first) and int(last) <= shards:
            found.append(range(int(first), int(last)))
            reached = int(last)
    return found


def missing(parts: Sequence[range], shards: int) -> list[range]:
    """Return the runs of shards that are in none of the ``parts``, which are in order."""
    ends = [0, *(part.stop for part in parts)]
    starts = [*(part.start for part in parts), shards]
    pairs = zip(ends, starts, strict=True)
    return [range(first, last) for first, last in pairs if first < last]


def _firings_path(folder: Path, shard: int) -> Path:
    return folder / f"firings-{shard:05d}.safetensors"


def _sums_path(folder: Path, shards: range) -> Path:
    return folder / f"sums-{shards.start:05d}-{shards.stop:05d}.safetensors"


@torch.no_grad()
def _read_shard(
    dictionary: Dictionary, activations: InOrder, folder: Path, shard: int
) -> tuple[ShardFirings, list[torch.Tensor]]:
    """Return the firings of a shard, encoded if they are not there yet, and its raw rows."""
    path = _firings_path(folder, shard)
    there = _firings_at(path)
    chunks, codes, places, positions = [], [], [], []
    for rows in activations.in_order(dictionary.site, shard=shard):
        if there is None:
            codes.append(dictionary.encode(rows.values))
            places.append(rows.place.numpy())
            positions.append(rows.position.numpy())
        chunks.append(rows.values)
    if there is None:
        there = ShardFirings.of(
            *_joined(codes),
            dictionary.config.features,
            np.concatenate(places),
            np.concatenate(positions),
        )
        there.save(path)
    return there, chunks


def _firings_at(path: Path) -> ShardFirings | None:
    """Return the firings in a file; None if there is none, or it was damaged by a lost disk."""
    if not path.exists():
        return None
    try:
        return ShardFirings.load(path)
    except SememeError:
        path.unlink()
        return None


def _joined(codes: Sequence[Code]) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices and values of codes one after the other, as wide as the widest."""
    widest = max(code.indices.shape[1] for code in codes)

    def joined(parts: list[torch.Tensor]) -> np.ndarray:
        return np.concatenate(
            [np.pad(part.numpy(), ((0, 0), (0, widest - part.shape[1]))) for part in parts]
        )

    return joined([code.indices for code in codes]), joined([code.values for code in codes])
