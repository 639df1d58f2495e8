"""Structure on closed forms: Gaussian changes, the last layer, errors that are linear by making."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from sememe.dictionaries.dictionary import Dictionary
from sememe.dictionaries.nonlinearities import ReLU
from sememe.evaluation import structure
from sememe.evaluation.arms import Arm
from sememe.evaluation.firings import Firings, Text
from sememe.evaluation.sections import Settings
from sememe.evaluation.structure import (
    METRICS,
    PLACES,
    Changes,
    Regression,
    choose_firings,
    direct_share,
    effective_fraction,
    measure,
    unexplained,
)
from sememe.models.reading import replaced
from sememe.progress import Progress


def test_effective_fractions_of_known_changes() -> None:
    gaussian = torch.randn(16, 20_000, generator=torch.Generator().manual_seed(0))
    assert effective_fraction(gaussian) == pytest.approx(2 / math.pi, abs=0.003)
    assert effective_fraction(torch.full((4, 5), -3.0)) == pytest.approx(1)
    one = torch.zeros(4, 5)
    one[2, 3] = 7
    assert effective_fraction(one) == pytest.approx(1 / 20)
    assert math.isnan(effective_fraction(torch.zeros(3)))


def test_direct_shares_of_known_parts() -> None:
    generator = torch.Generator().manual_seed(0)
    direct, other = torch.randn(2, 16, 20_000, generator=generator)
    assert direct_share(Changes(direct + 5, direct)) == pytest.approx(1)
    assert direct_share(Changes(direct, torch.zeros_like(direct))) == 0
    assert direct_share(Changes(direct + 2 * other, direct)) == pytest.approx(0.2, abs=0.003)


def test_an_error_that_is_linear_and_noise_has_the_known_r2() -> None:
    """y = A x + noise: R² is the signal's share of the variance; of pure noise it is about 0."""
    generator = torch.Generator().manual_seed(0)
    x = 3 + torch.randn(20_000, 12, generator=generator)
    signal = x @ torch.randn(12, 7, generator=generator)
    noise = torch.randn(20_000, 7, generator=generator) * signal.std(0)
    fold = torch.arange(20_000) % 4 == 0
    for scale in (0.0, 0.5, 2.0):
        error, spread = unexplained(x, signal + scale * noise, fold)
        r2 = 1 - float(error.sum() / spread.sum())
        assert r2 == pytest.approx(1 / (1 + scale**2), abs=0.01)
    error, spread = unexplained(x, noise, fold)
    assert float(error.sum() / spread.sum()) == pytest.approx(1, abs=0.01)


def test_the_regression_is_least_squares_with_an_intercept() -> None:
    generator = torch.Generator().manual_seed(1)
    x = 2 + torch.randn(500, 5, generator=generator)
    y = x @ torch.randn(5, 3, generator=generator) + torch.randn(500, 3, generator=generator)
    design = np.concatenate([x.numpy(), np.ones((500, 1))], 1)
    weight, *_ = np.linalg.lstsq(design, y.numpy(), rcond=None)
    assert np.allclose(Regression.fit(x, y)(x).numpy(), design @ weight, atol=1e-3)


def test_firings_are_real_and_have_room(subject: Arm) -> None:
    text, firings = Text.of(subject), Firings.of(subject)
    features, rows, values = choose_firings(text, firings, 20, 0)
    assert len(set(features.tolist())) == len(features) > 1
    for feature, row, value in zip(features, rows, values, strict=True):
        own, strength = firings.feature(int(feature))
        assert strength[own == row] == value
        assert text.position[row] + PLACES <= text.length[row]


def test_an_ablation_is_what_a_plain_run_of_the_model_shows(subject: Arm) -> None:
    model, text = subject.model.exact(), Text.of(subject)
    (feature,), (row,), (value,) = choose_firings(text, Firings.of(subject), 1, 3)
    changes = structure._ablate(subject, model, int(feature), int(row), float(value), direct=True)
    window = int(text.place[row] - text.position[row])
    ids = torch.tensor([[0, *text.ids[window : window + int(text.length[row])]]])
    at = 1 + int(text.position[row])
    dictionary = subject.dictionary

    def without(x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x[0, at] -= value * dictionary.W_dec[feature].detach() / dictionary.write_scale
        return x

    before = model.logits(ids)
    with replaced(model, subject.site, without):
        after = model.logits(ids)
    expected = (after - before)[0, at : at + PLACES]
    assert torch.allclose(changes.total, expected, atol=1e-4)
    assert changes.direct[0].abs().max() > 0
    assert (changes.direct[1:] == 0).all()


def test_after_the_last_layer_every_effect_is_direct(subject: Arm) -> None:
    model = subject.model.exact()
    last = replace(subject.dictionary.config, reads=("layers.2.resid",), writes=("layers.2.resid",))
    dictionary = Dictionary(last, subject.dictionary.read_scale[:1].tolist())
    dictionary.load_state_dict(subject.dictionary.state_dict())
    arm = replace(subject, dictionary=dictionary)
    (feature,), (row,), (value,) = choose_firings(Text.of(subject), Firings.of(subject), 1, 0)
    changes = structure._ablate(arm, model, int(feature), int(row), float(value), direct=True)
    assert direct_share(changes) == pytest.approx(1)


def test_a_real_arm_is_measured(subject: Arm) -> None:
    measured = measure(subject, Settings("quick"), Progress())
    assert set(measured.estimates) == {metric.name for metric in METRICS}
    assert 0 < measured.estimates["effect_fraction"].value < 1
    assert 0 <= measured.estimates["direct_share"].value <= 1
    assert measured.estimates["error_predicted"].value < 1
    assert len(measured.details["effect_fractions"]) > 1


def test_an_exact_reconstruction_has_no_error_to_foretell(subject: Arm) -> None:
    width = subject.dictionary.config.width
    config = replace(
        subject.dictionary.config, features=2 * width, nonlinearity=ReLU(), centre="none"
    )
    exact = Dictionary(config)
    with torch.no_grad():
        for part in (exact.W_enc, exact.W_dec):
            part.copy_(torch.cat([torch.eye(width), -torch.eye(width)]))
    measured = measure(replace(subject, dictionary=exact), Settings("quick"), Progress())
    assert "exact" in measured.left_out["error_predicted"]
    assert "error_predicted" not in measured.estimates
