import itertools
import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from sememe.artefacts import cache_folder, is_finished
from sememe.errors import SememeError, UsageError
from sememe.models.language_model import LanguageModel
from sememe.models.tokenizer import Piece, Tokenizer, pieces

RECORDED = json.loads((Path(__file__).parent / "llama_cpp.json").read_text())


def joined(tokenizer: Tokenizer, ids: list[int]) -> bytes:
    return b"".join(tokenizer.bytes_of[index] for index in ids)


def byte_level() -> Tokenizer:
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(["the sea and the ship", "日本 日 本語 на море"], trainer)
    backend.add_tokens([AddedToken("\u00e9clair", special=False)])
    return Tokenizer(backend, vocabulary=310)


def sentencepiece_like() -> Tokenizer:
    """Spaces as U+2581 and bytes as <0xNN>, in the way of Gemma and Llama 2."""
    words = ["\u2581", "a", "b", "\u2581a", "ab", "\u2581ab", "\u65e5"]
    vocabulary = ["<unk>", "<bos>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    merges = [("\u2581", "a"), ("a", "b"), ("\u2581", "ab")]
    backend = Backend(
        models.BPE(
            {token: index for index, token in enumerate(vocabulary)},
            merges,
            byte_fallback=True,
            unk_token="<unk>",
        )
    )
    backend.add_special_tokens(["<bos>"])
    backend.normalizer = normalizers.Replace(" ", "\u2581")
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return Tokenizer(backend)


BYTE_LEVEL, SENTENCEPIECE = byte_level(), sentencepiece_like()


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_the_bytes_of_the_tokens_are_the_text(text: str) -> None:
    for tokenizer in (BYTE_LEVEL, SENTENCEPIECE):
        assert joined(tokenizer, tokenizer.encode(text)) == text.encode()
        assert tokenizer.encode_batch([text, "a"]) == [
            tokenizer.encode(text),
            tokenizer.encode("a"),
        ]


@given(st.lists(st.binary(max_size=5), max_size=12))
def test_pieces_cover_every_token_once_and_mark_nothing_lost(tokens: list[bytes]) -> None:
    found = pieces(tokens)
    assert [piece.start for piece in found] == [0, *(piece.stop for piece in found)][: len(found)]
    assert (found[-1].stop if found else 0) == len(tokens)
    text = b"".join(tokens)
    if b"\xef\xbf\xbd" not in text:
        assert "\ufffd" not in "".join(piece.text for piece in found)
    if b"\\" not in text:
        shown = "".join(piece.text for piece in found).encode()
        assert b"\\x" not in text
        restored = bytearray()
        at = 0
        while at < len(shown):
            if shown[at : at + 2] == b"\\x":
                restored.append(int(shown[at + 2 : at + 4], 16))
                at += 4
            else:
                restored.append(shown[at])
                at += 1
        assert bytes(restored) == text


@given(st.text(), st.data())
def test_pieces_of_whole_text_are_the_text(text: str, data: st.DataObject) -> None:
    """However text is cut into tokens, its pieces are whole characters in order."""
    encoded = text.encode()
    cuts = data.draw(st.lists(st.integers(0, len(encoded)), max_size=20))
    edges = [0, *sorted(cuts), len(encoded)]
    tokens = [encoded[a:b] for a, b in itertools.pairwise(edges)]
    assert "".join(piece.text for piece in pieces(tokens)) == text


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([b"a", b"b"], [("a", 0, 1), ("b", 1, 2)]),
        ([b"\xe4\xbd", b"\xa0", b"\xe5\xa5", b"\xbd"], [("你", 0, 2), ("好", 2, 4)]),
        ([b"\xec", b"\x95", b"\x88"], [("안", 0, 3)]),
        ([b"x\xe4\xbd", b"\xa0y", b"z"], [("x你y", 0, 2), ("z", 2, 3)]),
        ([b"\xad", b"\xbd", b"ok"], [("\\xAD", 0, 1), ("\\xBD", 1, 2), ("ok", 2, 3)]),
        ([b"ok", b"\xe4\xbd"], [("ok", 0, 1), ("\\xE4\\xBD", 1, 2)]),
        ([b"\xe4\xbd", b"abc"], [("\\xE4\\xBD", 0, 1), ("abc", 1, 2)]),
        ([b"\xe4", b"\xbd", b"abc"], [("\\xE4", 0, 1), ("\\xBD", 1, 2), ("abc", 2, 3)]),
        ([b"\xf0\x9f", b"\x98", b"\x80!"], [("😀!", 0, 3)]),
        ([b"\xff", b"\xc0\x80"], [("\\xFF", 0, 1), ("\\xC0\\x80", 1, 2)]),
        ([b"", b"a", b""], [("", 0, 1), ("a", 1, 2), ("", 2, 3)]),
        ([b"\x00", b"\n"], [("\x00", 0, 1), ("\n", 1, 2)]),
        ([], []),
    ],
)
def test_pieces_of_cut_characters(
    tokens: list[bytes], expected: list[tuple[str, int, int]]
) -> None:
    assert pieces(tokens) == [Piece(*piece) for piece in expected]


