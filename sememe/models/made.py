"""Model directories in the cache, made when first asked for."""

import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sememe.artefacts import cache_folder, is_finished, read_manifest, verify_files

KIND = "model"


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """Return the directory of model ``name`` in the cache, made by ``make`` if it is not there.

    ``make`` is given an empty place, writes the model's files there, and its manifest last. They
    are compared with their checksums whenever they are used; SememeError when they differ.
    """
    directory = cache_folder() / "models" / name
    if not is_finished(directory):
        with _only_one(directory):
            if not is_finished(directory):
                unfinished = directory.with_name(f".{name}.partial")
                for left in (unfinished, directory):
                    shutil.rmtree(left, ignore_errors=True)
                make(unfinished)
                unfinished.rename(directory)
    verify_files(directory, read_manifest(directory, KIND))
    return directory


@contextmanager
def _only_one(directory: Path) -> Iterator[None]:
    """Let one process at a time make ``directory``; the lock ends with the process."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with (directory.parent / f".{directory.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
