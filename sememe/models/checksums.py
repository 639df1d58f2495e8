"""Checksums of large files, kept while the files do not change."""

from pathlib import Path

from sememe.artefacts import cache_folder, checksum, read_json, write_json
from sememe.errors import SememeError


def cached_checksum(path: Path) -> str:
    """Return the xxh3 of ``path``, kept in the cache while its size and time of change stay."""
    path = path.resolve()
    table_path = cache_folder() / "checksums.json"
    state = path.stat()
    key, stamp = str(path), [state.st_size, state.st_mtime_ns]
    try:
        table = read_json(table_path)
    except SememeError:
        table = {}
    known = table.get(key) if isinstance(table, dict) else None
    if isinstance(known, dict) and known.get("stamp") == stamp:
        return str(known["xxh3"])
    found = checksum(path)
    if not isinstance(table, dict):
        table = {}
    write_json(table_path, {**table, key: {"stamp": stamp, "xxh3": found}})
    return found
