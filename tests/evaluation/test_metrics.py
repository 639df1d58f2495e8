import math

import numpy as np
import pytest
import torch

from sememe.evaluation.metrics import Moments, cross_entropy, kl_divergence, loss_recovered


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
