"""Directories that survive any kill: atomic files, checksums, and a manifest written last.

Every artefact (corpus, activations, dictionary, atlas) is a directory whose ``manifest.json`` lists
its files with sizes and xxh3 checksums, and says what it was made from. The manifest appears only
when everything it lists is complete, so a directory without one is unfinished work. Nothing in a
manifest depends on the time or the machine: the same inputs give the same bytes.

Stores of activations may also be the objects of an object store: each is written whole, in one
request, so that there is nothing to rename, and a single writer at a time is the user's to see to.
"""

import errno
import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import xxhash

from sememe.errors import SememeError, UsageError
from sememe.objects import ATTEMPTS, ObjectPath, Place

MANIFEST = "manifest.json"
FORMAT = 1


def cache_folder() -> Path:
    """Return the folder for what is fetched or converted once and used by every run.

    ``SEMEME_CACHE`` if set, else ``sememe`` in ``XDG_CACHE_HOME``, else ``~/.cache/sememe``.
    """
    if chosen := os.environ.get("SEMEME_CACHE"):
        return Path(chosen).expanduser().absolute()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "sememe"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success sync it and rename it into place.

    On any error the temporary file is removed and ``path`` is as it was before. A full disk becomes
    a :class:`SememeError` that names the file.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb+") as handle:
            os.fsync(handle.fileno())
        partial.chmod(0o644)  # some writers make files that only their owner reads
        partial.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        raise disk_error(path, error) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def disk_error(path: Path, error: OSError) -> SememeError:
    """Return the one-line error for a failed write to ``path``."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SememeError(
            f"no space left on the disk while writing {path}; free some space and run the same "
            "command again: it goes on where it was"
        )
    return SememeError(f"cannot write {path}: {error.strerror or error}")


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Place, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically and durably."""
    if isinstance(path, ObjectPath):
        path.write(data)
        return
    with atomic_path(path) as partial:
        partial.write_bytes(data)


def write_json(path: Place, value: object) -> None:
    """Write ``value`` as sorted, indented JSON, atomically; NaN and infinity are refused."""
    write_bytes(path, _json_bytes(value))


def _json_bytes(value: object) -> bytes:
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


def read_json(path: Place) -> Any:  # noqa: ANN401 - any JSON value
    """Return the JSON value in ``path``; SememeError if it is missing or is not JSON."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise SememeError(f"{path} does not exist") from None
    except ValueError as error:
        raise SememeError(f"{path} is not valid JSON ({error}); delete it and run again") from None


def checksum(path: Place) -> str:
    """Return the xxh3-128 checksum of a file's bytes as hexadecimal digits."""
    if isinstance(path, ObjectPath):
        return path.checksum()
    digest = xxhash.xxh3_128()
    with path.open("rb") as handle:
        while chunk := handle.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def size_of(path: Place) -> int:
    """Return the size of a file that is there, in bytes."""
    size = path.size() if isinstance(path, ObjectPath) else path.stat().st_size
    assert size is not None
    return size


def names_in(directory: Place) -> set[str]:
    """Return the names of what is in ``directory``, by one listing."""
    if isinstance(directory, ObjectPath):
        return directory.names()
    return {path.name for path in directory.iterdir()}


def fetch(path: ObjectPath, expected: Mapping[str, Any], into: Path) -> None:
    """Bring an object that a manifest lists as ``expected`` to the file ``into``, and compare it.

    SememeError where it cannot be had or differs, however often it is fetched.
    """
    for left in reversed(range(ATTEMPTS)):
        try:
            with atomic_path(into) as partial:
                if not path.exists():
                    raise SememeError(f"{path} is missing; make the store again")
                path.receive(partial)
                if damage := damage_of(partial, expected):
                    raise SememeError(f"{path} {damage}; make the store again")
            return
        except SememeError:
            if not left:
                raise


