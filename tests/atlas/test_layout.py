"""The map, on directions that lie in known groups."""

import numpy as np
import pytest
import torch

from sememe.atlas.layout import Layout, lay_out, named, place_beside
from sememe.atlas.weights import nearest, neighbours

GROUPS, EACH, WIDTH = 6, 100, 24
WORDS = [b" sea", b" ship", b"def", b"(", b"\n", b"\xe4", b" the"]


def grouped(seed: int = 0) -> torch.Tensor:
    """Unit rows in ``GROUPS`` narrow groups, ``EACH`` of one after the other."""
    draw = torch.Generator().manual_seed(seed)
    middle = torch.randn(GROUPS, WIDTH, generator=torch.Generator().manual_seed(99))
    rows = middle.repeat_interleave(EACH, 0)
    rows = rows + 0.3 * torch.randn(rows.shape, generator=draw)
    return torch.nn.functional.normalize(rows, dim=1)


def mapped(fires: np.ndarray | None = None) -> Layout:
    rows = grouped()
    group = np.arange(GROUPS * EACH) // EACH
    tokens = np.stack([group, np.full_like(group, 6)], axis=1).astype(np.int32)
    fires = np.ones(len(rows), bool) if fires is None else fires
    return named(lay_out(rows, neighbours(rows), fires), tokens, WORDS)


@pytest.fixture(scope="module")
def layout() -> Layout:
    return mapped()


def test_groups_of_directions_are_clusters_named_by_their_own_tokens(layout: Layout) -> None:
    group = np.arange(GROUPS * EACH) // EACH
    for number, cluster in enumerate(layout.clusters):
        inside = group[layout.cluster == number]
        assert cluster["size"] == len(inside)
        assert len(set(inside.tolist())) == 1
        word = ["sea", "ship", "def", "(", "\\n", "\\xE4"][inside[0]]
        assert cluster["name"].split(" · ")[0] == word
    assert sum(cluster["size"] for cluster in layout.clusters) > 0.8 * len(group)


def test_a_cluster_is_named_by_what_can_be_seen() -> None:
    words = [b"\n", b"\xe4", b" Ship", b"ship", b" sea", b" the"]
    tokens = np.array([[0, 1, 2, 3, 4, 5]] * 3 + [[5, -1, -1, -1, -1, -1]] * 2)
    nowhere, cluster = np.zeros(5, np.float32), np.array([0, 0, 0, -1, -1], np.int32)
    (found,) = named(Layout(nowhere, nowhere, cluster, []), tokens, words).clusters
    assert found["name"] == "Ship · sea"


def test_near_features_are_near_on_the_map(layout: Layout) -> None:
    from sklearn.manifold import trustworthiness

    points = np.stack([layout.x, layout.y], axis=1)
    assert trustworthiness(grouped().numpy(), points, n_neighbors=10, metric="cosine") > 0.85


def test_the_map_is_the_same_every_time(layout: Layout) -> None:
    again = mapped()
    for one, other in zip(layout[:3], again[:3], strict=True):
        np.testing.assert_array_equal(one, other)


def test_features_that_never_fire_are_not_on_the_map() -> None:
    fires = np.arange(GROUPS * EACH) % 3 > 0
    layout = mapped(fires)
    np.testing.assert_array_equal(np.isfinite(layout.x), fires)
    assert (layout.cluster[~fires] == -1).all()


def test_a_few_features_lie_by_their_principal_components() -> None:
    rows = torch.nn.functional.normalize(torch.randn(50, 8), dim=1)
    layout = lay_out(rows, neighbours(rows), np.ones(50, bool))
    centred = (rows - rows.mean(0)).double().numpy()
    places = np.linalg.svd(centred)[2][:2] @ centred.T
    for own, expected in zip((layout.x, layout.y), places, strict=True):
        assert abs(np.corrcoef(own, expected)[0, 1]) == pytest.approx(1.0, abs=1e-4)
    assert (layout.cluster == -1).all()


def test_another_dictionary_is_placed_where_its_neighbours_are(layout: Layout) -> None:
    new = grouped(seed=1)
    fires = np.arange(len(new)) > 0
    placed, near = place_beside(new, fires, grouped(), layout)
    points = np.stack([layout.x, layout.y], axis=1).reshape(GROUPS, EACH, 2)
    for group in range(GROUPS):
        own = slice(group * EACH, (group + 1) * EACH)
        for axis, found in enumerate((placed.x[own], placed.y[own])):
            inside = found[np.isfinite(found)]
            assert inside.min() >= points[group, :, axis].min() - 1e-3
            assert inside.max() <= points[group, :, axis].max() + 1e-3
    assert np.isnan(placed.x[0])
    assert placed.cluster[0] == -1
    assert (placed.cluster[1:] >= 0).mean() > 0.8
    assert [c["name"] for c in placed.clusters] == [c["name"] for c in layout.clusters]
    assert sum(c["size"] for c in placed.clusters) == (placed.cluster >= 0).sum()
    cosine, which = (new.double() @ grouped().double().T).max(dim=1)
    np.testing.assert_array_equal(near.which[1:, 0], which[1:])
    np.testing.assert_allclose(near.amount[1:, 0], cosine[1:], atol=1e-6)
    assert (near.which[0] == -1).all()


def test_features_that_are_not_on_the_map_are_near_to_none() -> None:
    fires = np.arange(GROUPS * EACH) % 3 > 0
    layout = mapped(fires)
    new = grouped(seed=1)
    _, near = place_beside(new, np.ones(len(new), bool), grouped(), layout)
    cosine = new.double() @ grouped().double().T
    cosine[:, ~fires] = -1.0
    np.testing.assert_array_equal(near.which[:, 0], cosine.argmax(dim=1))


def test_nearest_rows_against_a_whole_matrix_of_cosines() -> None:
    rows, among = grouped(1)[::7], grouped()
    found = nearest(rows, among, 4)
    cosine = rows.double() @ among.double().T
    best = cosine.topk(4, dim=1)
    np.testing.assert_allclose(found.amount, best.values, atol=1e-5)
    taken = cosine.gather(1, torch.from_numpy(found.which).long())
    np.testing.assert_allclose(taken, best.values, atol=1e-5)
    own = neighbours(among, 3)
    assert (own.which != np.arange(len(among))[:, None]).all()
