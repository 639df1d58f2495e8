"""Make text plain: entities, markup, control characters."""

import html
import re
from html.parser import HTMLParser

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff]")
_BARE_NUMBER = re.compile(r"(?<!&)#(\d{2,4});")
_BARE_NAME = re.compile(r"(?<![&;\w])(quot|amp|lt|gt|nbsp);")
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_COMMENT = re.compile(
    r"\s*($|\*|//|/\*|--|;|\(\*|#(?!\s*(include|define|if|ifdef|ifndef|pragma|!)))"
)
_LICENCE = re.compile(r"licen[cs]e|copyright|warrant", re.IGNORECASE)
_BLOCKS = frozenset(
    [
        "address",
        "article",
        "blockquote",
        "br",
        "dd",
        "div",
        "dl",
        "dt",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "hr",
        "header",
        "li",
        "ol",
        "p",
        "pre",
        "section",
        "table",
        "td",
        "th",
        "tr",
        "ul",
    ]
)
_SILENT = frozenset(("script", "style", "head", "title"))


def prose(text: str) -> str:
    """Return running text without entities, line-break tags and control characters."""
    text = _BARE_NAME.sub(r"&\1;", _BARE_NUMBER.sub(r"&#\1;", text))
    text = html.unescape(html.unescape(_BREAK.sub("\n", text)))
    return tidy(text.replace("\\n", "\n").replace('\\"', '"'))


def code(text: str) -> str:
    """Return program text without the broken line it begins with and without a licence header."""
    lines = tidy(text).split("\n")
    lines = lines[1:] if len(lines) > 3 else lines
    body = next((place for place, line in enumerate(lines) if not _COMMENT.match(line)), 0)
    closing = next((place + 1 for place in range(min(60, len(lines))) if "*/" in lines[place]), 0)
    if closing > body and not any("/*" in line for line in lines[:closing]):
        body = closing
    if _LICENCE.search("\n".join(lines[:body])):
        lines = lines[body:]
    return "\n".join(lines).strip("\n")


def page(text: str) -> str:
    """Return HTML from its first whole tag or line on."""
    return tidy(text[max(0, text.find("<", 0, 400)) :])


def excerpt(text: str) -> str:
    """Return a passage cut out of a running text, from its first word on."""
    return re.sub(r"^[^\w\"\u201c(\[]+", "", prose(text))


def tidy(text: str) -> str:
    """Return text without control characters, trailing spaces and long gaps."""
    text = _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n").replace("\xa0", " "))
    text = re.sub(r"[ \t]+\n", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def without_markup(markup: str) -> str:
    """Return the readable text of HTML."""
    parser = _Text()
    parser.feed(markup)
    parser.close()
    text = "".join(parser.pieces)
    return tidy(re.sub(r" *\n *", "\n", re.sub(r"[ \t]+", " ", text)))


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _SILENT:
            self._silent += 1
        elif tag in _BLOCKS:
            self.pieces.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in _SILENT:
            self._silent = max(0, self._silent - 1)
        elif tag in _BLOCKS:
            self.pieces.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.pieces.append(re.sub(r"\s+", " ", data))