def fingerprint(value: object) -> str:
    """Return the xxh3-128 of a JSON-able value, written canonically."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return xxhash.xxh3_128_hexdigest(text.encode())


def _clear_partial(directory: Path) -> None:
    """Remove temporary files that a killed writer left in ``directory``."""
    for partial in directory.glob(".*.partial*"):
        partial.unlink(missing_ok=True)


def write_manifest(
    directory: Place,
    kind: str,
    *,
    config: Mapping[str, object],
    made_from: Mapping[str, object],
    files: Iterable[str],
    **facts: object,
) -> dict[str, Any]:
    """Write the manifest of a finished artefact, last of all, and return it.

    ``config`` is what the user chose, ``made_from`` names the inputs by hash, ``files`` are paths
    relative to ``directory``, and ``facts`` are whatever else readers need (rows, width, scale).
    ``hash`` identifies the artefact: it covers everything else in the manifest.
    """
    listed = {name: _listed(directory / name) for name in sorted(files)}
    manifest: dict[str, Any] = {
        "kind": kind,
        "format": FORMAT,
        "config": dict(config),
        "made_from": dict(made_from),
        "files": listed,
        **facts,
    }
    manifest["hash"] = fingerprint(manifest)
    write_json(directory / MANIFEST, manifest)
    return manifest


def _listed(path: Place) -> dict[str, Any]:
    # what this process has sent to an object store need not come back to be summed
    known = path.written.get(path.name) if isinstance(path, ObjectPath) else None
    return {"bytes": size_of(path), "xxh3": known or checksum(path)}


def is_finished(directory: Place) -> bool:
    """Whether ``directory`` holds a finished artefact."""
    return (directory / MANIFEST).exists()


def read_manifest(directory: Place, kind: str) -> dict[str, Any]:
    """Return the manifest of the finished ``kind`` in ``directory``.

    Raises SememeError when there is none, when it is of another kind, or from a newer sememe.
    """
    if not is_finished(directory):
        state = "is unfinished" if directory.is_dir() else "does not exist"
        raise SememeError(
            f"{directory} {state}: it has no {MANIFEST}. Run the command that makes the {kind} "
            "again; it goes on where it was"
        )
    manifest = read_json(directory / MANIFEST)
    found = manifest.get("kind") if isinstance(manifest, dict) else None
    if found != kind:
        raise SememeError(f"{directory} holds {found!r}, but {kind!r} was expected")
    written = {name: value for name, value in manifest.items() if name != "hash"}
    if manifest.get("format", 0) <= FORMAT and manifest.get("hash") != fingerprint(written):
        raise SememeError(
            f"{directory / MANIFEST} is altered: its hash does not fit what it says; delete "
            f"{directory} and make it again"
        )
    if manifest.get("format", 0) > FORMAT:
        raise SememeError(
            f"{directory} was written in format {manifest['format']}, this sememe reads up to "
            f"{FORMAT}: install a newer sememe"
        )
    return dict(manifest)


def verify_files(
    directory: Place, manifest: Mapping[str, Any], names: Iterable[str] | None = None
) -> None:
    """Hold files to the sizes and checksums in ``manifest``; SememeError names the first bad."""
    for name in names if names is not None else manifest["files"]:
        if damage := damage_of(directory / name, manifest["files"][name]):
            raise SememeError(f"{directory / name} {damage}; delete {directory} and make it again")


def damage_of(path: Place, expected: Mapping[str, Any]) -> str:
    """Return what is wrong with a file that a manifest lists as ``expected``; empty if nothing."""
    if not path.exists():
        return "is missing"
    size = size_of(path)
    if size != expected["bytes"]:
        return (
            f"has {size} bytes, its manifest says {expected['bytes']}: the file is truncated or "
            "altered"
        )
    if (found := checksum(path)) != expected["xxh3"]:
        return f"has checksum {found}, its manifest says {expected['xxh3']}: the file is altered"
    return ""


def refuse_other(
    directory: Place, wanted: Mapping[str, object], found: Mapping[str, object]
) -> None:
    """Refuse to go on in ``directory`` if it was begun with other arguments, naming both values."""
    wanted, found = (json.loads(json.dumps(dict(part))) for part in (wanted, found))
    for key in sorted({*wanted, *found}):
        if wanted.get(key) != found.get(key):
            raise SememeError(
                f"{directory} was made with {key}={found.get(key)!r}, now "
                f"{key}={wanted.get(key)!r} is asked: give another --out, or delete the directory"
            )


_locks: dict[Path, int] = {}
_claims: dict[Path, int] = {}
"""Directories that this process writes to; the system lets go of them when it ends, however."""
BEGINNING = 1 << 40
"""The part of the work that is to say what the work is."""
PATIENCE = 2.0
"""Seconds that one that would share waits for the last that did to leave."""


def lock(directory: Path, *, shared: bool = False) -> None:
    """Make ``directory`` and keep other processes from writing to it until this one ends.

    ``shared`` lets in those that share the work, and none that does not. Otherwise what a killed
    writer left half-written is removed. Raises SememeError when another process is at work there,
    or it cannot be made.
    """
    key = directory.resolve()
    if key not in _locks:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise disk_error(directory, error) from error
        # the last that shared the work has it alone for a moment
        until = time.monotonic() + (PATIENCE if shared else 0)
        while not _flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX):
            if time.monotonic() >= until:
                os.close(descriptor)
                raise SememeError(
                    f"another sememe is at work in {directory}: wait for it, or give another --out"
                )
            time.sleep(0.01)
        _locks[key] = descriptor
    if not shared:
        _clear_partial(directory)


def claim(directory: Path, number: int, *, wait: bool = False) -> bool:
    """Claim part ``number`` of the work in ``directory`` for this process, until it ends.

    Return False where another living process has it; ``wait`` until none has.
    """
    key = directory.resolve()
    if key not in _claims:
        _claims[key] = os.open(directory / ".claims", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.lockf(_claims[key], fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, number)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        raise disk_error(directory / ".claims", error) from error
    return True


def _flock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def leave(directory: Place, *, shared: bool) -> None:
    """End this process's share of the work; the last to leave removes what killed writers left.

    Does nothing where the work is not ``shared``: it may go on.
    """
    if not shared or isinstance(directory, ObjectPath):
        return
    descriptor = _locks.pop(directory.resolve())
    if _flock(descriptor, fcntl.LOCK_EX):  # one that fails to become exclusive is not shared either
        _clear_partial(directory)
    os.close(descriptor)


def refuse_unfit(what: str, pairs: Mapping[str, tuple[object, object]]) -> None:
    """Refuse inputs that do not belong together: ``pairs`` hold, by name, (found, expected)."""
    for name, (found, expected) in pairs.items():
        if found != expected:
            raise SememeError(
                f"{what} was made from {name} {found}, but {name} {expected} is given: use the "
                "parts of one run"
            )


def begin(directory: Place, arguments: Mapping[str, object], *, shared: bool = False) -> None:
    """Claim ``directory`` for one set of arguments, or go on in it if they are the same.

    ``shared`` as of :func:`lock`. SememeError names the argument that differs. An object store is
    not locked, so that it cannot be shared either.
    """
    if isinstance(directory, ObjectPath):
        if shared:
            raise UsageError(f"{directory} cannot be shared: object stores have no locks")
        begun = directory / "begun.json"
        try:
            begun.write(_json_bytes(arguments), new=True)
        except FileExistsError:
            refuse_other(directory, arguments, read_json(begun))
        return
    lock(directory, shared=shared)
    path = directory / "begun.json"
    wanted = json.loads(json.dumps(arguments))
    if shared:
        claim(directory, BEGINNING, wait=True)
    try:
        if path.exists():
            refuse_other(directory, wanted, read_json(path))
        else:
            write_json(path, wanted)
    finally:
        if shared:
            fcntl.lockf(_claims[directory.resolve()], fcntl.LOCK_UN, 1, BEGINNING)
