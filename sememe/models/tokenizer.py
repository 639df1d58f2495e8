"""Text to token ids and back to bytes, without loading a model or importing torch."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import tokenizers
import xxhash

from sememe.errors import SememeError, UsageError

_SPACE = "\u2581"
_ZERO_WIDTH_JOINER = "\u200d"


class Tokenizer:
    """A fast tokenizer that keeps the bytes of every token.

    Text is encoded as plain text: no beginning-of-sequence token is added, and text that happens to
    spell a control token such as ``<|endoftext|>`` is split into ordinary tokens.
    """

    bytes_of: list[bytes]
    """The bytes that each token id stands for; a control token's are its literal text, and ids that
    the model has but the tokenizer never makes have none."""
    special: frozenset[int]
    """Control tokens: never made from plain text."""
    bos: int | None
    """The token that the model's own tokenizer puts before every text; None where it puts none."""
    vocabulary: int
    """How many ids there are, unused ones included."""
    hash: str
    """The xxh3 of everything that decides how text is split."""
    chat_template: str | None
    """The Jinja template that the model's chats are written by; None where it has none."""

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        vocabulary: int = 0,
        chat_template: str | None = None,
    ) -> None:
        """Take over ``backend``; ``vocabulary`` is the model's, where that is larger."""
        self._backend = backend
        self._backend.no_padding()
        self._backend.no_truncation()
        with_special = self._backend.encode("", add_special_tokens=True).ids
        self._backend.encode_special_tokens = True
        added = self._backend.get_added_tokens_decoder()
        self.special = frozenset(index for index, token in added.items() if token.special)
        leading = [index for index in with_special[:1] if index in self.special]
        self.bos = leading[0] if leading else None
        self.bytes_of = _token_bytes(self._backend, vocabulary)
        self.vocabulary = len(self.bytes_of)
        self.chat_template = chat_template
        self.hash = xxhash.xxh3_128_hexdigest(self._backend.to_str().encode())

    @classmethod
    def open(cls, directory: Path, *, vocabulary: int = 0) -> "Tokenizer":
        """Load ``tokenizer.json`` of a model directory; SememeError if it is missing or broken."""
        path = directory / "tokenizer.json"
        if not path.is_file():
            raise SememeError(f"{path} does not exist: the directory has no fast tokenizer")
        try:
            backend = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the Rust side raises bare Exception
            raise SememeError(f"{path} is not a tokenizer: {error}") from None
        return cls(backend, vocabulary=vocabulary, chat_template=_chat_template(directory))

    def to_json(self) -> str:
        """Return what ``tokenizer.json`` holds."""
        return self._backend.to_str(pretty=True)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of ``text``, no special token added.

        NUL characters are text like any other. UsageError where the text holds half of a surrogate
        pair, which no encoding of text can store.
        """
        _refuse_surrogates(text)
        return list(self._backend.encode(text, add_special_tokens=False).ids)

    def encode_marked(self, text: str) -> list[int]:
        """Return the token ids of ``text``, in which control tokens are spelled out."""
        _refuse_surrogates(text)
        backend = tokenizers.Tokenizer.from_str(self._backend.to_str())
        return list(backend.encode(text, add_special_tokens=False).ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, on all cores; the same ids as :meth:`encode`."""
        for text in texts:
            _refuse_surrogates(text)
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [list(encoding.ids) for encoding in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``, with ``\\xE4`` escapes for bytes that are no character."""
        return _show(b"".join(self.bytes_of[index] for index in ids))


def _chat_template(directory: Path) -> str | None:
    """Return the chat template that lies in a model's directory, in either of its two places."""
    path, config = directory / "chat_template.jinja", directory / "tokenizer_config.json"
    if path.is_file():
        return path.read_text()
    found = json.loads(config.read_text()).get("chat_template") if config.is_file() else None
    return found if isinstance(found, str) else None


class Piece(NamedTuple):
    """Neighbouring tokens that are shown as one: ``tokens[start:stop]``."""

    text: str
    """What to show; bytes that are no character appear as ``\\xE4`` escapes."""
    start: int
    stop: int


def pieces(token_bytes: Sequence[bytes]) -> list[Piece]:
    """Group tokens so that every character is whole: one piece for tokens that share a character.

    Emoji sequences (zero-width joiners, variation selectors, skin tones, flags, keycaps) stay
    together; marks of scripts, such as Arabic vowels, remain pieces of their own. Bytes of a
    character that is cut off at either end, or that are broken, become escapes in pieces of their
    own token.
    """
    found: list[Piece] = []
    start = 0
    while start < len(token_bytes):
        stop, data = _whole(token_bytes, start)
        piece = Piece(_show(data), start, stop)
        if found and _is_one_emoji(found[-1].text, piece.text):
            piece = Piece(found[-1].text + piece.text, found[-1].start, stop)
            found.pop()
        found.append(piece)
        start = stop
    return found


def _whole(token_bytes: Sequence[bytes], start: int) -> tuple[int, bytes]:
    """Join tokens from ``start`` on until no character is left open, if that can be."""
    data, stop = token_bytes[start], start + 1
    joined = [data]
    open_bytes = _open_bytes(data)
    while open_bytes and stop < len(token_bytes):
        following = token_bytes[stop]
        open_bytes = _open_bytes(open_bytes + following, fits=True)
        if open_bytes is None:
            return start + 1, data
        joined.append(following)
        stop += 1
    if open_bytes:
        return start + 1, data
    return stop, b"".join(joined)


def _open_bytes(data: bytes, *, fits: bool = False) -> bytes | None:
    """Return the unfinished character at the end of ``data``: empty where there is none.

    With ``fits``, None means that ``data`` does not begin with a character or the start of one.
    """
    if fits and data:
        try:
            data[: _expected(data[0])].decode()
        except UnicodeDecodeError as error:
            if error.start != 0 or error.reason != "unexpected end of data":
                return None
    for back in range(1, min(4, len(data)) + 1):
        if data[-back] & 0xC0 == 0x80:
            continue
        if data[-back] < 0xC0 or _expected(data[-back]) <= back:
            return b""
        try:
            data[-back:].decode()
        except UnicodeDecodeError as error:
            return data[-back:] if error.reason == "unexpected end of data" else b""
        return b""
    return b""


def _expected(lead: int) -> int:
    """Return how many bytes the character that begins with ``lead`` has."""
    return 1 if lead < 0xC0 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4


def _show(data: bytes) -> str:
    text = data.decode(errors="surrogateescape")
    if text.isascii():
        return text
    return "".join(f"\\x{ord(c) - 0xDC00:02X}" if "\udc80" <= c <= "\udcff" else c for c in text)


def _is_one_emoji(left: str, right: str) -> bool:
    """Whether a sequence of emoji goes on from ``left`` into ``right``."""
    if not left or not right:
        return False
    last, first = left[-1], right[0]
    if first in ("\ufe0f", "\u20e3") or "\U0001f3fb" <= first <= "\U0001f3ff":
        return True
    if first == _ZERO_WIDTH_JOINER:
        return _is_pictograph(last) or last == "\ufe0f"
    if last == _ZERO_WIDTH_JOINER:
        return _is_pictograph(first)
    if _is_flag_letter(first):
        letters = len(left) - len(left.rstrip(_FLAG_LETTERS))
        return letters % 2 == 1
    return False


_FLAG_LETTERS = "".join(map(chr, range(0x1F1E6, 0x1F200)))


def _is_flag_letter(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _is_pictograph(character: str) -> bool:
    return "\u2190" <= character <= "\u2bff" or "\U0001f000" <= character <= "\U0001faff"


def _refuse_surrogates(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"text has half of a surrogate pair (U+{ord(text[error.start]):04X}) at character "
            f"{error.start}, which is no character: remove it, or read the file with the encoding "
            "that it was written in"
        ) from None


def _byte_alphabet() -> dict[str, int]:
    """Return the printable stand-in of every byte, as byte-level vocabularies write them.

    Printable Latin-1 characters stand for themselves; the others are numbered from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {
        chr(0x100 + index): byte for index, byte in enumerate(others)
    }


def _token_bytes(backend: tokenizers.Tokenizer, vocabulary: int) -> list[bytes]:
    byte_level = "ByteLevel(" in f"{backend.decoder} {backend.pre_tokenizer}"
    alphabet = _byte_alphabet()
    added = backend.get_added_tokens_decoder()
    tokens = backend.get_vocab(with_added_tokens=True)
    result = [b""] * max(vocabulary, 1 + max(tokens.values(), default=-1))
    for token, index in tokens.items():
        if index in added:
            result[index] = added[index].content.encode()
        elif byte_level and all(character in alphabet for character in token):
            result[index] = bytes(alphabet[character] for character in token)
        elif not byte_level and (byte := _fallback_byte(token)) is not None:
            result[index] = bytes([byte])
        else:
            result[index] = token.replace(_SPACE, " ").encode()
    return result


def _fallback_byte(token: str) -> int | None:
    """Return the byte of a token such as ``<0xE4>``."""
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        try:
            return int(token[3:5], 16)
        except ValueError:
            return None
    return None
