import math

import numpy as np
import pytest
import torch

from sememe.evaluation.metrics import (
    Moments,
    cross_entropy,
    fvu,
    kl_divergence,
    loss_recovered,
    refitted,
    row_figures,
)
from sememe.kernels import Code


def test_fvu_of_known_reconstructors() -> None:
    x = torch.randn(500, 6) + 3
    mean = x.mean(0).expand_as(x)
    assert Moments.of(x, x).fvu == 0
    assert Moments.of(x, mean).fvu == pytest.approx(1, rel=1e-5)
    centred = x - mean
    # shrinking the deviations by half leaves a quarter of the variance
    assert Moments.of(x, mean + centred / 2).fvu == pytest.approx(0.25, rel=1e-5)


def test_norm_ratio_and_cosine_of_a_scaled_input() -> None:
    x = torch.randn(100, 5)
    scaled = Moments.of(x, 0.7 * x)
    assert scaled.norm_ratio == pytest.approx(0.7, rel=1e-6)
    assert scaled.mean_cosine == pytest.approx(1, rel=1e-6)
    assert Moments.of(x, -x).mean_cosine == pytest.approx(-1, rel=1e-6)


def test_sums_over_batches_are_pooled_not_averaged() -> None:
    x, rebuilt = torch.randn(90, 4), torch.randn(90, 4)
    x[:10] *= 20  # batches of unequal variance: a mean of ratios would differ
    whole = Moments.of(x, rebuilt)
    parts = Moments.of(x[:10], rebuilt[:10]).plus(Moments.of(x[10:], rebuilt[10:]))
    assert parts.fvu == pytest.approx(whole.fvu, rel=1e-9)
    by_hand = (x - rebuilt).double().square().sum() / (x - x.mean(0)).double().square().sum()
    assert whole.fvu == pytest.approx(float(by_hand), rel=1e-5)


def test_cross_entropy_and_kl_against_sums_over_the_vocabulary() -> None:
    p_logits, q_logits = torch.randn(7, 11), torch.randn(7, 11)
    target = torch.randint(11, (7,))
    for row in range(7):
        p = [math.exp(v) for v in p_logits[row].tolist()]
        q = [math.exp(v) for v in q_logits[row].tolist()]
        p, q = [v / sum(p) for v in p], [v / sum(q) for v in q]
        kl = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        assert float(kl_divergence(p_logits, q_logits)[row]) == pytest.approx(kl, abs=1e-5)
        surprise = -math.log(p[int(target[row])])
        assert float(cross_entropy(p_logits, target)[row]) == pytest.approx(surprise, abs=1e-5)


def test_loss_recovered_at_its_ends() -> None:
    original, ablated = np.full(3, 3.0), np.full(3, 9.0)
    found = loss_recovered(original, np.array([3.0, 9.0, 6.0]), ablated)
    assert found.tolist() == [1, 0, 0.5]
    assert np.isnan(loss_recovered(original, original, original)).all()


def test_figures_of_rows_are_those_of_their_moments() -> None:
    x, rebuilt = torch.randn(200, 7).double() + 1, torch.randn(200, 7).double()
    moments = Moments.of(x, rebuilt)
    rows, square, rebuilt_square, error, centred, cosine = (
        row_figures(x, rebuilt, x.mean(0)).sum(0).tolist()
    )
    assert rows == 200
    assert error / centred == pytest.approx(moments.fvu)
    assert (rebuilt_square / square) ** 0.5 == pytest.approx(moments.norm_ratio)
    assert cosine / rows == pytest.approx(moments.mean_cosine)


def test_equal_rows_have_no_variance_to_explain() -> None:
    error, square = np.array([1.0, 0, 2]), np.array([10.0, 10, 10])
    found = fvu(error, np.array([1e-13, 1e-13, 4]), square)
    assert np.isnan(found[:2]).all()
    assert found[2] == 0.5


def test_refitted_values_are_those_of_least_squares() -> None:
    """Against numpy, row by row, on the features that are there."""
    generator = torch.Generator().manual_seed(1)
    W = torch.nn.functional.normalize(torch.randn(50, 12, generator=generator), dim=1)
    indices = torch.stack([torch.randperm(50, generator=generator)[:6] for _ in range(20)]).int()
    values = torch.rand(20, 6, generator=generator)
    values[:, 4:] *= torch.rand(20, 2, generator=generator).round()  # rows of 4 to 6 entries
    target = torch.randn(20, 12, generator=generator)
    found = refitted(Code(indices, values), W, target)
    for row in range(20):
        there = values[row] > 0
        rows = W[indices[row, there].long()].double().numpy()
        expected = np.linalg.lstsq(rows.T, target[row].double().numpy(), rcond=None)[0]
        np.testing.assert_allclose(found[row, there].numpy(), expected, atol=1e-7)
        assert not found[row, ~there].any()


def test_a_shrunk_code_is_refitted_to_what_it_was() -> None:
    generator = torch.Generator().manual_seed(2)
    W = torch.nn.functional.normalize(torch.randn(30, 16, generator=generator), dim=1)
    indices = torch.stack([torch.randperm(30, generator=generator)[:4] for _ in range(9)]).int()
    values = torch.rand(9, 4, generator=generator) + 0.1
    target = torch.einsum("rk,rkw->rw", values, W[indices.long()])
    found = refitted(Code(indices, 0.7 * values), W, target)
    torch.testing.assert_close(found.float(), values, atol=1e-4, rtol=1e-4)


def test_two_features_of_one_direction_share_their_value() -> None:
    W = torch.tensor([[1.0, 0], [1.0, 0]])
    code = Code(torch.tensor([[0, 1]]).int(), torch.tensor([[1.0, 1.0]]))
    found = refitted(code, W, torch.tensor([[3.0, 5.0]]))
    torch.testing.assert_close(found.float(), torch.tensor([[1.5, 1.5]]), atol=1e-3, rtol=1e-3)
