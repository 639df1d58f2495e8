"""How fast a stream reads a store, beside plain reads of the same files by turns; its mixing too.

A plain read is what nothing that yields fp32 can do without: each shard as one safetensors slice,
converted to fp32, in the order of the file. One round before those that count brings the files into
the page cache; cold rounds come last, each reader beginning with none of them there. Times are of
the process, and rounds alternate, so that other work on the machine meets both alike; a ratio is
the median of the rounds'. Run it as ``python -m benchmarks.stream``.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin would count as work

import safetensors.torch
import torch

from benchmarks import command
from sememe.activations.mixing import measure
from sememe.activations.store import Activations
from sememe.activations.stream import BLOCK, BUFFER, Stream
from sememe.artefacts import write_bytes, write_manifest

SITE = "layers.0.resid"
SHARD_ROWS = 65_536
DOCUMENT_ROWS = 200


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    activations: Path | None = None
    """A store to read; by default one is made up."""
    site: str | None = None
    """Which site of the store; by default all of them."""
    rows: int = 1_000_000
    """Rows of a made-up store."""
    width: int = 576
    """Width of a made-up store, in fp16."""
    batch: int = 2048
    """Rows in a batch."""
    block: int = BLOCK
    """Consecutive rows that the stream reads together."""
    buffer: int = BUFFER
    """Rows that it permutes among themselves."""
    rounds: int = 5
    """Passes measured."""
    cold_rounds: int = 3
    """Passes measured that begin with an empty page cache."""
    json: bool = False
    """Print one JSON object."""


def make(path: Path, rows: int, width: int) -> Activations:
    """Write a store whose documents are runs of ``DOCUMENT_ROWS`` similar rows."""
    names, shards = [], []
    generator = torch.Generator().manual_seed(0)
    for number, start in enumerate(range(0, rows, SHARD_ROWS)):
        place = torch.arange(start, min(start + SHARD_ROWS, rows))
        document = place // DOCUMENT_ROWS - start // DOCUMENT_ROWS
        centres = 1 + torch.randn(int(document[-1]) + 1, width, generator=generator)
        values = centres[document] + torch.randn(len(place), width, generator=generator)
        tensors = {
            SITE: values.half(),
            "token": torch.zeros(len(place), dtype=torch.int32),
            "document": (place // DOCUMENT_ROWS).int(),
            "position": (place % DOCUMENT_ROWS).int(),
            "place": place,
        }
        names.append(f"shard-{number:05d}.safetensors")
        shards.append({"file": names[-1], "rows": len(place)})
        write_bytes(path / names[-1], safetensors.torch.save(tensors))
    write_manifest(
        path,
        "activations",
        config={"context": DOCUMENT_ROWS},
        made_from={},
        files=names,
        rows=rows,
        shards=shards,
        sites={SITE: {"width": width, "scale": 3**-0.5}},
        rules={"special": [], "norm_limits": {}, "dtype": "fp16"},
    )
    return Activations.open(path)


def plain_read(stream: Stream) -> None:
    """Read every shard of every site whole, as fp32."""
    for low, high in pairwise(stream.activations.shard_starts):
        for site in stream.sites:
            stream.activations.read(site, low, high).float()


def stream_read(stream: Stream, batch: int, seed: int) -> None:
    """Go over one pass."""
    for _ in stream.batches(batch, 1, seed):
        pass


def forget(store: Activations) -> None:
    """Drop the store's files from the page cache."""
    store.close()
    for name in store.manifest["files"]:
        descriptor = os.open(store.file(name), os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Return the wall and the CPU seconds that ``work`` takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def figures(settings: Settings, store: Activations) -> dict[str, float | int]:
    """Read by turns and measure the mixing."""
    sites = (settings.site,) if settings.site else tuple(store.sites)
    stream = Stream(store, sites, block=settings.block, buffer=settings.buffer)
    plain_read(stream)
    stream_read(stream, settings.batch, 0)
    plain, ours = [], []
    for number in range(settings.rounds):
        plain.append(seconds(lambda: plain_read(stream)))
        ours.append(
            seconds(lambda number=number: stream_read(stream, settings.batch, number))  # type: ignore[misc]
        )
    share = stream.steps(settings.batch, 1) * settings.batch / stream.rows  # whole batches only
    wall, cpu = (
        statistics.median(share * p[kind] / o[kind] for p, o in zip(plain, ours, strict=True))
        for kind in (0, 1)
    )
    mixing = measure(stream, settings.batch)
    cold = []
    for number in range(settings.cold_rounds):
        forget(store)
        plainly, _ = seconds(lambda: plain_read(stream))
        forget(store)
        shuffled, _ = seconds(
            lambda number=number: stream_read(stream, settings.batch, number)  # type: ignore[misc]
        )
        cold.append((plainly, shuffled))
    return {
        "rows": stream.rows,
        "width": sum(stream.widths),
        "batch": settings.batch,
        "block": settings.block,
        "buffer": settings.buffer,
        "read_ratio": wall,
        "read_ratio_cpu": cpu,
        "rows_per_second": share * stream.rows / statistics.median(wall for wall, _ in ours),
        "rows_per_cpu_second": share * stream.rows / statistics.median(cpu for _, cpu in ours),
        "cold_read_ratio": statistics.median(share * p / o for p, o in cold),
        "cold_rows_per_second": share * stream.rows / statistics.median(o for _, o in cold),
        "unique_documents": mixing.unique_documents,
        "unique_documents_ratio": mixing.unique_documents_ratio,
        "lag1_similarity": mixing.lag1_similarity,
        "lag1_ratio": mixing.lag1_ratio,
    }


def run(settings: Settings) -> dict[str, float | int]:
    """Read the store that is given, or one that is made up; return the figures."""
    with tempfile.TemporaryDirectory() as scratch:
        store = (
            Activations.open(settings.activations, verify=False)
            if settings.activations
            else make(Path(scratch), settings.rows, settings.width)
        )
        return figures(settings, store)


if __name__ == "__main__":
    command.run(Settings, run, __doc__)
