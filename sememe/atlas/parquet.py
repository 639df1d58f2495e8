"""An atlas as Parquet: one table of features, one of examples."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sememe.artefacts import atomic_path
from sememe.atlas.store import STATUSES, Atlas, Page
from sememe.progress import Progress

FEATURES = "features.parquet"
EXAMPLES = "examples.parquet"
TOGETHER = 1024
"""Features of a row group."""
PAIRS = {
    "tokens": ("token", "share"),
    "before": ("token", "share"),
    "after": ("token", "share"),
    "promotes": ("token", "effect"),
    "suppresses": ("token", "effect"),
    "neighbours": ("feature", "cosine"),
    "cofiring": ("feature", "jaccard"),
    "correlated": ("neuron", "correlation"),
    "basis": ("neuron", "weight"),
}
"""Lists of a page, and what each of their pairs holds."""
BINNED = pa.struct([("edges", pa.list_(pa.float64())), ("counts", pa.list_(pa.int64()))])
EXAMPLE = pa.schema(
    [
        ("feature", pa.int64()),
        ("kind", pa.string()),
        ("interval", pa.int8()),
        ("value", pa.float32()),
        ("source", pa.string()),
        ("document", pa.int64()),
        ("position", pa.int64()),
        ("centre", pa.int16()),
        ("tokens", pa.list_(pa.int32())),
        ("values", pa.list_(pa.float32())),
        ("text", pa.string()),
    ]
)
"""``kind`` is top, interval or inactive; ``interval`` counts from 0, the lowest, and is null for
the others; ``text`` has bytes that are no character replaced."""


def write_parquet(
    atlas: Atlas, out: Path, *, progress: Progress | None = None
) -> tuple[Path, Path]:
    """Write ``features.parquet`` and ``examples.parquet`` to the folder ``out``; return both.

    Memory: the pages of 1,024 features.
    """
    progress = progress or Progress()
    progress.start("export", 2 * atlas.features, "features")
    groups = (
        (FEATURES, _feature_schema(atlas), _feature_rows),
        (EXAMPLES, EXAMPLE, _example_rows),
    )
    for name, schema, rows in groups:
        _write(atlas, out / name, schema, rows, progress)
    progress.finish()
    return out / FEATURES, out / EXAMPLES


def _write(
    atlas: Atlas,
    path: Path,
    schema: pa.Schema,
    rows: Callable[[Atlas, int, Page], Iterator[dict[str, Any]]],
    progress: Progress,
) -> None:
    with (
        atomic_path(path) as partial,
        pq.ParquetWriter(partial, schema, compression="zstd") as writer,
    ):
        for first in range(0, atlas.features, TOGETHER):
            last = min(first + TOGETHER, atlas.features)
            group = [row for n in range(first, last) for row in rows(atlas, n, atlas.feature(n))]
            writer.write_table(pa.Table.from_pylist(group, schema))
            progress.advance(last - first)


def _feature_schema(atlas: Atlas) -> pa.Schema:
    """Return the columns of features: those of the atlas, then what its pages list."""
    numbers = [
        (name, pa.from_numpy_dtype(column.dtype))
        for name, column in sorted(atlas.columns.items())
        if column.ndim == 1 and name not in ("status", "source")
    ]
    lists = [
        (
            name,
            pa.list_(pa.struct([(key, pa.int32()), ("text", pa.string()), (value, pa.float32())])),
        )
        if key == "token"
        else (name, pa.list_(pa.struct([(key, pa.int32()), (value, pa.float32())])))
        for name, (key, value) in PAIRS.items()
    ]
    sources = pa.list_(pa.struct([("source", pa.string()), ("share", pa.float32())]))
    names = [("feature", pa.int64()), ("count", pa.int64()), ("status", pa.string())]
    binned = [("histogram", BINNED), ("logits", BINNED)]
    return pa.schema([*names, *numbers, *binned, ("sources", sources), *lists])


def _feature_rows(atlas: Atlas, number: int, page: Page) -> Iterator[dict[str, Any]]:
    row: dict[str, Any] = {
        name: column[number] for name, column in atlas.columns.items() if column.ndim == 1
    }
    row |= {"feature": number, "count": page["count"], "histogram": page["histogram"]}
    row["status"] = STATUSES[atlas.columns["status"][number]]
    row["logits"] = page.get("logits")
    row["sources"] = [{"source": label, "share": share} for label, share in page["sources"]]
    for name, (key, value) in PAIRS.items():
        row[name] = [_pair(atlas, key, value, *pair) for pair in page.get(name, [])]
    yield row


def _pair(atlas: Atlas, key: str, value: str, which: int, amount: float) -> dict[str, Any]:
    text = {"text": _text(atlas, [which])} if key == "token" else {}
    return {key: which, **text, value: amount}


def _example_rows(atlas: Atlas, number: int, page: Page) -> Iterator[dict[str, Any]]:
    intervals = page["intervals"][::-1]
    kinds: list[tuple[str, int | None, list[Page]]] = [
        ("top", None, page["top"]),
        ("inactive", None, page.get("inactive", [])),
    ]
    kinds += [("interval", n, interval["examples"]) for n, interval in enumerate(intervals)]
    for kind, interval, examples in kinds:
        for example in examples:
            text = _text(atlas, example["tokens"])
            yield {
                **example, "feature": number, "kind": kind, "interval": interval, "text": text
            }  # fmt: skip


def _text(atlas: Atlas, tokens: list[int]) -> str:
    return b"".join(atlas.token_bytes(tokens)).decode("utf-8", "replace")
