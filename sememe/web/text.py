"""Token ids as text a person can read: bytes of one character joined, nothing replaced or lost."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sememe.models.tokenizer import pieces

Json = dict[str, Any]


class TokenText:
    """The text of a vocabulary's tokens, alone and in sequences.

    Attributes:
        vocabulary: The bytes of every token, by token id.
    """

    def __init__(self, vocabulary: Sequence[bytes]) -> None:
        self.vocabulary = vocabulary
        self.label = lru_cache(maxsize=1 << 16)(self._label)
        self._plain = [_plain(data) for data in vocabulary]

    def _label(self, token: int) -> str:
        return "".join(piece.text for piece in pieces([self.vocabulary[token]]))

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
        joined = pieces([self.vocabulary[token] for token in tokens[start:stop]])
        return [(piece.text, start + piece.start, start + piece.stop) for piece in joined]

    def pieces(self, tokens: Sequence[int], values: Sequence[float]) -> list[Json]:
        """Return the pieces of ``tokens`` with the largest of their tokens' ``values``."""
        plain = [self._plain[token] for token in tokens]
        if None not in plain:
            # Most windows; a page shows thousands of tokens, so this path is kept short.
            return [
                {"text": text, "tokens": [token], "value": value and round(value, 4)}
                for text, token, value in zip(plain, tokens, values, strict=True)
            ]
        return [
            {**self.piece(tokens[start:stop], text), "value": round(max(values[start:stop]), 4)}
            for text, start, stop in self.spans(tokens)
        ]

    def piece(self, tokens: Sequence[int], text: str) -> Json:
        """Return a piece; ``broken`` says that its text has escapes for bytes of no character."""
        shown: Json = {"text": text, "tokens": list(tokens)}
        if len(tokens) > 1 or self._plain[tokens[0]] is None:
            try:
                b"".join(self.vocabulary[token] for token in tokens).decode()
            except UnicodeDecodeError:
                shown["broken"] = True
        return shown


def _plain(data: bytes) -> str | None:
    """The text of a token of whole characters none of which joins those beside it, else None."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return text if text.isascii() or text.strip(" ").isalpha() else None
