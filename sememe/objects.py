"""Object stores by URL: the few operations on them that a store of activations needs."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar
from urllib.parse import unquote, urlsplit

import xxhash

from sememe.errors import SememeError, UsageError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SCHEMES = ("s3", "gs", "az")
ATTEMPTS = 3
"""Times to ask where answers break off or come damaged; obstore itself repeats what fails."""
CHUNK = 1 << 22
"""Bytes of an object that are held at once while it is fetched or compared."""
T = TypeVar("T")


@dataclass(frozen=True)
class ObjectPath:
    """An object, or the folder of several, in an object store.

    Objects appear whole or not at all, there are no locks, and nothing is renamed. Every operation
    raises SememeError, with the URL, where the store cannot be reached or refuses.
    """

    url: str
    """Of the folder."""
    store: "ObjectStore" = field(repr=False)
    name: str = ""
    """Of the object in the folder; empty for the folder itself."""
    written: dict[str, str] = field(default_factory=dict, repr=False)
    """By name, the xxh3-128 of what this process has written to the folder."""

    @classmethod
    def open(cls, url: str) -> "ObjectPath":
        """Return the folder at ``url``; its credentials come from the environment, as AWS_*."""
        if urlsplit(url).scheme not in SCHEMES:
            known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
            raise UsageError(f"{url} is no place for a store: expected a directory or {known}")
        try:
            from obstore.exceptions import BaseError
            from obstore.store import from_url
        except ImportError:
            raise SememeError(f"{url} needs obstore: pip install 'sememe[cloud]'") from None
        try:
            return cls(url.rstrip("/"), from_url(url.rstrip("/")))
        except (BaseError, ValueError) as error:
            raise SememeError(f"cannot open {url}: {_first_line(error)}") from error

    def __str__(self) -> str:
        return f"{self.url}/{self.name}" if self.name else self.url

    def __truediv__(self, name: str) -> "ObjectPath":
        return replace(self, name=name)

    def names(self) -> set[str]:
        """Return the names of the objects in the folder."""
        pages = self._ask("list", lambda: list(self.store.list()))
        return {str(meta["path"]) for page in pages for meta in page}

    def is_dir(self) -> bool:
        """Whether there is anything in the folder."""
        return bool(self.names())

    def exists(self) -> bool:
        """Whether there is such an object."""
        return self.size() is not None

    def size(self) -> int | None:
        """Return the size of the object in bytes; None where there is none."""
        try:
            return int(self._ask("read", lambda: self.store.head(self.name))["size"])
        except FileNotFoundError:
            return None

    def read_bytes(self) -> bytes:
        """Return the whole object; FileNotFoundError where there is none."""
        return self._ask("read", lambda: bytes(self.store.get(self.name).bytes()))

    def read_range(self, start: int, length: int) -> bytes:
        """Return ``length`` bytes of the object from ``start`` on."""

        def read() -> bytes:
            data = bytes(self.store.get_range(self.name, start=start, length=length))
            if len(data) != length:
                raise OSError(f"{len(data)} bytes came of {length}")
            return data

        return self._ask("read", read)

    def receive(self, into: Path) -> None:
        """Write the object to a file; FileNotFoundError where there is none."""

        def read() -> None:
            with into.open("wb") as handle:
                handle.writelines(self.store.get(self.name).stream(min_chunk_size=CHUNK))

        self._ask("read", read)

    def checksum(self) -> str:
        """Return the xxh3-128 checksum of the object; FileNotFoundError where there is none."""

        def read() -> str:
            digest = xxhash.xxh3_128()
            for chunk in self.store.get(self.name).stream(min_chunk_size=CHUNK):
                digest.update(chunk)
            return digest.hexdigest()

        return self._ask("read", read)

    def write(self, data: bytes, *, new: bool = False) -> None:
        """Write the whole object; what did not arrive whole is written again, or removed.

        ``new``: FileExistsError where there is one.
        """
        mode: Literal["create", "overwrite"] = "create" if new else "overwrite"
        for _ in range(ATTEMPTS):
            self._ask("write", lambda: self.store.put(self.name, data, mode=mode))
            if self.size() == len(data):
                self.written[self.name] = xxhash.xxh3_128_hexdigest(data)
                return
            self._ask("remove", lambda: self.store.delete(self.name))
        raise SememeError(f"cannot write {self}: less than its {len(data)} bytes arrive")

    def _ask(self, doing: str, request: Callable[[], T]) -> T:
        """Return the answer to a request, asking again where it breaks off."""
        from obstore.exceptions import AlreadyExistsError, BaseError

        for left in reversed(range(ATTEMPTS)):
            try:
                return request()
            except AlreadyExistsError as error:
                raise FileExistsError(f"{self} exists") from error
            except FileNotFoundError:
                raise
            except (BaseError, OSError) as error:
                if not left:
                    raise SememeError(f"cannot {doing} {self}: {_first_line(error)}") from error
        raise AssertionError


Place = Path | ObjectPath
"""Where a store of activations is."""


def place(where: str | Place) -> Place:
    """Return the directory or the URL that ``where`` names; file:// is a directory."""
    if not isinstance(where, str):
        return where
    if where.startswith("file://"):
        return Path(unquote(urlsplit(where).path))
    return ObjectPath.open(where) if "://" in where else Path(where)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
