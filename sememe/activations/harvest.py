"""Run a model over a corpus and store what it computes at chosen sites.

A shard is a pure function of the model, the corpus and a range of windows, so a killed harvest goes
on at the first shard that is missing, and writers could share the shards between them. Windows of a
shard are batched by length; rows are written in corpus order, whatever the batches were.
"""

import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sememe.activations.batches import window_batches
from sememe.activations.rules import DTYPES, HarvestConfig, TokenRules, pilot, row_norms
from sememe.activations.shards import Column, column_facts, finish_store, shard_bytes, shard_name
from sememe.activations.store import Activations
from sememe.artefacts import begin, claim, is_finished, leave, names_in, write_bytes
from sememe.corpora.corpus import Corpus, Windows
from sememe.errors import SememeError, UsageError
from sememe.models.load import LanguageModel
from sememe.models.reading import read
from sememe.objects import ObjectPath, Place, place
from sememe.progress import Progress

POLL = 0.5
"""Seconds between looks at whether other processes have made their shards."""


def harvest(
    model: LanguageModel,
    corpus: Corpus,
    sites: Sequence[str],
    out: Place | str,
    *,
    held_out: bool = False,
    config: HarvestConfig | None = None,
    rules: TokenRules | None = None,
    share: bool = False,
    progress: Progress | None = None,
) -> Activations:
    """Store the model's activations at ``sites`` over the corpus; go on where a kill left off.

    Args:
        out: A directory, or the URL of a folder in an object store (`s3://bucket/folder`), which
            only one process may write to at a time.
        held_out: Read the held-out documents instead of the training ones.
        rules: Token rules of an earlier harvest to apply; by default a pilot fixes them.
        share: Share the shards with other processes that call this with the same arguments, here
            or on other machines with the same files; each returns when all shards are there, and
            makes those that a killed one has left.

    Raises:
        UsageError: a context longer than the model's, an unknown site.
        SememeError: no rows, non-finite activations, too little disk space, another harvest's
            directory.
    """
    if not sites:
        raise UsageError("sites is empty: name one or more, such as layers.0.resid")
    out = place(out)
    config, progress = config or HarvestConfig(), progress or Progress()
    lead = check_corpus(model, corpus, config, held_out=held_out)
    arguments = {
        "model": model.hash,
        "model_dtype": model.dtype,
        "corpus": corpus.hash,
        "sites": list(sites),
        "held_out": held_out,
        "window": config.context - lead,
        "rules": rules._asdict() if rules else None,
        **asdict(config),
    }
    windows = corpus.windows(config.context - lead, held_out)
    for site in sites:
        model.site(site)
    begin(out, arguments, shared=share)
    if is_finished(out):
        leave(out, shared=share)
        return Activations.open(out, verify=isinstance(out, Path))
    if rules is None:
        rules = pilot(model, corpus, windows, sites, config)
    shards = shard_windows(windows.length, config.shard_rows)
    if isinstance(out, Path):
        _check_space(out, model, sites, windows, rules.dtype)
    names = [shard_name(number) for number in range(len(shards))]
    tokens = [int(windows.length[low:high].sum()) for low, high in shards]
    label = "harvest held-out" if held_out else "harvest"
    there = names_in(out)
    finished = sum(n for n, name in zip(tokens, names, strict=True) if name in there)
    progress.start(label, sum(tokens), "tokens", finished)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="store") as writer:
        pending: Future[None] | None = None
        for number in _missing(out, names, share=share):
            members = range(*shards[number])
            data = shard_bytes(
                *read_shard(model, corpus, windows, members, sites, config, rules, progress)
            )
            if pending is not None:
                pending.result()
            pending = writer.submit(write_bytes, out / names[number], data)
        if pending is not None:
            pending.result()
    progress.finish()
    stored = finish_store(
        out,
        names,
        {site: model.width(site) for site in sites},
        config=arguments,
        made_from={
            "model": model.hash,
            "model_name": model.name,
            "tokenizer": model.tokenizer.hash,
            "corpus": corpus.hash,
        },
        rules=rules,
    )
    leave(out, shared=share)
    return stored


def _missing(out: Place, names: Sequence[str], *, share: bool) -> Iterator[int]:
    """Yield the shards that this process is to make, until all others are there."""
    taken: set[int] = set()
    while True:
        there = names_in(out)
        left = [n for n, name in enumerate(names) if n not in taken and name not in there]
        if not left:
            return
        if isinstance(out, ObjectPath):  # there is no other writer
            yield from left
            return
        number = next((n for n in left if not share or claim(out, n)), None)
        if number is None:
            time.sleep(POLL)
        elif not (out / names[number]).exists():  # made just before it was claimed
            taken.add(number)
            yield number


