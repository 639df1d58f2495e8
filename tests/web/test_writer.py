"""Pieces of a text add up to the text up to its first stop, and none shows a part of a stop."""

from hypothesis import given
from hypothesis import strategies as st

from sememe.web.writer import Writer

BYTES = [bytes([number]) for number in range(256)]


@given(
    st.text(alphabet="ab\n帽é", max_size=30),
    st.lists(st.text(alphabet="ab\n帽", min_size=1, max_size=4), max_size=4),
)
def test_pieces_add_up_to_the_text_before_the_first_stop(text: str, stops: list[str]) -> None:
    writer = Writer(BYTES, stops)
    pieces = [writer.write(byte) for byte in text.encode()]
    pieces.append(writer.write(None))
    # stops end where their last character is written; of those that end there the first counts
    ends = [end for end in range(len(text) + 1) if any(text[:end].endswith(stop) for stop in stops)]
    expected, stopped = text, False
    if ends:
        begun = [ends[0] - len(stop) for stop in stops if text[: ends[0]].endswith(stop)]
        expected, stopped = text[: min(begun)], True
    assert "".join(pieces) == expected
    shown = ""
    for piece in pieces:
        shown += piece
        assert expected.startswith(shown)
    assert writer.finish == "stop"
    assert (writer.write(97) == "") is True
    assert stopped == (len(expected) < len(text))


@given(st.binary(max_size=12))
def test_broken_bytes_are_shown_as_python_shows_them(data: bytes) -> None:
    writer = Writer(BYTES, [])
    shown = "".join(writer.write(byte) for byte in data) + writer.end("length")
    assert shown == data.decode(errors="replace")
    assert (writer.tokens, writer.finish) == (len(data), "length")
