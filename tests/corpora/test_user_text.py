import json
import time

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from sememe.corpora import build_corpus
from sememe.corpora.inputs import resolve
from sememe.corpora.user_text import UserText, read_file
from sememe.errors import SememeError, UsageError
from tests.corpora.conftest import prose

TEXTS = ["first", "zwei\nlines", "語 and 😀", "", "last"]


def write(path, texts=TEXTS, field="text"):
    """Write documents in the form that the name asks for."""
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table({"n": range(len(texts)), field: texts}), path)
        return path
    data = "\n".join(json.dumps({field: text, "n": 1}) for text in texts).encode()
    path.write_bytes(zstandard.compress(data) if path.suffix == ".zst" else data)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.zst", "a.parquet", "A.JSONL"])
def test_every_form_gives_its_documents(tmp_path, name):
    assert list(read_file(write(tmp_path / name))) == TEXTS
    assert list(read_file(write(tmp_path / name, field="body"), "body")) == TEXTS


def test_a_zstd_file_of_several_frames_is_read_whole(tmp_path):
    texts = [prose(n, 300_000) if n == 1 else f"text {n}" for n in range(4)]
    lines = [json.dumps({"text": text}).encode() + b"\n" for text in texts]
    frames = [zstandard.compress(lines[0] + lines[1][:99]), zstandard.compress(lines[1][99:])]
    frames.append(zstandard.compress(lines[2] + lines[3]))
    (tmp_path / "a.jsonl.zst").write_bytes(b"".join(frames))
    assert list(read_file(tmp_path / "a.jsonl.zst")) == texts


def test_a_plain_file_is_its_sections(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("\ufeff" + prose(1, 30_000), encoding="utf-8")
    found = list(read_file(path))
    assert len(found) > 10
    assert "".join(found) == prose(1, 30_000)


def test_a_folder_gives_its_text_files_in_order_and_names_the_rest(tmp_path, notes):
    (tmp_path / "sub").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / "b.md").write_text("bee")
    (tmp_path / "sub" / "a.txt").write_text("ay")
    (tmp_path / ".git" / "c.txt").write_text("hidden")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\0\0")
    write(tmp_path / "lines.jsonl", ["one", "two"])
    assert list(UserText(tmp_path).read(notes)) == ["bee", "one", "two", "ay"]
    assert len(notes.said) == 1
    assert "1 files that are not text: picture.png" in notes.said[0]


def test_identity_is_that_of_names_contents_and_field(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text("same")
    left, right = (UserText(tmp_path / name) for name in ("one", "two"))
    assert left.identity() == right.identity()
    assert UserText(tmp_path / "one", "body").identity() != left.identity()
    (tmp_path / "two" / "a.txt").write_text("other")
    assert left.identity() != right.identity()
    (tmp_path / "two" / "a.txt").rename(tmp_path / "two" / "b.txt")
    (tmp_path / "two" / "b.txt").write_text("same")
    assert left.identity() != right.identity()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", b"abc\0def", "a.txt is not text: it has a NUL byte at byte 3"),
        ("a.txt", b"abc\xff", "a.txt is not UTF-8 text: invalid byte 0xff at byte 3"),
        ("a.txt", "abc".encode("utf-16"), "a.txt is UTF-16"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "b\\u0000"}', "line 2 is not text: it has a NUL"),
        ("a.jsonl", b'{"text": "a"}\n\0', "line 2 is not text: it has a NUL"),
        ("a.jsonl", b'{"text": "\\ud800x"}', "line 1 is not text: .*surrogate '.ud800'.* 0"),
        ("a.jsonl", b'{"text": "\xff"}', "line 1 is not UTF-8"),
        ("a.jsonl", b'{"text": "a"}\n{oops', "line 2 is not JSON"),
        ("a.jsonl", b"[" * 100_000, "line 1 is not JSON"),
        ("a.jsonl", b'"text"', "line 1 holds str"),
        ("a.jsonl", b'{"body": "a"}', r"no field 'text' \(it has body\)"),
        ("a.jsonl", b'{"text": 3}', "field 'text' is int"),
        ("a.jsonl.zst", b"plain text", "a.jsonl.zst is not a zstd file"),
        ("a.jsonl.zst", zstandard.compress(b'{"text": "a"}\n' * 9_999)[:-40], "damaged"),
        ("a.parquet", b"no parquet at all", "a.parquet is not a Parquet file"),
    ],
)
def test_what_is_not_text_is_named(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UsageError, match=message):
        list(read_file(tmp_path / name))


def test_a_parquet_column_must_be_there_and_text(tmp_path):
    path = write(tmp_path / "a.parquet")
    with pytest.raises(UsageError, match=r"no column 'body' \(it has n, text\)"):
        list(read_file(path, "body"))
    with pytest.raises(UsageError, match="column 'n' is int64"):
        list(read_file(path, "n"))
    with pytest.raises(UsageError, match="row 2 is not text: it has a NUL"):
        list(read_file(write(tmp_path / "b.parquet", ["a", "b\0"])))


def test_an_unreadable_file_is_an_error(tmp_path):
    with pytest.raises(SememeError, match="cannot read"):
        list(read_file(tmp_path / "none.txt"))


@pytest.mark.parametrize("text", ["x" * 10_000_000, "a word " * 1_430_000, "語" * 3_400_000])
@pytest.mark.parametrize("suffix", [".txt", ".jsonl"])
def test_a_line_of_ten_megabytes_takes_seconds(tmp_path, tokenizer, text, suffix):
    path = tmp_path / f"long{suffix}"
    path.write_text(text if suffix == ".txt" else json.dumps({"text": text}))
    started = time.process_time()
    corpus = build_corpus(
        tmp_path / "c", tokenizer, tokens=3_000, sources=[str(path)], held_out=0.0
    )
    assert time.process_time() - started < 60
    assert 0 < len(corpus) <= 3_000


def test_specifications_of_own_text(tmp_path):
    path = write(tmp_path / "some.notes.jsonl")
    odd = tmp_path / "odd=name:x.txt"
    odd.write_text("text")
    found = resolve([str(path), f"{path}:body=mine", f"{path}=yours", str(odd), "web"])
    assert [source.label for source in found] == ["some", "mine", "yours", "odd=name:x", "web"]
    assert [source.content.field for source in found[:4]] == ["text", "body", "text", "text"]
    assert {source.content.path for source in found[:3]} == {path}
    assert found[3].content.path == odd
