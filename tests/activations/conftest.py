"""Text that tests of activations share."""

import pytest

from sememe.corpora.build import build_corpus
from sememe.corpora.corpus import Corpus
from sememe.models.language_model import LanguageModel
from tests.prose import prose


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory, tiny_llama: LanguageModel) -> Corpus:
    """Made-up text for the tiny model, a fifth of its documents held out."""
    path = tmp_path_factory.mktemp("corpus")
    return build_corpus(
        path / "corpus",
        tiny_llama.tokenizer,
        tokens=7000,
        sources=[str(prose(path / "text"))],
        held_out=0.2,
    )
