"""The built-in language model: the paper's shape, its losses, and stopping and going on."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sememe.cli import main
from sememe.corpora.build import build_corpus
from sememe.corpora.corpus import Corpus
from sememe.corpora.vocabulary import byte_tokenizer, train_tokenizer
from sememe.errors import SememeError, UsageError
from sememe.models.load import load_model
from sememe.models.reading import read
from sememe.models.transformer import TransformerConfig
from sememe.progress import Progress
from sememe.training.checkpoints import load_checkpoint
from sememe.training.history import read_history
from sememe.training.language import LanguageConfig, train_language_model
from tests.prose import prose

SHAPE = TransformerConfig(width=32, layers=1, hidden=64, heads=2, context=32, vocabulary=300)
CONFIG = LanguageConfig(SHAPE, tokens=64 * 40, rows=2, learning_rate=1e-2, checkpoint_every=7)


class StoppedError(Exception):
    """Raised in the middle of training."""


class StopAt(Progress):
    def __init__(self, steps: int) -> None:
        self.left = steps

    def advance(self, amount: int, **live: float) -> None:
        self.left -= 1
        if not self.left:
            raise StoppedError


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, Path]:
    """A corpus in a tokenizer of its own, and that tokenizer's directory."""
    path = tmp_path_factory.mktemp("language")
    sources = [str(prose(path / "text"))]
    tokenizer = train_tokenizer(path / "tokenizer", 300, sources=sources)
    corpus = build_corpus(path / "corpus", tokenizer, tokens=20_000, sources=sources)
    return corpus, path / "tokenizer"