def shard_windows(lengths: npt.NDArray[np.int64], shard_rows: int) -> list[tuple[int, int]]:
    """Cut consecutive windows into shards of at most ``shard_rows`` tokens: (first, last + 1)."""
    shards, first, total = [], 0, 0
    for number, length in enumerate(lengths.tolist()):
        if total + length > shard_rows and number > first:
            shards.append((first, number))
            first, total = number, 0
        total += length
    shards.append((first, len(lengths)))
    return shards


def read_shard(
    model: LanguageModel,
    corpus: Corpus,
    windows: Windows,
    members: range,
    sites: Sequence[str],
    config: HarvestConfig,
    rules: TokenRules,
    progress: Progress,
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the tensors of one shard, rows in corpus order, and what its header says of them."""
    bos = model.tokenizer.bos
    lengths = windows.length[members.start : members.stop]
    begins = np.cumsum(lengths) - lengths
    count = int(lengths.sum())
    columns = [Column(site, rules.dtype) for site in sites]
    stored: dict[str, torch.Tensor] = {}
    for column in columns:
        stored |= column.room(count, model.width(column.site))
    token = torch.empty(count, dtype=torch.int32)
    kept = torch.zeros(count, dtype=torch.bool)
    for batch in window_batches(
        corpus, windows, members, batch_tokens=config.batch_tokens, bos=bos
    ):
        ids = batch.ids[batch.valid]
        values = {site: a[batch.valid] for site, a in read(model, batch.ids, sites).items()}
        rows = torch.cat(
            [
                torch.arange(int(begins[number - members.start]), stop)
                for number in batch.windows
                for stop in [int(begins[number - members.start] + windows.length[number])]
            ]
        )
        norms = {site: row_norms(activation) for site, activation in values.items()}
        keep = rules.keep_by_norm(ids, norms)
        token[rows] = ids.int()
        kept[rows] = keep
        for column in columns:
            activation, norm = values[column.site][keep], norms[column.site][keep]
            for name, part in column.stored(activation, norm).items():
                stored[name][rows[keep]] = part
        progress.advance(len(ids))
    starts, documents = (
        torch.from_numpy(np.repeat(column[members.start : members.stop], lengths))
        for column in (windows.start, windows.document)
    )
    position = torch.arange(count) - torch.from_numpy(np.repeat(begins, lengths))
    tensors = {name: rows_of[kept] for name, rows_of in stored.items()}
    tensors |= {
        "token": token[kept],
        "document": documents[kept].int(),
        "position": position[kept].int(),
        "place": (starts + position)[kept],
    }
    facts = {
        "rows": int(kept.sum()),
        "left_out": rules.left_out(token, kept),
        **column_facts(columns),
    }
    return tensors, facts


def check_corpus(
    model: LanguageModel, corpus: Corpus, config: HarvestConfig, *, held_out: bool = False
) -> int:
    """Raise SememeError unless the model can read the corpus; return how many tokens lead a window.

    That is 1 where the model wants a BOS in front, else 0.
    """
    check_context(model, config)
    made_with = corpus.manifest["made_from"]["tokenizer"]
    if made_with != model.tokenizer.hash:
        raise SememeError(
            f"{corpus.path} was made with the tokenizer {made_with}, {model.name} has "
            f"{model.tokenizer.hash}: make a corpus for this model"
        )
    if not (corpus.held_out == held_out).any():
        kind = "held-out" if held_out else "training"
        raise SememeError(f"{corpus.path} has no {kind} documents: use more text")
    return 0 if model.tokenizer.bos is None else 1


def check_context(model: LanguageModel, config: HarvestConfig) -> None:
    """Raise UsageError unless the model reads as far as ``config.context``."""
    if not 2 <= config.context <= model.context:
        raise UsageError(
            f"context {config.context}: expected 2 to {model.context}, which is as far as "
            f"{model.name} reads"
        )


def _check_space(
    out: Path, model: LanguageModel, sites: Sequence[str], windows: Windows, dtype: str
) -> None:
    scales = 4 * len(sites) if dtype == "int8" else 0
    row_bytes = sum(model.width(site) for site in sites) * DTYPES[dtype].itemsize + scales + 20
    needed = int(windows.length.sum()) * row_bytes
    present = sum(path.stat().st_size for path in out.glob("shard-*.safetensors"))
    free = shutil.disk_usage(out).free
    if needed - present > free:
        raise SememeError(
            f"{out} needs {(needed - present) / 1e6:,.1f} MB for the activations, and "
            f"{free / 1e6:,.1f} MB are free: free some space, or ask for fewer --tokens"
        )
