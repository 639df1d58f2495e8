"""What a corpus is asked to be made of: sources of the table, and the user's own text."""

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sememe.artefacts import fingerprint
from sememe.corpora.documents import Document
from sememe.corpora.fetch import Package, fetch
from sememe.corpora.sources import SOURCES, Source
from sememe.corpora.user_text import UserText
from sememe.errors import UsageError
from sememe.progress import Progress


@dataclass(frozen=True)
class Input:
    """One source of a corpus."""

    label: str
    share: float
    content: Source | UserText

    @property
    def package(self) -> Package | None:
        """The package that it is read from; None for the user's own text and what is generated."""
        return None if isinstance(self.content, UserText) else self.content.package

    def identity(self) -> str:
        """Return what tells this text from another under the same label."""
        if isinstance(self.content, UserText):
            return self.content.identity()
        package = self.content.package
        return fingerprint([str(package), package.sha256 if package else "", self.content.version])

    def reader(self, progress: Progress) -> Callable[[], Iterable[Document]]:
        """Return a function that reads the documents from the start, fetching what is needed."""

        def read() -> Iterator[Document]:
            if isinstance(self.content, UserText):
                texts = self.content.read(progress)
            else:
                package = self.content.package
                path = fetch(package, progress) if package is not None else Path()
                texts = self.content.read(path)
            for offset, text in enumerate(texts):
                if text and not text.isspace():
                    yield Document(text, offset)

        return read

    def clean(self, text: str) -> str:
        """Return a document as it is to be tokenised."""
        return text if isinstance(self.content, UserText) else self.content.clean(text)

    def facts(self) -> dict[str, Any]:
        """Return what the manifest says of the source."""
        if isinstance(self.content, UserText):
            return {
                "label": self.label,
                "covers": "the user's own text",
                "licence": "the user's",
                "package": self.content.path.name,
                "synthetic": False,
            }
        return {
            "label": self.label,
            "covers": self.content.covers,
            "licence": self.content.licence,
            "package": str(self.content.package or "generated"),
            "synthetic": self.content.synthetic,
        }


def resolve(sources: Sequence[str] | None) -> list[Input]:
    """Return the inputs that ``sources`` name; None is the default set.

    Raises UsageError for a name that is neither a source nor a path, for an empty list, and for a
    label that comes twice.
    """
    if sources is None:
        return [Input(source.label, source.share, source) for source in SOURCES if source.share]
    table = {source.label: source for source in SOURCES}
    found = [
        Input(name, 1.0, table[name]) if name in table else _own(name, list(table))
        for name in map(str, sources)
    ]
    if not found:
        raise UsageError("no sources were given; leave them out to get the default set")
    labels = [source.label for source in found]
    if double := next((label for label in labels if labels.count(label) > 1), None):
        raise UsageError(
            f"two sources are labelled {double!r}: write PATH=LABEL to tell them apart"
        )
    return found


def _own(name: str, labels: Sequence[str]) -> Input:
    """Return the user's text that ``PATH``, ``PATH:FIELD`` or ``PATH:FIELD=LABEL`` names."""
    path, field, label = Path(name).expanduser(), "text", ""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UsageError(f"the path {name!a} is not UTF-8: rename the file or folder") from None
    if not path.exists() and "=" in name:
        name, _, label = name.rpartition("=")
        path = Path(name).expanduser()
    if not path.exists() and ":" in name:
        before, _, field = name.rpartition(":")
        path = Path(before).expanduser()
    if not path.exists():
        if "/" in name or "." in name:
            raise UsageError(f"there is no file or folder {name!r}")
        near = difflib.get_close_matches(name, labels, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UsageError(
            f"unknown source {name!r}: {hint}`sememe corpus --list` shows all, and a file or "
            "folder of your own is given by its path"
        )
    if not (path.is_file() or path.is_dir()):
        raise UsageError(f"{path} is neither a file nor a folder")
    return Input(
        label or path.resolve().name.split(".")[0] or path.name, 1.0, UserText(path, field)
    )
