"""Readers of the sources in other languages and scripts, and of what is not language."""

import base64
import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path

from sememe.corpora.archives import members
from sememe.corpora.cleaning import tidy, without_markup
from sememe.corpora.documents import sections
from sememe.errors import SememeError

_TROPES = re.compile("[\u0591-\u05af]")
_RULES = re.compile(r"^\s*(-+ *\d* *-*|\d+)\s*$|-{4,}", re.MULTILINE)
_MESSAGES = 20
_DECLARATIONS = frozenset(
    """
    eng fra deu_1996 spa por_PT por_BR ita nld swe dan nob nno fin isl pol ces slk slv hrv
    srp_cyrl srp_latn bul mkd ukr rus bel lit lav est hun ron_2006 ell_monotonic tur aze_latn
    kaz_cyrl uzn_latn kir tat tgk arb heb pes_1 urd hin ben pan mar guj tam tel kan mal sin nep
    tha lao khm mya bod vie ind zlm_latn tgl jpn kor cmn_hans cmn_hant kat hye amh tir som swh
    hau_NG yor ibo zul xho afr eus cat glg gle cym gla bre mlt sqi epo lat ydd div khk uig_arab
    pbu ckb kmr_latn hat que_cuzco quy quz nav gug tpi smo mri haw fij ton plt wol lin sna nya
    run kin lug
    """.split()  # noqa: SIM905 - a list of 120 lines says no more
)


def scripture(languages: tuple[str, ...], path: Path) -> Iterator[str]:
    """Yield the Quran in ``languages`` (``ar`` is the text itself), about ten verses a document."""
    names = {
        ("package/dist/quran.json" if code == "ar" else f"package/dist/quran_{code}.json"): code
        for code in languages
    }
    found = 0
    for name, data in members(path, *names):
        found += 1
        field = "text" if names[name] == "ar" else "translation"
        for chapter in json.loads(data):
            title = chapter["name"] if field == "text" else chapter["translation"]
            verses = [f"{verse['id']}. {verse[field].strip()}" for verse in chapter["verses"]]
            for place in range(0, len(verses), 10):
                yield tidy("\n".join([title, *verses[place : place + 10]]))
    _expect(found == len(names), path, f"Quran in {', '.join(languages)}")


def messages(languages: tuple[str, ...], path: Path) -> Iterator[str]:
    """Yield the TypeScript compiler's messages in ``languages``, twenty a document."""
    patterns = [f"package/lib/{code}/diagnosticMessages.generated.json" for code in languages]
    found = 0
    for _, data in members(path, *patterns):
        found += 1
        lines = list(json.loads(data).values())
        for place in range(0, len(lines), _MESSAGES):
            yield "\n".join(lines[place : place + _MESSAGES])
    _expect(found == len(languages), path, f"messages in {', '.join(languages)}")


def declarations(path: Path) -> Iterator[str]:
    """Yield the Universal Declaration of Human Rights in some hundred and thirty languages."""
    found = 0
    for name, data in members(path, "package/declaration/*.html"):
        found += 1
        code = Path(name).stem
        if code in _DECLARATIONS:
            yield from sections(without_markup(data.decode()), 1_500)
    _expect(found > 400, path, "declarations")


def korean(path: Path) -> Iterator[str]:
    """Yield the constitution of Korea and bills of its National Assembly."""
    found = 0
    for _, data in members(path, "konlpy/data/corpus/*/*.txt"):
        found += 1
        text = _RULES.sub("", data.decode("utf-8"))
        text = re.sub(r"[ \t]{2,}", " ", re.sub(r"(?<=[가-힣,])\s*\n+\s*(?=[가-힣])", " ", text))
        yield from sections(tidy(re.sub(r"\n\s+", "\n", text)), 1_500)
    _expect(found > 10, path, "Korean texts")


def hebrew(books: tuple[str, ...], path: Path) -> Iterator[str]:
    """Yield chapters of Hebrew books with their vowels and without the cantillation marks."""
    wanted = [f"scriptures/json/{book}.json" for book in books]
    found = 0
    for _, data in members(path, *wanted):
        found += 1
        for chapter in _chapters(json.loads(data)):
            yield from sections(_TROPES.sub("", chapter), 1_000)
    _expect(found == len(wanted), path, f"Hebrew books {', '.join(books)}")


def _chapters(tree: object) -> Iterator[str]:
    if isinstance(tree, list) and tree and all(isinstance(leaf, str) for leaf in tree):
        yield tidy("\n".join(without_markup(verse) for verse in tree))
    elif isinstance(tree, list):
        for branch in tree:
            yield from _chapters(branch)


def chinese_poems(path: Path) -> Iterator[str]:
    """Yield Tang poems, ten a document: title, author and lines."""
    page: list[str] = []
    for _, data in members(path, "package/dist/quantangshi/poet.tang.*.json"):
        for poem in json.loads(data):
            page.append(
                "\n".join([poem.get("title", ""), poem.get("author", ""), *poem["paragraphs"]])
            )
            if len(page) == 10:
                yield "\n\n".join(page)
                page = []


def genes(path: Path) -> Iterator[str]:
    """Yield DNA of bacterial genes in FASTA form."""
    found = 0
    for _, data in members(
        path,
        "staramr/databases/data/dist/resfinder/all.fsa",
        "staramr/databases/data/dist/plasmidfinder/*.fsa",
    ):
        for record in data.decode().split(">")[1:]:
            found += 1
            yield ">" + record.strip()
    _expect(found > 1_000, path, "genes")


def hashes(path: Path) -> Iterator[str]:
    """Yield digests and keys as hexadecimal, and hex dumps of bytes that were hashed."""
    for name, data in members(path, "package/vectors/*", "package/*.json", "package/rfc*.txt"):
        if name.endswith(".dat"):
            rows = (data[place : place + 16] for place in range(0, min(len(data), 256), 16))
            dump = (f"{16 * line:08x}: {row.hex(' ', 2)}" for line, row in enumerate(rows))
            yield "\n".join(dump)
        elif name.endswith("/index.json"):
            for entry in json.loads(data):
                hashed = base64.b64decode(entry.pop("input"))[:128].hex()
                digests = {value: key for key, value in reversed(entry.items())}
                lines = (f"{key} = {value}" for value, key in reversed(digests.items()))
                yield "\n".join([f"bytes = {hashed}", *lines])
        elif name != "package/package.json":
            yield from sections(data.decode("utf-8", "replace"), 3_000)


def help_pages(path: Path) -> Iterator[str]:
    """Yield the pages of a Debian package of HTML help or documentation."""
    for _, data in members(path, "usr/share/*.html", "usr/share/*.xhtml", "usr/share/*.page"):
        markup = re.sub(r"<info>.*?</info>", "", data.decode("utf-8", "replace"), flags=re.DOTALL)
        text = without_markup(markup)
        text = text.split("\U0001f50e\ufe0e\n\n")[-1].split("\n\nHelp content debug info")[0]
        if len(text) > 200:
            yield text


def debian_files(patterns: tuple[str, ...], path: Path) -> Iterator[str]:
    """Yield the text files of a Debian package that match ``patterns``, in sections."""
    for name, data in members(path, *patterns):
        if name.endswith(".gz"):
            data = gzip.decompress(data)
        if b"\0" not in data[:8_192]:
            yield from sections(tidy(data.decode("utf-8", "replace")))


def _expect(true: bool, path: Path, what: str) -> None:
    if not true:
        raise SememeError(
            f"{path} does not hold the {what} that sememe expects; delete it and run again"
        )
