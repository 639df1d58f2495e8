"""Several stores as one: of one corpus in its order, of several corpora one after the other.

A row points to its text by ``document`` and ``place``. Stores of one corpus keep both, so that the
merged store goes with that corpus; their rows must be disjoint. Stores of several corpora get
numbers of their own, recorded in the manifest: there is no corpus that they go with any more, so
that the merged store can be trained on, and what needs the text refuses it.
"""

import os
import shutil
from collections.abc import Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from safetensors import safe_open

from sememe.activations.rules import TokenRules
from sememe.activations.shards import shard_facts, site_facts
from sememe.activations.store import Activations
from sememe.artefacts import atomic_path, begin, is_finished, write_bytes, write_manifest
from sememe.errors import SememeError, UsageError
from sememe.objects import Place
from sememe.objects import place as place_of
from sememe.progress import Progress

FREE = ("corpus", "rules", "dtype", "sink_multiple", "batch_tokens", "shard_rows", "merged")
"""Settings that may differ: where text came from, how the rules were found, how work was cut."""


JOINED = " + "
"""Between the corpora of a merged store."""


class Shard(NamedTuple):
    """One shard on its way into the merged store."""

    store: Activations
    number: int
    first: int
    last: int
    """Places of its first and last row in its corpus."""

    @property
    def path(self) -> Path:
        """Its file on this machine."""
        return self.store.file(self.store.manifest["shards"][self.number]["file"])

    @property
    def rows(self) -> int:
        """Its number of rows."""
        return int(self.store.manifest["shards"][self.number]["rows"])


def merge(
    stores: Sequence[Place | str], out: Place | str, *, progress: Progress | None = None
) -> Activations:
    """Write the rows of ``stores`` as one store to ``out``, by hard links where that can be.

    Each is a directory or a URL. Every file is verified first, those of object stores as they are
    brought to this machine's cache. Called again it goes on, and returns at once when done.

    Raises UsageError for fewer than two stores, SememeError for stores that differ in model,
    tokenizer, sites, widths, token rules, dtype, context or side (held out or not), naming both
    values; for rows that are in two of them; and for damaged ones.
    """
    if len(stores) < 2:
        raise UsageError(f"{len(stores)} store to merge: expected two or more")
    out = place_of(out)
    opened = [Activations.open(path, progress=progress) for path in stores]
    for other in opened[1:]:
        _refuse_unlike(opened[0], other)
    shards = _in_order(opened)
    begin(out, {"merged": [store.hash for store in opened]})
    if is_finished(out):
        return Activations.open(out, verify=isinstance(out, Path))
    facts: list[dict[str, Any]] = []
    shifts: list[dict[str, Any]] = []
    document, place = 0, 0
    for corpus, group in groupby(shards, lambda shard: _corpus(shard.store)):
        shifts.append({"corpus": corpus, "document": document, "place": place})
        last_document, last_place = document, place
        for shard in group:
            name = f"shard-{len(facts):05d}.safetensors"
            ends = _bring(shard, out / name, document, place)
            last_document, last_place = max(last_document, ends[0]), max(last_place, ends[1])
            facts.append({"file": name, "rows": shard.rows})
        document, place = last_document + 1, last_place + 1
    return _finish(out, facts, shifts, opened)


def _refuse_unlike(one: Activations, other: Activations) -> None:
    """Refuse stores whose rows mean different things, naming both values."""
    mine, its = _identity(one), _identity(other)
    for name in {**mine, **its}:
        if mine.get(name) != its.get(name):
            raise SememeError(
                f"{other.path} has {name} {its.get(name)}, but {one.path} has {mine.get(name)}: "
                "only stores that are alike in it can be merged"
                + (" (harvest with --rules-of)" if name in one.manifest["rules"] else "")
            )


def _identity(store: Activations) -> dict[str, Any]:
    """Return what stores must have in common."""
    manifest = store.manifest
    source = {name: value for name, value in manifest["made_from"].items() if name != "corpus"}
    settings = {name: value for name, value in manifest["config"].items() if name not in FREE}
    widths = {site: store.width(site) for site in store.sites}
    return {**source, **settings, "sites": list(widths), "widths": widths, **manifest["rules"]}


def _corpus(store: Activations) -> str:
    return str(store.manifest["made_from"].get("corpus"))


def _in_order(stores: Sequence[Activations]) -> list[Shard]:
    """Return all shards: corpora as they come, and each one's in its order."""
    corpora = list(dict.fromkeys(map(_corpus, stores)))
    parts = [part for corpus in corpora for part in corpus.split(JOINED)]
    if double := next((part for part in parts if parts.count(part) > 1), None):
        raise SememeError(
            f"corpus {double} is in a merged store and in another: rows might come twice; merge "
            "the single stores at once"
        )
    shards = []
    for store in stores:
        for number, (low, high) in enumerate(pairwise(store.shard_starts)):
            if high > low:
                ends = [int(store.read("place", row, row + 1)) for row in (low, high - 1)]
                shards.append(Shard(store, number, *ends))
    shards.sort(key=lambda shard: (corpora.index(_corpus(shard.store)), shard.first))
    for one, other in pairwise(shards):
        if _corpus(one.store) == _corpus(other.store) and one.last >= other.first:
            raise SememeError(
                f"{one.path} holds places {one.first} to {one.last} of its corpus and {other.path} "
                f"{other.first} to {other.last}: rows would come twice or out of order"
            )
    return shards


def _bring(shard: Shard, path: Place, document: int, place: int) -> tuple[int, int]:
    """Link, copy or renumber one shard into ``path``; return its last document and place."""
    low, high = shard.store.shard_starts[shard.number : shard.number + 2]
    last = int(shard.store.read("document", low, high).max()) + document, shard.last + place
    if last[0] > torch.iinfo(torch.int32).max:
        raise SememeError(f"{path} would need document number {last[0]}: merge fewer stores")
    if path.exists():
        return last
    if not (document or place) and isinstance(path, Path):
        with atomic_path(path) as partial:
            try:
                os.link(shard.path, partial)
            except OSError:  # another disk, or one without links
                shutil.copyfile(shard.path, partial)
        return last
    with safe_open(shard.path, framework="pt") as whole:
        header = whole.metadata()
    if not (document or place):
        write_bytes(path, shard.path.read_bytes())
        return last
    tensors = safetensors.torch.load(shard.path.read_bytes())
    tensors["document"] += document
    tensors["place"] += place
    write_bytes(path, safetensors.torch.save(tensors, header))
    return last


def _finish(
    out: Place,
    shards: list[dict[str, Any]],
    numbering: list[dict[str, Any]],
    stores: Sequence[Activations],
) -> Activations:
    """Add up what the stores say and write the manifest."""
    first = stores[0].manifest
    rows = sum(store.rows for store in stores)
    widths = {site: stores[0].width(site) for site in stores[0].sites}
    headers = [shard_facts(out / shard["file"]) for shard in shards]
    kept = {name: value for name, value in first["config"].items() if name not in FREE}
    write_manifest(
        out,
        "activations",
        config={**kept, "merged": [store.hash for store in stores]},
        made_from={
            **first["made_from"],
            "corpus": " + ".join(part["corpus"] for part in numbering),
        },
        files=[shard["file"] for shard in shards],
        rows=rows,
        left_out={
            reason: sum(store.manifest["left_out"][reason] for store in stores)
            for reason in first["left_out"]
        },
        shards=shards,
        sites=site_facts(headers, widths, TokenRules.of(stores[0])),
        rules=first["rules"],
        numbering=numbering,
    )
    return Activations.open(out, verify=False)
