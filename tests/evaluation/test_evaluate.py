"""Dictionaries whose figures are known beforehand, evaluated on a real forward pass."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from sememe.activations.harvest import harvest
from sememe.activations.rules import HarvestConfig, TokenRules
from sememe.activations.store import Activations
from sememe.corpora.build import build_corpus
from sememe.corpora.corpus import Corpus, Windows
from sememe.dictionaries.config import DictionaryConfig
from sememe.dictionaries.dictionary import Dictionary
from sememe.dictionaries.nonlinearities import ReLU
from sememe.errors import SememeError, UsageError
from sememe.evaluation.evaluate import evaluate
from sememe.evaluation.splicing import EvaluateConfig, choose_windows
from sememe.models.load import LanguageModel
from tests.prose import prose

SITE = "layers.1.resid"
CONFIG = EvaluateConfig(spliced_tokens=600, spliced_share=1.0, batch_logits=200 * 512)


class Held(NamedTuple):
    model: LanguageModel
    corpus: Corpus
    train: Activations
    rows: Activations


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory, tiny_llama: LanguageModel) -> Held:
    path = tmp_path_factory.mktemp("held")
    text = prose(path / "text")
    corpus = build_corpus(
        path / "corpus", tiny_llama.tokenizer, tokens=6000, sources=[str(text)], held_out=0.3
    )
    config = HarvestConfig(context=64, dtype="fp32")
    train = harvest(tiny_llama, corpus, [SITE], path / "train", config=config)
    rows = harvest(
        tiny_llama,
        corpus,
        [SITE],
        path / "held",
        held_out=True,
        rules=TokenRules.of(train),
        config=config,
    )
    return Held(tiny_llama, corpus, train, rows)


def constant(held: Held, path: Path, value: torch.Tensor, *, site: str = SITE) -> Dictionary:
    """A dictionary that reconstructs everything as ``value``."""
    dictionary = blank(len(value), site)
    with torch.no_grad():
        dictionary.b_enc.fill_(-1)
        dictionary.b_dec.copy_(value)
    dictionary.save(path, made_from={"model": held.model.hash, "corpus": held.corpus.hash})
    return dictionary


def identity(held: Held, path: Path, width: int) -> Dictionary:
    """Two features a dimension, one for each sign: exact, and of L0 = width."""
    dictionary = blank(width, SITE)
    both = torch.cat([torch.eye(width), -torch.eye(width)])
    with torch.no_grad():
        dictionary.W_enc.copy_(both)
        dictionary.W_dec.copy_(both)
    dictionary.save(path, made_from={"model": held.model.hash, "corpus": held.corpus.hash})
    return dictionary


def blank(width: int, site: str) -> Dictionary:
    return Dictionary(
        DictionaryConfig(
            reads=(site,),
            writes=(site,),
            read_widths=(width,),
            write_widths=(width,),
            features=2 * width,
            nonlinearity=ReLU(),
            centre="none",
        )
    )


def test_the_identity_costs_nothing(tmp_path: Path, held: Held) -> None:
    dictionary = identity(held, tmp_path / "d", 32)
    report = evaluate(
        held.model, dictionary, held.rows, held.corpus, tmp_path / "report.json", config=CONFIG
    )
    assert report["fvu"] == pytest.approx(0, abs=1e-9)
    assert report["l0"] == pytest.approx(32, abs=0.01)
    assert report["loss_recovered_zero"] == pytest.approx(1, abs=1e-4)
    assert report["loss_recovered_mean"] == pytest.approx(1, abs=1e-4)
    assert report["kl"] == pytest.approx(0, abs=1e-5)
    assert report["top1_agreement"] == 1
    assert report["norm_ratio"] == pytest.approx(1, abs=1e-6)


def test_zero_and_mean_recover_nothing_of_their_own_ablation(tmp_path: Path, held: Held) -> None:
    rows = held.rows.read(SITE, 0, held.rows.rows)
    mean = constant(held, tmp_path / "mean", rows.mean(0))
    report = evaluate(
        held.model, mean, held.rows, held.corpus, tmp_path / "mean.json", config=CONFIG
    )
    assert report["fvu"] == pytest.approx(1, abs=1e-4)
    assert report["loss_recovered_mean"] == pytest.approx(0, abs=1e-3)
    assert report["l0"] == 0
    assert report["silent_share"] == 1
    zero = constant(held, tmp_path / "zero", torch.zeros(32))
    report = evaluate(
        held.model, zero, held.rows, held.corpus, tmp_path / "zero.json", config=CONFIG
    )
    assert report["loss_recovered_zero"] == pytest.approx(0, abs=1e-6)
    square = rows.double().square().sum() / (rows - rows.mean(0)).double().square().sum()
    assert report["fvu"] == pytest.approx(float(square), rel=1e-5)


def test_original_cross_entropy_is_the_models_own(tmp_path: Path, held: Held) -> None:
    """Against transformers' own loss, window by window."""
    dictionary = identity(held, tmp_path / "d", 32)
    config = EvaluateConfig(spliced_tokens=10**9, spliced_share=1.0, batch_logits=128 * 512)
    report = evaluate(
        held.model, dictionary, held.rows, held.corpus, tmp_path / "report.json", config=config
    )
    windows = held.corpus.windows(63, held_out=True)
    total, count = 0.0, 0
    for start, length in zip(windows.start.tolist(), windows.length.tolist(), strict=True):
        ids = torch.tensor([[0, *held.corpus.tokens(start, start + length).tolist()]])
        with torch.no_grad():
            loss = held.model.module(ids, labels=ids).loss
        total, count = total + float(loss) * length, count + length
    assert report["spliced_tokens"] == count
    assert report["cross_entropy"]["original"] == pytest.approx(total / count, rel=1e-4)


def test_figures_by_source_add_up(tmp_path: Path, held: Held) -> None:
    dictionary = constant(held, tmp_path / "d", torch.zeros(32))
    report = evaluate(
        held.model, dictionary, held.rows, held.corpus, tmp_path / "r.json", config=CONFIG
    )
    assert sum(part["tokens"] for part in report["by_source"].values()) == held.rows.rows
    assert sum(report["frequency_histogram"]["counts"]) == 0


def test_training_text_another_site_and_another_model_are_refused(
    tmp_path: Path, held: Held
) -> None:
    dictionary = constant(held, tmp_path / "d", torch.zeros(32))
    with pytest.raises(SememeError, match="holds training documents"):
        evaluate(held.model, dictionary, held.train, held.corpus, tmp_path / "r.json")
    other = constant(held, tmp_path / "o", torch.zeros(32), site="layers.0.resid")
    with pytest.raises(UsageError, match=r"layers\.0\.resid"):
        evaluate(held.model, other, held.rows, held.corpus, tmp_path / "r.json")
    dictionary.save(tmp_path / "x", made_from={"model": "0123"})
    with pytest.raises(UsageError, match="0123"):
        evaluate(held.model, dictionary, held.rows, held.corpus, tmp_path / "r.json")
    assert not (tmp_path / "r.json").exists()


@pytest.mark.parametrize(("tokens", "share", "expected"), [(600, 1.0, 600), (600, 0.1, 100)])
def test_as_much_text_is_spliced_as_is_asked(tokens: int, share: float, expected: int) -> None:
    lengths = np.full(100, 10)
    windows = Windows(np.arange(100) * 10, lengths, np.arange(100))
    chosen = choose_windows(windows, EvaluateConfig(spliced_tokens=tokens, spliced_share=share))
    assert len(chosen) == len(set(chosen)) == expected // 10
