"""Store the activations of any torch module: images, sound, proteins, sentences.

The store is an ordinary one, so that streams, training and everything that reads activations alone
take it as they take a language model's. Its ``document`` is the number of an input, counted over
all batches; ``position`` is the place in it (of an image (y, x), y times the width plus x), and
``place`` the number of the row among all places of all inputs. There are no token ids: ``token`` is
-1.
"""

from collections.abc import Callable, Iterable, Sequence, Sized
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from sememe.activations.modules import Batch, ModuleReader, checksum_of
from sememe.activations.rules import TokenRules, row_norms
from sememe.activations.shards import (
    Column,
    column_facts,
    finish_store,
    shard_bytes,
    shard_facts,
    shard_name,
)
from sememe.activations.store import Activations
from sememe.artefacts import begin, is_finished, write_bytes
from sememe.errors import SememeError, UsageError
from sememe.models.sites import module_site
from sememe.objects import Place, place
from sememe.progress import Progress

# Axis names: inputs = images, sentences, ... of a batch; places = positions in one of them.


def harvest_module(
    module: nn.Module,
    batches: Iterable[Batch],
    sites: Sequence[str],
    out: Place | str,
    *,
    name: str = "",
    valid: Callable[[Batch], Bool[Tensor, "inputs places"]] | None = None,
    channel_axis: int | None = None,
    dtype: Literal["fp16", "bf16", "fp32", "int8"] = "fp32",
    shard_rows: int = 65_536,
    progress: Progress | None = None,
) -> Activations:
    """Store the module's activations at ``sites`` over ``batches``; go on where a kill left off.

    A tensor (inputs, width) gives a row an input; one with more axes gives a row a place. Several
    sites must have the same places. The pass ends at the last site. Called again after a kill, the
    batches must be the same in the same order: those that are stored already are compared by their
    checksums but not run, and the store ends with the same bytes. A finished store is returned
    when the first batch is the same.

    Args:
        module: In eval mode; it is called without gradients.
        batches: Each the module's input: a tensor, a list or tuple of its arguments, or a mapping
            of its keyword arguments.
        sites: ``module:PATH`` for a module's output, ``module:PATH:in`` for its first input.
        out: A directory, or the URL of a folder in an object store.
        name: How the manifest names the module; by default its class.
        valid: Given a batch, which places count; by default all. For padded sequences.
        channel_axis: The axis of the numbers of an activation; by default 1 for tensors of four and
            more axes, as convolutions give them, else the last.
        dtype: Of the store; int8 has a scale for each row.
        shard_rows: Rows of a file, the last one's excepted.

    Raises:
        UsageError: a site that the module lacks, a module in training mode, batches that are none.
        SememeError: a site without an activation for every input, non-finite activations, other
            batches than the store was begun with, no rows.
    """
    progress, out = progress or Progress(), place(out)
    if any(part.training for part in module.modules()):
        raise UsageError(
            "module is in training mode, so that it may compute by chance: call eval()"
        )
    if shard_rows < 1:
        raise UsageError(f"shard_rows is {shard_rows}; expected 1 or more")
    name = name or type(module).__name__
    places = [module_site(module, site, name) for site in dict.fromkeys(sites)]
    if not places:
        raise UsageError("sites is empty: name one or more modules, such as module:PATH")
    total = len(batches) if isinstance(batches, Sized) else 0
    remaining = iter(batches)
    try:
        first = next(remaining)
    except StopIteration:
        raise UsageError("batches is empty: expected one or more inputs of the module") from None
    arguments = {
        "model": checksum_of([type(module).__qualname__, dict(module.state_dict())]),
        "first_batch": checksum_of(first),
        "sites": [place.name for place in places],
        "dtype": dtype,
        "channel_axis": channel_axis,
        "shard_rows": shard_rows,
        "context": None,
    }
    begin(out, arguments)
    if is_finished(out):
        return Activations.open(out, verify=isinstance(out, Path))
    reader = ModuleReader(module, places, name, valid, channel_axis)
    writer = _Writer(out, [place.name for place in places], dtype, shard_rows)
    progress.start("harvest", total, "batches")
    for batch in chain([first], remaining):
        writer.add(batch, reader)
        progress.advance(1)
    writer.end()
    progress.finish()
    if not writer.shards:
        raise SememeError("no rows: valid leaves out every place of every input")
    return finish_store(
        out,
        [shard_name(number) for number in range(writer.shards)],
        writer.widths,
        config=arguments,
        made_from={"model": arguments["model"], "model_name": name, "inputs": writer.now.inputs},
        rules=TokenRules([], {}, dtype),
    )


