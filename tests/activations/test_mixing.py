"""How well streams mix documents, which are long runs of similar rows."""

import pytest
import torch

from sememe.activations.mixing import measure
from sememe.activations.store import Activations
from sememe.activations.stream import BUFFER, Stream
from tests.activations.stores import SITE, make_store

ROWS = 5 * BUFFER // 2
DOCUMENT = 300


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Activations:
    """Larger than the default buffer; rows are their document's vector and as much noise."""
    generator = torch.Generator().manual_seed(0)
    document = torch.arange(ROWS) // DOCUMENT
    centres = 0.5 + torch.randn(int(document[-1]) + 1, 4, generator=generator)
    values = (centres[document] + torch.randn(ROWS, 4, generator=generator)).half()
    shards = [ROWS // 8] * 8
    return make_store(tmp_path_factory.mktemp("long"), values, shards, document=document.int())


@pytest.mark.parametrize("batch", [256, 2048, 4096])
def test_the_default_buffer_mixes_like_a_true_permutation(store: Activations, batch: int) -> None:
    mixing = measure(Stream(store, (SITE,)), batch)
    assert mixing.unique_documents_ratio == pytest.approx(1, abs=0.05)
    assert mixing.lag1_ratio == pytest.approx(1, abs=0.05)


def test_a_buffer_of_one_block_is_told_apart(store: Activations) -> None:
    mixing = measure(Stream(store, (SITE,), block=1024, buffer=1024), 1024)
    assert mixing.unique_documents_ratio < 0.05
    assert mixing.lag1_ratio > 1.2


def test_a_buffer_of_many_long_blocks_is_told_apart_by_its_documents(store: Activations) -> None:
    mixing = measure(Stream(store, (SITE,), block=1024, buffer=128 * 1024), 2048)
    assert mixing.unique_documents_ratio < 0.5


def test_documents_of_a_true_permutation_are_as_many_as_probability_says(
    store: Activations,
) -> None:
    """Of D documents of equal size, m draws meet about D (1 - (1 - 1/D) ** m)."""
    mixing = measure(Stream(store, (SITE,)), 2048)
    count = -(-ROWS // DOCUMENT)
    expected = count * (1 - (1 - 1 / count) ** 2048)
    assert mixing.unique_documents / mixing.unique_documents_ratio == pytest.approx(
        expected, rel=0.01
    )