@pytest.fixture(scope="module")
def trained(text: tuple[Corpus, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "model"
    train_language_model(*text, CONFIG, out)
    return out


def test_the_default_shape_is_the_papers_and_its_compute_is_counted_by_hand() -> None:
    shape = TransformerConfig()
    assert (shape.width, shape.hidden, shape.layers) == (128, 512, 1)
    module = shape.make(0)
    matrices = {
        name: parameter.numel()
        for name, parameter in module.named_parameters()
        if parameter.ndim == 2 and "embed_in" not in name
    }
    assert shape.weights == sum(matrices.values())
    # a token of query and key, and of weight and value, for each of 256 / 2 tokens before it
    attention = 2 * (2 * 128 * 128)
    assert shape.flops == 3 * (2 * shape.weights + attention)
    assert module.gpt_neox.layers[0].mlp.act(torch.tensor([-1.0, 2.0])).tolist() == [0.0, 2.0]


def test_a_tokenizer_of_its_own_keeps_every_byte(text: tuple[Corpus, Path]) -> None:
    tokenizer = load_tokenizer_of(text)
    for sample in ("The captain watched the sea.", "дальше\n\tслово 🙂", "\x00\xad"):
        ids = tokenizer.encode(sample)
        assert b"".join(tokenizer.bytes_of[index] for index in ids) == sample.encode()
    assert tokenizer.bos == 0
    assert len(tokenizer.encode("The captain watched the sea.")) < 20
    assert byte_tokenizer().bytes_of[byte_tokenizer().encode("a")[0]] == b"a"
    with pytest.raises(UsageError, match="vocabulary is 100; expected 257 or more"):
        train_tokenizer(Path("nowhere"), 100)


def load_tokenizer_of(text: tuple[Corpus, Path]):
    return train_tokenizer(text[1], 300, sources=[str(text[1].parent / "text")])


def test_the_tokenizer_is_trained_on_no_held_out_document(text: tuple[Corpus, Path]) -> None:
    corpus, folder = text
    of_bytes = Corpus.open(folder / "bytes")
    assert set(held_out_texts(of_bytes, byte_tokenizer())) == set(
        held_out_texts(corpus, load_tokenizer_of(text))
    )


def held_out_texts(corpus: Corpus, tokenizer) -> list[bytes]:
    found: dict[int, bytes] = {}
    for document in np.flatnonzero(corpus.held_out):
        start = int(corpus.start[document])
        ids = corpus.tokens(start, start + int(corpus.length[document]))
        offset = int(corpus.offset[document])
        piece = b"".join(tokenizer.bytes_of[index] for index in ids)
        found[offset] = found.get(offset, b"") + piece
    return list(found.values())


def test_it_learns_and_is_a_model_like_any_other(text: tuple[Corpus, Path], trained: Path) -> None:
    manifest = json.loads((trained / "manifest.json").read_text())
    assert manifest["held_out_loss"] < np.log(300) - 1
    model = load_model(str(trained), dtype="fp32")
    assert model.context == 32
    hidden = read(model, torch.tensor([[0, 5, 9]]), ["layers.0.mlp.hidden"])
    assert hidden["layers.0.mlp.hidden"].shape == (1, 3, 64)
    assert float(hidden["layers.0.mlp.hidden"].min()) == 0.0  # what the ReLUs give
    assert {site.name for site in model.sites()} >= {"layers.0.resid", "layers.0.mlp.out", "logits"}


def test_its_held_out_loss_is_that_of_the_saved_model(
    text: tuple[Corpus, Path], trained: Path
) -> None:
    """Computed anew in float64, row by row, from the documents."""
    corpus, _ = text
    manifest = json.loads((trained / "manifest.json").read_text())
    model = load_model(str(trained), dtype="fp32")
    stream: list[int] = []
    for document in np.flatnonzero(corpus.held_out):
        start = int(corpus.start[document])
        stream += [0, *corpus.tokens(start, start + int(corpus.length[document])).tolist()]
    losses = []
    for row in range(manifest["held_out_tokens"] // 32):
        ids = torch.tensor(stream[row * 32 : row * 32 + 33])
        scores = model.module.double()(input_ids=ids[None, :-1]).logits[0].log_softmax(-1)
        losses += (-scores[torch.arange(32), ids[1:]]).tolist()
    assert manifest["held_out_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert read_history(trained)[-1]["held_out_loss"] == pytest.approx(
        manifest["held_out_loss"], rel=1e-4
    )


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("steps", [3, 8, 30])
def test_stopped_and_gone_on_is_the_same_run(
    steps: int, text: tuple[Corpus, Path], trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    with pytest.raises(StoppedError):
        train_language_model(*text, CONFIG, out, progress=StopAt(steps))
    assert bool(list(out.glob("checkpoint-*"))) == (steps > 7)
    other = replace(CONFIG, learning_rate=2e-2)
    if steps > 7:
        with pytest.raises(SememeError, match=r"learning_rate=0.01, now learning_rate=0.02"):
            train_language_model(*text, other, out)
        assert load_checkpoint(out, json.loads(next(out.glob("*.json")).read_text())["run"])
    train_language_model(*text, CONFIG, out)
    assert contents(out) == contents(trained)


def test_a_finished_model_is_not_trained_again(text: tuple[Corpus, Path], trained: Path) -> None:
    before = contents(trained)
    train_language_model(*text, CONFIG, trained, progress=StopAt(1))
    assert contents(trained) == before
    with pytest.raises(SememeError, match="seed=0, now seed=1"):
        train_language_model(*text, replace(CONFIG, seed=1), trained)


def test_what_cannot_work_is_refused(text: tuple[Corpus, Path], tmp_path: Path) -> None:
    corpus, folder = text
    small = replace(CONFIG, shape=replace(SHAPE, vocabulary=290))
    with pytest.raises(UsageError, match="vocabulary is 290; the tokenizer has 300 ids"):
        train_language_model(corpus, folder, small, tmp_path)
    long = replace(CONFIG, shape=replace(SHAPE, context=100_000), tokens=200_000)
    with pytest.raises(SememeError, match="training tokens, but 100001 are needed"):
        train_language_model(corpus, folder, long, tmp_path / "long")
    wild = replace(CONFIG, learning_rate=1e30)
    with pytest.raises(SememeError, match="diverged at step"):
        train_language_model(corpus, folder, wild, tmp_path / "wild")
    with pytest.raises(UsageError, match="width is 33 and heads is 2"):
        replace(SHAPE, width=33)
    with pytest.raises(UsageError, match="tokens is 10; a step alone takes 64"):
        replace(CONFIG, tokens=10)
    other = train_tokenizer(tmp_path / "other", 280, sources=[str(folder.parent / "text")])
    assert other.vocabulary == 280
    with pytest.raises(SememeError, match="was made with tokenizer"):
        train_language_model(corpus, tmp_path / "other", CONFIG, tmp_path / "unfit")


def test_the_command_trains_with_a_tokenizer_of_its_own_or_a_models(
    tmp_path: Path, tiny_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = str(prose(tmp_path / "text", documents=30))
    words = ["train-lm", "--text", source, "--corpus-tokens", "9000", "--tokens", "2000"]
    words += ["--width", "16", "--hidden", "32", "--heads", "1", "--context", "32"]
    words += ["--vocabulary", "280", "--json"]
    for options in ([], ["--tokenizer", str(tiny_directory)]):
        out = tmp_path / f"out-{len(options)}"
        main([*words, "--out", str(out), *options])
        found = json.loads(capsys.readouterr().out)
        nats, a_byte = found["held_out_nats_a_token"], found["held_out_nats_a_byte"]
        assert a_byte == pytest.approx(nats / found["bytes_a_token"])
        model = load_model(found["out"])
        assert model.vocabulary == (512 if options else 280)
        assert model.tokenizer.bos == 0
