"""Read users' own text: files and folders of plain text, JSON lines and Parquet."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import xxhash
import zstandard

from sememe.artefacts import checksum
from sememe.corpora.documents import sections
from sememe.errors import SememeError, UsageError
from sememe.progress import Progress

TABLES = (".jsonl", ".jsonl.zst", ".parquet")
MADE = ("begun.json", "manifest.json", "seconds.json")
"""Files that mark a folder as one of sememe's own."""


@dataclass(frozen=True)
class UserText:
    """A file or folder of the user's."""

    path: Path
    field: str = "text"
    """Which field of JSON lines, or column of Parquet, holds the text."""

    def files(self) -> list[Path]:
        """Return the files, sorted by name; hidden ones and what sememe made are left out."""
        if not self.path.is_dir():
            return [self.path]
        made = {path.parent for name in MADE for path in self.path.rglob(name)}
        found = [
            path
            for path in self.path.rglob("*")
            if path.is_file()
            and not any(part.startswith(".") for part in path.relative_to(self.path).parts)
            and not made.intersection(path.parents)
        ]
        return sorted(found, key=lambda path: path.relative_to(self.path).as_posix())

    def identity(self) -> str:
        """Return a hash of the names and contents of the files, and of the field."""
        digest = xxhash.xxh3_128(self.field.encode())
        for path in self.files():
            name = path.relative_to(self.path).as_posix() if path != self.path else path.suffix
            digest.update(f"\0{name}\0{checksum(path)}".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def read(self, progress: Progress) -> Iterator[str]:
        """Yield the documents. In a folder, files that are not text are left out, and said so."""
        if not self.path.is_dir():
            yield from read_file(self.path, self.field)
            return
        left_out = []
        for path in self.files():
            if _table(path):
                yield from read_file(path, self.field)
                continue
            try:
                yield from sections(_plain(path))
            except UsageError:
                left_out.append(path.relative_to(self.path).as_posix())
        if left_out:
            names = ", ".join(left_out[:3]) + (", ..." if len(left_out) > 3 else "")
            progress.say(f"{self.path}: left out {len(left_out)} files that are not text: {names}")


def read_file(path: Path, field: str = "text") -> Iterator[str]:
    """Yield the documents of one file; a long plain text gives its sections.

    Raises UsageError, naming the file and the place, for what is not text.
    """
    kind = _table(path)
    if kind == ".parquet":
        yield from _parquet(path, field)
    elif kind:
        yield from _json_lines(path, field)
    else:
        yield from sections(_plain(path))


def _table(path: Path) -> str:
    return next((kind for kind in TABLES if path.name.lower().endswith(kind)), "")


def _plain(path: Path) -> str:
    data = _bytes(path)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UsageError(f"{path} is UTF-16; save it as UTF-8")
    if (place := data.find(b"\0")) >= 0:
        raise UsageError(f"{path} is not text: it has a NUL byte at byte {place}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path} is not UTF-8 text: invalid byte 0x{data[error.start]:02x} at byte "
            f"{error.start}; save it as UTF-8"
        ) from error


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SememeError(f"cannot read {path}: {error.strerror}") from error


def _json_lines(path: Path, field: str) -> Iterator[str]:
    try:
        with path.open("rb") as raw:
            lines: Iterable[bytes] = _zstd_lines(raw) if path.suffix.lower() == ".zst" else raw
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _checked(
                        _value(line, field, f"{path} line {number}"), f"{path} line {number}"
                    )
    except zstandard.ZstdError as error:
        raise UsageError(f"{path} is not a zstd file, or a damaged one ({error})") from error
    except OSError as error:
        raise SememeError(f"cannot read {path}: {error}") from error


def _zstd_lines(raw: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a zstd stream of any number of frames; ZstdError if it is cut off."""
    decoder, pieces = zstandard.ZstdDecompressor().decompressobj(), [b""]
    begun = True
    while data := raw.read(1 << 20):
        while data:
            if not begun:
                decoder, begun = zstandard.ZstdDecompressor().decompressobj(), True
            *lines, rest = decoder.decompress(data).split(b"\n")
            for line in lines:
                yield b"".join([*pieces, line])
                pieces = []
            pieces.append(rest)
            data, begun = (decoder.unused_data, False) if decoder.eof else (b"", begun)
    if begun:
        raise zstandard.ZstdError("the stream is cut off")
    yield b"".join(pieces)


def _value(line: bytes, field: str, place: str) -> str:
    if b"\0" in line:
        raise UsageError(f"{place} is not text: it has a NUL byte")
    try:
        record = json.loads(line)
    except UnicodeDecodeError as error:
        raise UsageError(f"{place} is not UTF-8 text ({error.reason})") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{place} is not JSON ({error}); one JSON object a line is expected"
        ) from error
    if not isinstance(record, dict):
        raise UsageError(f"{place} holds {type(record).__name__}, a JSON object is expected")
    if field not in record:
        names = ", ".join(sorted(record)[:8]) or "none"
        raise UsageError(
            f"{place} has no field {field!r} (it has {names}); name the field as PATH:FIELD"
        )
    if not isinstance(record[field], str):
        raise UsageError(
            f"{place}: field {field!r} is {type(record[field]).__name__}, text is expected"
        )
    return str(record[field])


def _parquet(path: Path, field: str) -> Iterator[str]:
    import pyarrow  # 30 MB, and a third of a second, that all who open a run would pay
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            names = table.schema_arrow.names
            if field not in names:
                raise UsageError(
                    f"{path} has no column {field!r} (it has {', '.join(names[:8])}); name the "
                    "column as PATH:COLUMN"
                )
            kind = table.schema_arrow.field(field).type
            if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
                raise UsageError(f"{path}: column {field!r} is {kind}, text is expected")
            number = 0
            for batch in table.iter_batches(batch_size=1_024, columns=[field]):
                for text in batch.column(0).to_pylist():
                    number += 1
                    if text is not None:
                        yield _checked(text, f"{path} row {number}")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: column {field!r} is not UTF-8 text ({error.reason})") from error
    except (pyarrow.ArrowException, OSError) as error:
        raise UsageError(f"{path} is not a Parquet file, or a damaged one ({error})") from error


def _checked(text: str, place: str) -> str:
    if "\0" in text:
        raise UsageError(f"{place} is not text: it has a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{place} is not text: it has the lone surrogate {text[error.start]!a} at character "
            f"{error.start}"
        ) from error
    return text
