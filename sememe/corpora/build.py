"""Build a corpus: sample documents of each source, tokenise, split, shuffle, write."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save

from sememe.artefacts import (
    disk_error,
    is_finished,
    lock,
    read_manifest,
    refuse_other,
    write_bytes,
    write_manifest,
)
from sememe.corpora.corpus import DOCUMENTS, SHARD_TOKENS, Corpus, shard_name
from sememe.corpora.documents import order
from sememe.corpora.inputs import Input, resolve
from sememe.corpora.pool import LONGEST, Part, Pool, Seen, allot
from sememe.errors import SememeError, UsageError
from sememe.models.tokenizer import Tokenizer
from sememe.progress import Progress

RULES = 1
"""Raised when the same arguments would give another corpus."""


class Row(NamedTuple):
    """A part on its way into the corpus."""

    rank: int
    source: int
    part: Part
    held_out: bool


def build_corpus(
    out: Path,
    tokenizer: Tokenizer,
    *,
    tokens: int,
    sources: Sequence[str] | None = None,
    seed: int = 0,
    held_out: float = 0.05,
    progress: Progress | None = None,
) -> Corpus:
    """Write a corpus of ``tokens`` tokens to ``out``, unless it is there already, and return it.

    ``sources`` are labels of the table of sources or paths of the user's own text (``path``,
    ``path:field``, ``path=label``); None is the default set. A default source gives its share, and
    what a source lacks the others give; named sources share alike. Documents are drawn whole in an
    order set by ``seed``; near-copies are dropped; ``held_out`` is the share of documents, chosen
    by a hash of their text, that training never sees. Fewer tokens come only when the sources end.

    Raises UsageError for arguments that make no sense and text that is none, SememeError when a
    package cannot be fetched, nothing is left, or ``out`` holds a corpus made with other arguments.
    """
    progress = progress or Progress()
    out = Path(out)
    if tokens < 1:
        raise UsageError(f"tokens={tokens} was asked, at least 1 is needed")
    if not 0 <= held_out < 1:
        raise UsageError(f"held_out={held_out} was asked, a share from 0 to below 1 is needed")
    inputs = resolve(sources)
    config: dict[str, Any] = {
        "tokens": tokens,
        "sources": [source.label for source in inputs],
        "seed": seed,
        "held_out": held_out,
        "longest": LONGEST,
        "rules": RULES,
    }
    made_from: dict[str, Any] = {
        "tokenizer": tokenizer.hash,
        "sources": {source.label: source.identity() for source in inputs},
    }
    if is_finished(out):
        found = read_manifest(out, "corpus")
        refuse_other(out, {**config, **made_from}, {**found["config"], **found["made_from"]})
        return Corpus.open(out)
    lock(out)
    _clear(out)
    progress.start("corpus", tokens, "tokens")
    seen = Seen()
    pools = [
        Pool(
            source.label,
            source.reader(progress),
            source.clean,
            tokenizer,
            seed=seed,
            seen=seen,
            progress=progress,
        )
        for source in inputs
    ]
    granted = allot(pools, [source.share for source in inputs], tokens)
    rows = _rows(pools, granted, seed, held_out)
    total = sum(len(row.part.tokens) for row in rows)
    if not total:
        raise SememeError(
            f"no tokens are left of {', '.join(config['sources'])}: every document is empty or a "
            "copy of another"
        )
    if total < 0.98 * tokens:
        progress.say(f"the sources end at {total:,} tokens; {tokens:,} were asked")
    sides = [len(row.part.tokens) for row in rows if row.held_out]
    if held_out and not sides:
        raise SememeError(
            f"{len(rows)} parts of one document leave none to hold out for evaluation: give more "
            "text, in two documents or more"
        )
    files = _write(out, rows)
    write_manifest(
        out,
        "corpus",
        config=config,
        made_from=made_from,
        files=files,
        sources=[_facts(source, index, rows) for index, source in enumerate(inputs)],
        tokens=total,
        documents=len(rows),
        held_out_tokens=sum(sides),
        held_out_documents=len(sides),
        copies_dropped=seen.dropped,
        offset="ordinal of the document in its source, in reading order",
        first="index of the part's first token in its document",
    )
    progress.finish(f"{total:,} tokens in {len(rows):,} documents, {sum(sides):,} held out")
    return Corpus.open(out)


def _clear(out: Path) -> None:
    """Remove what an unfinished run left in ``out``."""
    try:
        for path in [*out.glob("tokens-[0-9]*.safetensors"), out / DOCUMENTS]:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise disk_error(out, error) from error


def _rows(pools: Sequence[Pool], granted: Sequence[int], seed: int, held_out: float) -> list[Row]:
    """Return the parts of all sources, split and shuffled."""
    drawn = [
        (index, pool.label, part)
        for index, (pool, count) in enumerate(zip(pools, granted, strict=True))
        for part in pool.parts(count)
    ]
    identities = {part.identity for _, _, part in drawn}
    chosen = {value for value in identities if value < held_out * 2.0**64}
    if held_out > 0 and not chosen and len(identities) > 1:
        chosen = {min(identities)}
    rows = [
        Row(order(seed, label, part.offset, part.first), index, part, part.identity in chosen)
        for index, label, part in drawn
    ]
    return sorted(rows, key=lambda row: (row.rank, row.source, row.part.offset, row.part.first))


def _write(out: Path, rows: Sequence[Row]) -> list[str]:
    """Write the shards and the index of documents; return their names."""
    ids = np.concatenate([row.part.tokens for row in rows])
    names = []
    for shard, place in enumerate(range(0, len(ids), SHARD_TOKENS)):
        names.append(shard_name(shard))
        _save(out / names[-1], {"tokens": ids[place : place + SHARD_TOKENS]})
    lengths = np.array([len(row.part.tokens) for row in rows], dtype=np.int32)
    documents = {
        "start": np.cumsum(lengths, dtype=np.int64) - lengths,
        "length": lengths,
        "source": np.array([row.source for row in rows], dtype=np.int16),
        "offset": np.array([row.part.offset for row in rows], dtype=np.int64),
        "first": np.array([row.part.first for row in rows], dtype=np.int64),
        "held_out": np.array([row.held_out for row in rows], dtype=np.uint8),
    }
    _save(out / DOCUMENTS, documents)
    return [*names, DOCUMENTS]


def _save(path: Path, tensors: dict[str, np.ndarray]) -> None:
    write_bytes(path, save(tensors))


def _facts(source: Input, index: int, rows: Sequence[Row]) -> dict[str, Any]:
    own = [row for row in rows if row.source == index]
    return {
        **source.facts(),
        "documents": len(own),
        "tokens": sum(len(row.part.tokens) for row in own),
    }
