import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sememe.models.tokenizer import pieces
from sememe.web.text import TokenText

ALPHABET = "ab 1#\n\téشَ海가🚤👩🚀\u200d\ufe0f\u20e3🏽🇩🇪\u00a0"


@settings(deadline=None)
@given(text=st.text(st.sampled_from(ALPHABET), max_size=30), cuts=st.sets(st.integers(0, 90)))
def test_pieces_are_those_of_the_whole_sequence_however_it_is_cut(text, cuts):
    data = text.encode()
    ends = sorted({cut for cut in cuts if 0 < cut < len(data)} | {len(data)})
    tokens = [data[start:stop] for start, stop in zip([0, *ends], ends, strict=False)]
    spans = TokenText(tokens).spans(range(len(tokens)))
    assert spans == [tuple(piece) for piece in pieces(tokens)]
    assert "".join(text for text, _, _ in spans) == text


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=4), max_size=12))
def test_pieces_of_any_bytes_cover_every_token_once(tokens):
    spans = TokenText(tokens).spans(range(len(tokens)))
    assert spans == [tuple(piece) for piece in pieces(tokens)]
    covered = [place for _, start, stop in spans for place in range(start, stop)]
    assert covered == list(range(len(tokens)))


def test_a_piece_has_the_largest_value_of_its_tokens():
    text = TokenText([b"\xe6", b"\xb5", b"\xb7", b" sea"])
    shown = text.pieces([3, 0, 1, 2, 0], [0.5, 1.0, 3.0, 2.0, 0.0])
    assert msgspec.to_builtins(shown) == [
        {"value": 0.5, "text": " sea", "tokens": [3]},
        {"value": 3.0, "text": "海", "tokens": [0, 1, 2]},
        {"value": 0.0, "text": "\\xE6", "tokens": [0], "broken": True},
    ]


@pytest.mark.parametrize(
    ("data", "label", "whole"),
    [(b" sea", " sea", True), (b"\xe6", "\\xE6", False), (b"\\x41", "\\x41", True)],
)
def test_labels(data, label, whole):
    text = TokenText([data])
    assert text.label(0) == label
    assert text.is_whole(0) is whole
