"""A tiny model with a dictionary of a small run, and dictionaries at other sites made by hand."""

from pathlib import Path

import pytest
import torch

from sememe.dictionaries.config import DictionaryConfig
from sememe.dictionaries.dictionary import Dictionary
from sememe.dictionaries.nonlinearities import (
    BatchTopK,
    Gated,
    JumpReLU,
    Nonlinearity,
    Refined,
    ReLU,
    TopK,
)
from sememe.intervention.features import FeatureSet
from sememe.models.language_model import LanguageModel
from sememe.run import Run

KINDS = [TopK(6), BatchTopK(6), ReLU(), JumpReLU(0.5, 0.1), Gated(), Refined(TopK(6))]


@pytest.fixture(scope="session")
def model(small_run: Path) -> LanguageModel:
    return Run(small_run).load_model().exact()


@pytest.fixture(scope="session")
def features(small_run: Path) -> FeatureSet:
    return FeatureSet.open(small_run)


def random_dictionary(
    reads: str,
    writes: str,
    widths: tuple[int, int] = (32, 32),
    nonlinearity: Nonlinearity = TopK(6),  # noqa: B008 - frozen
    seed: int = 0,
) -> Dictionary:
    """Return a dictionary of 64 features with random weights, without a manifest."""
    config = DictionaryConfig(
        (reads,),
        (writes,),
        widths[:1],
        widths[1:],
        64,
        nonlinearity,
        centre="tied" if reads == writes else "none",
    )
    dictionary = Dictionary(config, [0.5], [2.0])
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in (dictionary.W_enc, dictionary.W_dec, dictionary.b_dec):
            weight.copy_(torch.randn(weight.shape, generator=generator))
        dictionary.W_dec.div_(dictionary.W_dec.norm(dim=1, keepdim=True))
    return dictionary