def test_pieces_keep_emoji_sequences_whole_and_arabic_vowels_apart() -> None:
    family = "👩‍👩‍👧"
    assert pieces([c.encode() for c in family]) == [Piece(family, 0, 5)]
    assert pieces([bytes([b]) for b in family.encode()]) == [Piece(family, 0, len(family.encode()))]
    assert [p.text for p in pieces([c.encode() for c in "👍🏽!🏳️‍🌈🇫🇷🇩🇪1️⃣"])] == [
        *("👍🏽", "!", "🏳️‍🌈", "🇫🇷", "🇩🇪", "1️⃣"),
    ]
    vowels = "بِسْ"
    assert [p.text for p in pieces([c.encode() for c in vowels])] == list(vowels)
    persian = "می\u200cخواهم"  # a zero-width non-joiner is no emoji
    assert len(pieces([c.encode() for c in persian])) == len(persian)


@pytest.mark.parametrize("name", list(RECORDED["models"]))
def test_ids_equal_llama_cpp(name: str, request: pytest.FixtureRequest) -> None:
    """68 texts, recorded as tests/models/llama_cpp.json says."""
    tokenizer = request.getfixturevalue(name.replace("-", "_") + "_tokenizer")
    for text, ids in zip(RECORDED["texts"], RECORDED["models"][name]["ids"], strict=True):
        assert tokenizer.encode(text) == ids, text
        assert joined(tokenizer, ids) == text.encode()


@pytest.fixture(scope="session", name="smollm2_135m_tokenizer")
def smollm2_tokenizer(smollm2: LanguageModel) -> Tokenizer:
    return smollm2.tokenizer


@pytest.fixture(scope="session", name="gemma3_270m_tokenizer")
def gemma3_tokenizer() -> Tokenizer:
    directory = cache_folder() / "models" / "gemma3-270m"
    if not is_finished(directory):
        pytest.skip("run `sememe sites gemma3-270m --accept-terms` once to have this test")
    return Tokenizer.open(directory)


def test_control_tokens_are_never_made_from_text() -> None:
    text = "a <|end|> b"
    ids = BYTE_LEVEL.encode(text)
    end = BYTE_LEVEL.bytes_of.index(b"<|end|>")
    assert BYTE_LEVEL.special == {end}
    assert end not in ids
    assert joined(BYTE_LEVEL, ids) == text.encode()
    assert 1 not in SENTENCEPIECE.encode("<bos>")


def test_an_added_word_keeps_its_literal_text() -> None:
    ids = BYTE_LEVEL.encode("\u00e9clair")
    assert [BYTE_LEVEL.bytes_of[index] for index in ids] == ["\u00e9clair".encode()]


def test_ids_that_only_the_model_has_stand_for_nothing() -> None:
    assert BYTE_LEVEL.vocabulary == 310 == len(BYTE_LEVEL.bytes_of)
    assert BYTE_LEVEL.bytes_of[309] == b""


def test_bos_is_what_the_tokenizer_puts_first(
    tiny_llama: LanguageModel, smollm2: LanguageModel
) -> None:
    assert tiny_llama.tokenizer.bos == 0
    assert 0 not in tiny_llama.tokenizer.encode("The sea")
    assert smollm2.tokenizer.bos is None
    assert BYTE_LEVEL.bos is None


def test_half_a_surrogate_pair_is_refused_and_nul_is_text() -> None:
    for text in ("ab\ud83d", "ab\udc00cd"):
        with pytest.raises(
            UsageError, match=r"half of a surrogate pair \(U\+D.{3}\) at character 2"
        ):
            BYTE_LEVEL.encode(text)
        with pytest.raises(UsageError, match="surrogate"):
            BYTE_LEVEL.encode_batch(["fine", text])
    assert joined(BYTE_LEVEL, BYTE_LEVEL.encode("a\x00b")) == b"a\x00b"
    assert BYTE_LEVEL.encode("") == []


@pytest.mark.parametrize("unit", ["a", " ab", "日", "\n"])
def test_long_lines_take_linear_time(smollm2: LanguageModel, unit: str) -> None:
    """Eight times the text must not take 64 times as long, in processor time."""

    def seconds(length: int) -> float:
        text = unit * (length // len(unit))
        return min(_seconds(smollm2.tokenizer, text) for _ in range(2))

    assert seconds(240_000) < 24 * max(seconds(30_000), 0.002)


def _seconds(tokenizer: Tokenizer, text: str) -> float:
    started = time.process_time()
    tokenizer.encode(text)
    return time.process_time() - started


def test_the_hash_follows_what_splits_text(tmp_path: Path, tiny_directory: Path) -> None:
    first = Tokenizer.open(tiny_directory)
    assert first.hash == Tokenizer.open(tiny_directory, vocabulary=600).hash
    saved = json.loads((tiny_directory / "tokenizer.json").read_text())
    saved["model"]["merges"].pop()
    (tmp_path / "tokenizer.json").write_text(json.dumps(saved))
    assert Tokenizer.open(tmp_path).hash != first.hash
    assert first.hash != BYTE_LEVEL.hash


def test_a_broken_or_missing_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(SememeError, match=r"tokenizer\.json does not exist"):
        Tokenizer.open(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(SememeError, match=r"tokenizer\.json is not a tokenizer"):
        Tokenizer.open(tmp_path)