class _Place(NamedTuple):
    """How far the batches have been read: before which batch, input and place."""

    batch: int = 0
    document: int = 0
    place: int = 0
    inputs: str = ""
    """Checksum of the batches before this one, each with all that came before it."""


class _Writer:
    """Cuts rows into shards and writes each as soon as it is full.

    The header of a shard says in which batch the rows after it begin, and how many of that batch's
    rows are stored before them.
    """

    def __init__(self, out: Place, sites: Sequence[str], dtype: str, shard_rows: int) -> None:
        self.out, self.sites, self.dtype, self.shard_rows = out, sites, dtype, shard_rows
        self.shards = 0
        self.widths: dict[str, int] = {}
        self.now = _Place()
        self._stored, self._skip, self._with_skipped = _Place(), 0, ""
        self._end = 0
        self._held: list[dict[str, Tensor]] = []
        while (path := out / shard_name(self.shards)).exists():
            header = shard_facts(path)
            self._stored, self._skip = _Place(*header["next"]), header["skip"]
            self._with_skipped = header["with_skipped"]
            self._end, self.widths = header["end"], header["widths"]
            self.shards += 1

    def add(self, batch: Batch, reader: ModuleReader) -> None:
        """Take the rows of the next batch, unless they are stored."""
        after = checksum_of([self.now.inputs, batch])
        if self.now.batch < self._stored.batch:
            self.now = _Place(self.now.batch + 1, inputs=after)
            return
        self._go_on(after)
        values, keep = reader.read(batch, self.now.batch)
        widths = {site: tensor.shape[2] for site, tensor in values.items()}
        if self.widths and widths != self.widths:
            raise SememeError(
                f"batch {self.now.batch} gives widths {widths}, those before it {self.widths}"
            )
        self.widths = widths
        inputs, places = keep.shape
        document, position = torch.where(keep)
        rows = {site: tensor[keep] for site, tensor in values.items()} | {
            "token": torch.full_like(document, -1, dtype=torch.int32),
            "document": (document + self.now.document).int(),
            "position": position.int(),
            "place": document * places + position + self.now.place,
        }
        begun = self.now
        self.now = _Place(
            begun.batch + 1, begun.document + inputs, begun.place + inputs * places, after
        )
        self._cut(rows, begun)

    def _go_on(self, after: str = "") -> None:
        """At the first batch that is not stored whole: refuse others than were stored."""
        if self.now.batch > self._stored.batch:
            return
        if (
            self.now.batch < self._stored.batch
            or self.now.inputs != self._stored.inputs
            or (self._skip and after != self._with_skipped)
        ):
            raise SememeError(
                f"{self.out} was begun with other batches: those that its shards hold rows of have "
                "changed; give the same in the same order, or another out"
            )
        self.now = self._stored

    def _cut(self, rows: dict[str, Tensor], begun: _Place) -> None:
        first = self._skip if begun.batch == self._stored.batch else 0
        total = len(rows["place"])
        while self._rows() + total - first >= self.shard_rows:
            last = first + self.shard_rows - self._rows()
            self._held.append({name: tensor[first:last] for name, tensor in rows.items()})
            following, skip = (self.now, 0) if last == total else (begun, last)
            self._write(int(rows["place"][last - 1]) + 1, following, skip)
            first = last
        if first < total:
            self._held.append({name: tensor[first:] for name, tensor in rows.items()})

    def end(self) -> None:
        """Write what is left as the last shard."""
        self._go_on()
        if self._held:
            self._write(self.now.place, self.now, 0)

    def _rows(self) -> int:
        return sum(len(part["place"]) for part in self._held)

    def _write(self, end: int, following: _Place, skip: int) -> None:
        rows = {name: torch.cat([part[name] for part in self._held]) for name in self._held[0]}
        columns = [Column(site, self.dtype) for site in self.sites]
        for column in columns:
            rows |= column.stored(rows[column.site], row_norms(rows[column.site]))
        count = self._rows()
        facts = {
            "rows": count,
            **column_facts(columns),
            "left_out": {"not valid": end - self._end - count},
            "next": following,
            "skip": skip,
            "with_skipped": self.now.inputs if skip else "",
            "end": end,
            "widths": self.widths,
        }
        write_bytes(self.out / shard_name(self.shards), shard_bytes(rows, facts))
        self.shards, self._end, self._held = self.shards + 1, end, []
