"""Read files inside packages without unpacking them, so that no path in one can escape to disk."""

import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import zstandard

from sememe.errors import SememeError


def members(path: Path, *patterns: str) -> Iterator[tuple[str, bytes]]:
    """Yield (name, bytes) of the files in a wheel, npm tarball or Debian package, in its order.

    A name is kept when it matches any of the shell ``patterns``. SememeError if the archive is
    damaged.
    """

    def wanted(name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in patterns)

    try:
        if path.suffix in (".whl", ".zip"):
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    if wanted(name):
                        yield name, archive.read(name)
        elif path.suffix == ".deb":
            with tarfile.open(fileobj=_deb_data(path)) as tarball:
                yield from _tar_members(tarball, wanted)
        else:
            with tarfile.open(path, "r|gz") as tarball:
                yield from _tar_members(tarball, wanted)
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        zstandard.ZstdError,
        EOFError,
    ) as error:
        raise SememeError(f"{path} is damaged ({error}); delete it and run again") from error


def _tar_members(tarball: tarfile.TarFile, wanted: object) -> Iterator[tuple[str, bytes]]:
    assert callable(wanted)
    for entry in tarball:
        name = entry.name.removeprefix("./")
        if entry.isfile() and wanted(name):
            handle = tarball.extractfile(entry)
            assert handle is not None
            yield name, handle.read()


def _deb_data(path: Path) -> io.BytesIO:
    """Return the uncompressed data archive of a Debian package, an ``ar`` of three files."""
    data = path.read_bytes()
    if not data.startswith(b"!<arch>\n"):
        raise tarfile.TarError("not a Debian package")
    place = 8
    while place + 60 <= len(data):
        name = data[place : place + 16].decode("latin-1").strip().rstrip("/")
        size = int(data[place + 48 : place + 58])
        body = data[place + 60 : place + 60 + size]
        if name.startswith("data.tar"):
            if name.endswith(".xz"):
                return io.BytesIO(lzma.decompress(body))
            if name.endswith(".zst"):
                return io.BytesIO(zstandard.ZstdDecompressor().stream_reader(body).read())
            if name.endswith(".gz"):
                return io.BytesIO(zlib.decompress(body, 31))
            return io.BytesIO(body)
        place += 60 + size + size % 2
    raise tarfile.TarError("no data.tar in the Debian package")
