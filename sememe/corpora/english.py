"""Readers of the English, code and labelled sources: package file in, documents out."""

import csv
import email
import io
import json
import re
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

from sememe.corpora.archives import members
from sememe.corpora.cleaning import prose, tidy, without_markup
from sememe.corpora.documents import sections
from sememe.corpora.labelled import labelled_rows
from sememe.errors import SememeError

_BROWN_TOKEN = re.compile(r"(\S+)/[^\s/]+")
_BROWN_FIXES = (
    (re.compile(r" ([.,;:?!)\]%]|'')"), r"\1"),
    (re.compile(r"''([.,?!])"), r"\1''"),
    (re.compile(r"(``|[(\[$]) "), r"\1"),
    (re.compile(r"``|''"), '"'),
    (re.compile(r"([.?!;:]) ?\1+"), r"\1"),
)
_CHAPTER = re.compile(r"\n(?=(?:CHAPTER \d+|Epilogue|ETYMOLOGY)\.?)")
_MARKUP = re.compile(r"<(html|meta|div|head|body)\b", re.IGNORECASE)
_ALGEBRA = re.compile(r"\d[*+-]|[*+-] ?\d|\bLet\b")
_FOLD = re.compile(r"\s*\n\s*")


def labelled(names: tuple[str, ...], target: str, path: Path) -> Iterator[str]:
    """Yield the texts of labelled sets as they are, only those of class ``target`` if not empty."""
    for text, label in labelled_rows(names, path):
        if not target or label == target:
            yield text


def other_code(path: Path) -> Iterator[str]:
    """Yield program text in languages other than C, Python and HTML."""
    for text in labelled(("161_agnews_0",), "0", path):
        if "<" not in text[:3] and not _MARKUP.search(text):
            yield text


def exercises(path: Path) -> Iterator[str]:
    """Yield sums and algebra: short exercises, ten together as on a sheet, none twice."""
    for name in (
        "70_prime-factors",
        "77_second-derivative",
        "37_arith_mc",
        "40_arith_rpn",
        "39_arith_infix",
    ):
        lines: dict[str, None] = {}
        for text, _ in labelled_rows((name,), path):
            if not name.startswith("7") or _ALGEBRA.search(text):
                lines[prose(text)] = None
        sheets = list(lines)
        for place in range(0, len(sheets), 10):
            yield "\n".join(sheets[place : place + 10])


def brown(path: Path) -> Iterator[str]:
    """Yield the 500 samples of the Brown corpus as running text, without the word classes."""
    found = 0
    for _, data in members(path, "package/c[a-r][0-9][0-9]"):
        found += 1
        paragraphs: list[str] = []
        for block in re.split(r"\n\s*\n\s*\n", data.decode("latin-1")):
            line = " ".join(_BROWN_TOKEN.findall(block))
            for pattern, replacement in _BROWN_FIXES:
                line = pattern.sub(replacement, line)
            if line:
                paragraphs.append(line)
        yield "\n\n".join(paragraphs)
    _expect(found == 500, path, "samples of the Brown corpus")


def speeches(path: Path) -> Iterator[str]:
    """Yield the State of the Union addresses."""
    found = 0
    for _, data in members(path, "package/sotu/data/*.txt"):
        found += 1
        yield from sections(prose(data.decode("utf-8", "replace")), 6_000)
    _expect(found > 200, path, "addresses")


def moby_dick(path: Path) -> Iterator[str]:
    """Yield the chapters of Moby-Dick with its lines joined to paragraphs."""
    for _, data in members(path, "package/moby-dick/data/data.txt"):
        for chapter in _CHAPTER.split(tidy(data.decode())):
            paragraphs = (_FOLD.sub(" ", paragraph) for paragraph in chapter.split("\n\n"))
            yield "\n\n".join(paragraphs)
        return
    _expect(False, path, "Moby-Dick")


def mails(path: Path) -> Iterator[str]:
    """Yield mails as they were sent, with all their headers."""
    found = 0
    for _, data in members(path, "package/spam-assassin/data/*/*.json"):
        found += 1
        yield json.loads(data)["text"]
    _expect(found > 6_000, path, "mails")


def readable_mail(text: str) -> str:
    """Return who wrote, when, about what, and the readable text; empty where there is none."""
    message = email.message_from_string(text)
    body = _mail_body(message)
    heads = [
        f"{name}: {_FOLD.sub(' ', str(message[name]))}"
        for name in ("From", "To", "Date", "Subject")
        if message[name]
    ]
    return tidy("\n".join(heads) + "\n\n" + body) if body else ""


def _mail_body(message: Message) -> str:
    for part in message.walk():
        kind = part.get_content_type()
        if kind not in ("text/plain", "text/html"):
            continue
        payload = part.get_payload()
        encoding = str(part.get("Content-Transfer-Encoding", "")).lower()
        if encoding in ("base64", "quoted-printable", "x-uuencode"):
            raw = part.get_payload(decode=True)
            payload = raw.decode("latin-1") if isinstance(raw, bytes) else ""
        text = payload if isinstance(payload, str) else ""
        if "\ufffd" in text:
            continue
        return without_markup(text) if kind == "text/html" else text
    return ""


def glosses(path: Path) -> Iterator[str]:
    """Yield WordNet's entries as a dictionary page reads: words, kind, meaning and examples."""
    kinds = {"n": "noun", "v": "verb", "a": "adjective", "s": "adjective", "r": "adverb"}
    page: list[str] = []
    found = 0
    for _, data in members(path, "package/dict/data.*"):
        found += 1
        for line in data.decode().splitlines():
            if line.startswith(" ") or " | " not in line:
                continue
            entry, _, gloss = line.partition(" | ")
            fields = entry.split()
            words = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
            names = ", ".join(re.sub(r"\(\w+\)$", "", word).replace("_", " ") for word in words)
            page.append(f"{names} ({kinds[fields[2]]}): {gloss.strip()}")
            if len(page) == 12:
                yield "\n".join(page)
                page = []
    _expect(found == 4, path, "WordNet files")


def typescript(path: Path) -> Iterator[str]:
    """Yield the type declarations of the web platform and of TypeScript, in sections."""
    for _, data in members(path, "package/lib/lib.*.d.ts", "package/lib/typescript.d.ts"):
        text = re.sub(r"^/\*!.*?\*/\s*", "", data.decode("utf-8-sig"), flags=re.S)
        yield from sections(tidy(text))


def foods(path: Path) -> Iterator[str]:
    """Yield the Indian food composition tables: one food a document, its figures as lines."""
    for _, data in members(path, "package/index.csv"):
        rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))
        names = [cell.split(";")[0].strip() for cell in rows[0]]
        codes = [cell.split(";")[-1].strip() for cell in rows[0]]
        for row in rows[1:]:
            lines = [
                f"{name}: {value}"
                for name, code, value in zip(names, codes, row, strict=True)
                if value not in ("", "0") and not code.endswith("_e")
            ]
            yield "\n".join(lines)
        return
    _expect(False, path, "the food table")


def _expect(true: bool, path: Path, what: str) -> None:
    if not true:
        raise SememeError(
            f"{path} does not hold the {what} that sememe expects; delete it and run again"
        )
