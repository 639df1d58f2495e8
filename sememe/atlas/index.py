"""What searches need beside an atlas, made in a pass over its pages.

- which features write to each neuron of the site (from every feature's largest weights),
- the words around the peaks of each feature's strongest examples, in SQLite's FTS5,
- where each feature lies among meanings: a sentence encoder's vectors of its strongest examples, of
  the tokens it fires on and of its label, where it has one, turned so that the first dimensions
  tell most apart, in int8.
"""

import sqlite3
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import xxhash

from sememe.artefacts import atomic_path, begin, is_finished, write_bytes, write_manifest
from sememe.atlas.store import Atlas
from sememe.progress import Progress

NEURONS = "neurons.safetensors"
EXAMPLES = "examples.sqlite"
MEANINGS = "meanings.safetensors"
HEAD = 64
"""Dimensions that every feature is first compared in; the best are compared in all."""
SHOWN = 3
"""Examples of a feature that are searched."""
AROUND = 12
"""Tokens on either side of an example's peak."""
BATCH = 256
CHUNK = 65_536

Encoder = Callable[[Sequence[str]], npt.NDArray[np.float32]]
"""Gives sentences their vectors, (sentences, width), of length 1."""


def index(atlas: Atlas, out: Path, *, progress: Progress | None = None) -> None:
    """Index the words and neurons of ``atlas`` in ``out``, unless it is done; the manifest last.

    Raises SememeError where ``out`` was begun for another atlas.
    """
    progress = progress or Progress()
    if _is_done(atlas, out):
        return
    progress.start("index", atlas.features, "features")
    neuron, feature, weight = array("i"), array("i"), array("f")

    def texts() -> Iterator[tuple[int, str]]:
        for number in range(atlas.features):
            page = atlas.summary(number)
            for place, amount in page.get("basis", []):
                neuron.append(place)
                feature.append(number)
                weight.append(amount)
            yield number, text_of(atlas, page)
            progress.advance(1)

    with atomic_path(out / EXAMPLES) as partial:
        write_words(partial, texts())
    write_bytes(
        out / NEURONS,
        safetensors.numpy.save(by_neuron(*map(np.asarray, (neuron, feature, weight)))),
    )
    _finish(atlas, out, [EXAMPLES, NEURONS])
    progress.finish(f"{atlas.features:,} features can be searched")


def index_meanings(
    atlas: Atlas,
    out: Path,
    encode: Encoder,
    *,
    labels: Mapping[int, str] | None = None,
    progress: Progress | None = None,
) -> None:
    """Index the meanings of ``atlas`` in ``out``, unless it is done; the manifest last.

    A feature lies in the middle of what its examples, the tokens that it fires on and its label, if
    it is in ``labels``, mean: examples alone tell the topic of texts rather than what fires. Raises
    SememeError where ``out`` was begun for another atlas, or with other labels.
    """
    progress, labels = progress or Progress(), labels or {}
    stated = xxhash.xxh3_128_hexdigest(repr(sorted(labels.items())).encode()) if labels else None
    if _is_done(atlas, out, labels=stated):
        return
    progress.start("meanings", atlas.features, "features")
    parts = []
    for start in range(0, atlas.features, BATCH):
        numbers = range(start, min(start + BATCH, atlas.features))
        vectors = encode([text_of(atlas, atlas.summary(number)) for number in numbers])
        for texts in ({n: tokens_of(atlas, n) for n in numbers}, labels):
            named = [number for number in numbers if texts.get(number)]
            if named:
                vectors[np.array(named) - start] += encode([texts[number] for number in named])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        parts.append(vectors.astype(np.float16))
        progress.advance(len(numbers))
    write_bytes(out / MEANINGS, safetensors.numpy.save(meanings(np.concatenate(parts))))
    _finish(atlas, out, [MEANINGS], labels=stated)
    progress.finish(f"{atlas.features:,} features can be searched by meaning")


def _is_done(atlas: Atlas, out: Path, **others: str | None) -> bool:
    begin(out, {"atlas": atlas.manifest["hash"], **others})
    return is_finished(out)


def _finish(atlas: Atlas, out: Path, files: list[str], **others: str | None) -> None:
    made_from = {"atlas": atlas.manifest["hash"], **others}
    write_manifest(out, "index", config={}, made_from=made_from, files=files)


def text_of(atlas: Atlas, page: Mapping[str, Any]) -> str:
    """Return the text around the peaks of a feature's strongest examples, one a line."""
    lines = []
    for example in page["top"][:SHOWN]:
        near = slice(max(example["centre"] - AROUND, 0), example["centre"] + AROUND + 1)
        data = b"".join(atlas.token_bytes(example["tokens"][near]))
        lines.append(" ".join(data.decode("utf-8", "ignore").split()))
    return "\n".join(lines)


def tokens_of(atlas: Atlas, feature: int) -> str:
    """Return the tokens that a feature fires on, as a list of words."""
    tokens = [token for token in atlas.columns["tokens"][feature].tolist() if token >= 0]
    words = [data.decode("utf-8", "ignore").strip() for data in atlas.token_bytes(tokens)]
    return ", ".join(word for word in words if word)


def write_words(path: Path, texts: Iterator[tuple[int, str]]) -> None:
    """Write the words of numbered texts as an FTS5 table ``words`` that keeps no text."""
    database = sqlite3.connect(path, isolation_level=None)
    try:
        database.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; BEGIN;"
            "CREATE VIRTUAL TABLE words USING fts5(text, content='', columnsize=0);"
        )
        database.executemany("INSERT INTO words(rowid, text) VALUES (?, ?)", texts)
        database.execute("COMMIT")
        database.execute("INSERT INTO words(words) VALUES ('optimize')")
    finally:
        database.close()


def by_neuron(
    neuron: npt.NDArray[np.int32],
    feature: npt.NDArray[np.int32],
    weight: npt.NDArray[np.float32],
) -> dict[str, npt.NDArray[Any]]:
    """Return features' weights on neurons by neuron, the largest first.

    The entries of neuron n are ``start[n]`` to ``start[n + 1]`` of ``feature`` and ``weight``.
    """
    order = np.lexsort((feature, -np.abs(weight), neuron))
    neurons = int(neuron.max()) + 1 if len(neuron) else 0
    return {
        "start": np.searchsorted(neuron[order], np.arange(neurons + 1)),
        "feature": feature[order],
        "weight": weight[order],
    }


def meanings(vectors: npt.NDArray[np.floating[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Return vectors turned to their principal axes, in int8 with one step a vector.

    ``turn`` (width, width) turns a query the same way; ``head`` and ``tail`` are its dimensions.
    """
    width = vectors.shape[1]
    chunks = [slice(start, start + CHUNK) for start in range(0, len(vectors), CHUNK)]
    moments = np.zeros((width, width), np.float64)
    for chunk in chunks:
        part = vectors[chunk].astype(np.float32)
        moments += part.T @ part
    turn = np.linalg.eigh(moments)[1][:, ::-1].astype(np.float32)
    head = np.empty((len(vectors), min(HEAD, width)), np.int8)
    tail = np.empty((len(vectors), width - head.shape[1]), np.int8)
    step = np.empty(len(vectors), np.float32)
    for chunk in chunks:
        turned = vectors[chunk].astype(np.float32) @ turn
        step[chunk] = np.maximum(np.abs(turned).max(1), 1e-9) / 127
        rounded = np.rint(turned / step[chunk, None])
        head[chunk], tail[chunk] = rounded[:, :HEAD], rounded[:, HEAD:]
    return {"head": head, "tail": tail, "step": step, "turn": np.ascontiguousarray(turn)}
