"""Token ids as text a person can read: bytes of one character joined, nothing replaced or lost."""

import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache

from msgspec import UNSET, UnsetType

from sememe.models.tokenizer import Piece as TokenPiece
from sememe.models.tokenizer import pieces
from sememe.web.answers import Piece


class TokenText:
    """The text of a vocabulary's tokens, alone and in sequences.

    Attributes:
        vocabulary: The bytes of every token, by token id.
    """

    def __init__(self, vocabulary: Sequence[bytes]) -> None:
        self.vocabulary = vocabulary
        self.label = lru_cache(maxsize=1 << 16)(self._label)
        self._plain = [_plain(data) for data in vocabulary]
        self._joining = {token for token, text in enumerate(self._plain) if text is None}
        self._silent = _Made(self._silent_piece)
        self._joined = lru_cache(maxsize=1 << 16)(self._join_anew)

    def _label(self, token: int) -> str:
        return "".join(piece.text for piece in pieces([self.vocabulary[token]]))

    def _silent_piece(self, token: int) -> Piece:
        return Piece(self._plain[token] or self.label(token), [token], 0.0, self.broken([token]))

    def is_whole(self, token: int) -> bool:
        """Whether the token's bytes are whole characters."""
        return self._plain[token] is not None or not self.label(token).startswith("\\x")

    def labels(self, tokens: Sequence[int], limit: int) -> list[str]:
        """Return the text of the first ``limit`` of ``tokens``, leaving out padding (-1)."""
        return [self.label(int(token)) for token in tokens[:limit] if token >= 0]

    def spans(self, tokens: Sequence[int]) -> list[tuple[str, int, int]]:
        """Return (text, start, stop) of the pieces of ``tokens``, in order and without gaps.

        A piece is one token, or the run of tokens that are bytes of the same character.
        """
        plain = [self._plain[token] for token in tokens]
        found: list[tuple[str, int, int]] = []
        start = 0
        for place, text in enumerate(plain):
            # Two plain neighbours share no character; one before others may (a keycap's digit).
            if text is None or (place + 1 < len(plain) and plain[place + 1] is None):
                continue
            if start < place:
                found += self._join(tokens, start, place)
            found.append((text, place, place + 1))
            start = place + 1
        return found + self._join(tokens, start, len(tokens))

    def _join(self, tokens: Sequence[int], start: int, stop: int) -> list[tuple[str, int, int]]:
        if start == stop:
            return []
        return [
            (text, start + first, start + last)
            for text, first, last in self._joined(tuple(tokens[start:stop]))
        ]

    def _join_anew(self, tokens: tuple[int, ...]) -> list[TokenPiece]:
        return [*pieces([self.vocabulary[token] for token in tokens])]

    def pieces(self, tokens: Sequence[int], values: Sequence[float]) -> list[Piece]:
        """Return the pieces of ``tokens`` with the largest of their tokens' ``values``."""
        # A page shows thousands of tokens, so this is kept short.
        plain, silent = self._plain, self._silent
        if self._joining.isdisjoint(tokens):
            return [
                Piece(plain[token], [token], round(value, 4)) if value else silent[token]  # type: ignore[arg-type]
                for token, value in zip(tokens, values, strict=True)
            ]
        found = []
        for text, start, stop in self.spans(tokens):
            value = max(values[start:stop])
            if stop == start + 1 and not value:
                found.append(silent[tokens[start]])
            else:
                ids = tokens[start:stop]
                found.append(Piece(text, list(ids), round(value, 4), self.broken(ids)))
        return found

    def broken(self, tokens: Sequence[int]) -> bool | UnsetType:
        """Return True where a piece's text has escapes for bytes of no character, else UNSET."""
        if len(tokens) > 1 or self._plain[tokens[0]] is None:
            try:
                b"".join(self.vocabulary[token] for token in tokens).decode()
            except UnicodeDecodeError:
                return True
        return UNSET


class _Made(dict[int, Piece]):
    """Pieces that are made when first asked for."""

    def __init__(self, make: Callable[[int], Piece]) -> None:
        super().__init__()
        self.make = make

    def __missing__(self, token: int) -> Piece:
        return self.setdefault(token, self.make(token))


def _plain(data: bytes) -> str | None:
    """The text of a token of whole characters none of which joins those beside it, else None."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return text if text.isascii() or all(map(_stands_alone, text)) else None


def _stands_alone(character: str) -> bool:
    """Whether a character is no part of an emoji of several: letters, digits, punctuation."""
    if character.isascii() or character.isalpha():
        return True
    pictographs = "\u2190" <= character < "\u3000" or character >= "\ufe00"
    return not pictographs and unicodedata.category(character)[0] in "NPZ"
