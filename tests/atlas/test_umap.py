"""UMAP beside umap-learn, over the same neighbours."""

import warnings

import numpy as np
import pytest
import torch
from scipy.sparse import coo_array
from sklearn.manifold import trustworthiness

from sememe.atlas.ranked import Ranked
from sememe.atlas.umap import EPOCHS, A, B, edges, umap
from sememe.atlas.weights import neighbours

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from umap.umap_ import find_ab_params, fuzzy_simplicial_set, simplicial_set_embedding

COUNT, WIDTH = 600, 24


def rows() -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    middle = torch.randn(6, WIDTH, generator=draw)
    spread = 0.5 * torch.randn(COUNT, WIDTH, generator=draw)
    return torch.nn.functional.normalize(middle.repeat_interleave(COUNT // 6, 0) + spread, dim=1)


@pytest.fixture(scope="module")
def near() -> Ranked:
    return neighbours(rows())


@pytest.fixture(scope="module")
def theirs(near: Ranked) -> coo_array:
    own = np.arange(COUNT)[:, None]
    distances = np.concatenate([np.zeros(own.shape), 1 - near.amount], axis=1)
    graph, _, _ = fuzzy_simplicial_set(
        np.zeros((COUNT, 2), np.float32),
        near.which.shape[1] + 1,
        np.random.RandomState(0),
        "precomputed",
        knn_indices=np.concatenate([own, near.which], axis=1).astype(np.int32),
        knn_dists=distances.astype(np.float32),
    )
    return coo_array(graph)


def test_curve_of_nearness() -> None:
    np.testing.assert_allclose((A, B), find_ab_params(1.0, 0.1), rtol=1e-6)


def test_pairs_and_their_strengths(near: Ranked, theirs: coo_array) -> None:
    head, tail, weight = edges(near)
    ours = coo_array((weight, (head, tail)), shape=theirs.shape).toarray()
    expected = theirs.toarray()
    expected[expected < expected.max() / EPOCHS] = 0
    assert ((ours > 0) != (expected > 0)).mean() < 1e-5
    np.testing.assert_allclose(ours, expected, atol=1e-2)  # theirs are of float32 distances


def test_neighbours_stay_as_near_as_in_theirs(near: Ranked, theirs: coo_array) -> None:
    draw = np.random.default_rng(0)
    begin = draw.normal(size=(COUNT, 2)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected, _ = simplicial_set_embedding(
            begin, theirs, 2, 1.0, float(A), float(B), 1.0, 5, EPOCHS, begin.copy(),
            np.random.RandomState(0), "euclidean", {}, False, {}, False,
        )  # fmt: skip
    good, reference, none = (
        trustworthiness(rows().numpy(), places, n_neighbors=10, metric="cosine")
        for places in (umap(begin, near), expected, begin)
    )
    assert good > reference - 0.02 > none + 0.2


def test_missing_neighbours_pull_nothing() -> None:
    which = np.array([[1, 2], [0, -1], [0, -1], [-1, -1]], np.int32)
    amount = np.array([[0.9, 0.8], [0.9, 0], [0.8, 0], [0, 0]], np.float32)
    head, tail, weight = edges(Ranked(which, amount))
    assert sorted(zip(head.tolist(), tail.tolist(), strict=True)) == [
        (0, 1),
        (0, 2),
        (1, 0),
        (2, 0),
    ]
    assert np.isfinite(weight).all()
    places = umap(np.zeros((4, 2), np.float32), Ranked(which, amount))
    assert np.isfinite(places).all()


def test_the_same_neighbours_have_the_same_places(near: Ranked) -> None:
    begin = np.random.default_rng(1).normal(size=(COUNT, 2)).astype(np.float32)
    assert umap(begin, near).tobytes() == umap(begin.copy(), near).tobytes()
