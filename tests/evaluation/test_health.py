"""Health figures beside sums by hand."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from sememe.evaluation.health import correlation_ratio, extremes, frequency_histogram


def test_extremes_leave_out_the_feature_itself_and_the_dead() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = normalize(torch.randn(40, 8, generator=generator), dim=1)
    rows[7], rows[9], rows[11] = rows[3], -rows[3], rows[20]
    among = torch.ones(40, dtype=torch.bool)
    among[11] = False
    some = torch.tensor([3, 20, 9])
    found = extremes(rows, some, among)
    cosine = rows @ rows.T
    for place, feature in enumerate(some.tolist()):
        others = [n for n in range(40) if n != feature and among[n]]
        assert float(found.nearest[place]) == pytest.approx(float(cosine[feature, others].max()))
        assert float(found.farthest[place]) == pytest.approx(float(cosine[feature, others].min()))
    assert float(found.nearest[0]) == pytest.approx(1)  # feature 7 is a duplicate
    assert float(found.nearest[1]) < 0.99  # feature 11 is dead
    assert found.antipode[0] == 9
    assert found.farthest[0] == pytest.approx(-1)


def test_the_correlation_ratio_of_known_mixtures() -> None:
    group = torch.tensor([0, 0, 2, 2])  # no row is of group 1
    values = torch.tensor([[1.0, 0, 5], [1.0, 1, 5], [3.0, 0, 5], [3.0, 1, 5]]).double()
    # all of the variance lies between the groups, none of it does, and there is none
    torch.testing.assert_close(correlation_ratio(values, group), torch.tensor([1.0, 0, 0]).double())
    draw = torch.Generator().manual_seed(0)
    group = torch.randint(5, (50_000,), generator=draw)
    noisy = group.double()[:, None] + torch.randn(50_000, 1, generator=draw).double()
    # integers 0 to 4 have a variance of 2, the noise one of 1
    assert float(correlation_ratio(noisy, group)) == pytest.approx((2 / 3) ** 0.5, abs=0.01)


def test_the_histogram_counts_features_that_fire_by_decade() -> None:
    fired = torch.tensor([0, 1, 10, 10, 100])
    found = frequency_histogram(fired, 1000)
    counts = np.array(found["counts"])
    assert counts.sum() == 4
    edges = np.array(found["log10_edges"])
    expected, _ = np.histogram([-3, -2, -2, -1], bins=edges)
    np.testing.assert_array_equal(counts, expected)
