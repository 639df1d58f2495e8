"""Text as it is written token by token: whole characters only, and never a part of a stop."""

import codecs
from collections.abc import Sequence
from typing import Literal

Finish = Literal["stop", "length"]


class Writer:
    """Turns the tokens of one text into pieces that may be shown.

    A piece is held back while it may be the beginning of a stop, and a character until all of its
    bytes are there.
    """

    def __init__(self, bytes_of: Sequence[bytes], stops: Sequence[str]) -> None:
        self._bytes_of = bytes_of
        self._stops = [stop for stop in stops if stop]
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.tokens = 0
        self.finish: Finish | None = None
        """Why it ended; None while it goes on."""

    def write(self, token: int | None) -> str:
        """Take the next token, None at the end of the text; return what may be shown now."""
        if self.finish:
            return ""
        if token is None:
            return self.end("stop")
        self.tokens += 1
        self._held += self._decoder.decode(self._bytes_of[token])
        ends = [place for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if ends:
            self.finish = "stop"
            return self._held[: min(ends)]
        begun = max((_begun(self._held, stop) for stop in self._stops), default=0)
        shown = self._held[: len(self._held) - begun]
        self._held = self._held[len(shown) :]
        return shown

    def end(self, finish: Finish) -> str:
        """End the text, and return what was held back."""
        if self.finish:
            return ""
        self.finish = finish
        return self._held + self._decoder.decode(b"", final=True)


def _begun(text: str, stop: str) -> int:
    """Return how many characters at the end of ``text`` are the beginning of ``stop``."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
