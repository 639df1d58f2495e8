"""Worlds are what they say: reproducible, with the frequencies, trees and values of the source."""

import pytest
import torch

from sememe.dictionaries.initialisation import INITIALISATIONS
from sememe.errors import UsageError
from sememe.evaluation.ground_truth import cosines, firing
from sememe.evaluation.worlds import WORLDS, Forest, active, independent, synthsaebench, toy
from sememe.training import ActivationStream

FOREST = Forest(trees=4, branching=4, depth=3)


@pytest.fixture(scope="module")
def world():
    return synthsaebench(400, 24, forest=FOREST, rows=5000, seed=3)


def drawn(world, rows=20_000):
    """Return the activations, which true features fire, and their dense values."""
    parts = list(world.held_out(rows))
    features = len(world.directions)
    values = [
        torch.zeros(len(code.values), features).scatter_add_(1, code.indices.long(), code.values)
        for _, code in parts
    ]
    fired = torch.cat([firing(code, features) for _, code in parts])
    return torch.cat([x for x, _ in parts]), fired, torch.cat(values)


@pytest.mark.parametrize("name", ["small", "medium", "independent", "toy"])
def test_every_world_is_a_stream_of_the_scale_that_it_says(name):
    made = WORLDS[name](rows=4096, seed=1)
    assert isinstance(made, ActivationStream)
    x = torch.cat(list(made.batches(512, 1, seed=0)))
    assert x.shape == (4096, made.widths[0])
    square = (x * made.scales[0]).square().sum(1).mean()
    assert float(square) == pytest.approx(made.widths[0], rel=0.1)


def test_a_batch_is_a_function_of_seed_and_number(world):
    whole = list(world.batches(500, 2, seed=5))
    assert len(whole) == world.steps(500, 2) == 20
    tail = list(world.batches(500, 2, seed=5, start=18))
    assert torch.equal(tail[0], whole[18])
    assert torch.equal(tail[1], whole[19])
    assert not torch.equal(next(world.batches(500, 2, seed=6)), whole[0])
    again = synthsaebench(400, 24, forest=FOREST, rows=5000, seed=3)
    assert torch.equal(next(again.batches(500, 2, seed=5)), whole[0])
    assert torch.equal(again.sample(100), world.sample(100))
    assert not torch.equal(whole[0][:100], world.sample(100))


@pytest.mark.parametrize("seed", [0, 3])
def test_first_weights_of_the_same_seed_know_nothing_of_the_directions(seed):
    """One generator seeded alike for both would begin with the solution."""
    made = WORLDS["small"](rows=1024, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    rows, _ = INITIALISATIONS["random"](512, made.sample(1), made.sample(1), generator)
    assert float(cosines(rows, made.directions).abs().max()) < 0.7


def test_activations_are_the_sum_of_the_directions_of_true_features(world):
    x, _, values = drawn(world, 2000)
    torch.testing.assert_close(x, values @ world.directions, atol=1e-4, rtol=1e-4)
    norms = world.directions.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(400), atol=1e-5, rtol=0)


def test_children_fire_with_their_parent_alone_and_one_sibling_at_a_time(world):
    _, fired, _ = drawn(world)
    parents = world.parents
    child = (parents >= 0).nonzero().flatten()
    assert len(child) == FOREST.size - FOREST.trees == 4 * (4 + 16 + 64)
    orphans = fired[:, child] & ~fired[:, parents[child]]
    # a parent that fires has now and then the value 0
    assert float(orphans.sum()) < 0.005 * float(fired[:, child].sum())
    for parent in range(FOREST.with_children):
        assert int(fired[:, parents == parent].sum(1).max()) <= 1


def test_frequencies_follow_the_power_law(world):
    """Roots and lone features fire as often as they are to; children hardly more often."""
    _, fired, _ = drawn(world)
    frequency = fired.float().mean(0)
    rank = torch.arange(1, 401).float() ** -0.5
    expected = 5e-4 + (0.4 - 5e-4) * (rank - rank[-1]) / (rank[0] - rank[-1])
    free = world.parents < 0
    assert float((frequency[free] - expected[free]).abs().max()) < 0.015
    assert float((frequency - expected)[~free].max()) < 0.015


def test_values_are_around_five_to_four(world):
    _, fired, values = drawn(world)
    means = values.sum(0) / fired.sum(0).clamp_min(1)
    often = fired.sum(0) > 200
    expected = torch.linspace(5, 4, 400)
    assert float((means - expected)[often].abs().max()) < 0.4
    assert (values >= 0).all()


def test_shared_factors_make_features_fire_together():
    """Without factors pairs of roots would be uncorrelated to sampling error, .007 here."""
    made = synthsaebench(40, 16, forest=Forest(1, 1, 0), seed=0)
    _, fired, _ = drawn(made)
    correlation = torch.corrcoef(fired[:, 1:8].float().T)
    off = correlation[~torch.eye(7, dtype=torch.bool)]
    assert float(off.abs().max()) > 0.035


def test_independent_and_toy_features_have_their_frequency_and_range():
    _, fired, values = drawn(independent(50, 8, active=5.0))
    assert float(fired.float().mean()) == pytest.approx(0.1, abs=0.002)
    assert 0.5 <= float(values[fired].min()) < 0.51 < 1.49 < float(values.max()) < 1.5
    _, fired, values = drawn(toy(50, 8, sparsity=0.98))
    assert float(fired.float().mean()) == pytest.approx(0.02, abs=0.001)
    assert float(values[fired].mean()) == pytest.approx(0.5, abs=0.01)


def test_the_medium_world_is_as_busy_as_the_full_size():
    """36 of 4,096, and 25 of the 1,024 most frequent: 16k's 25 is the true number here too."""
    made = WORLDS["medium"]()
    assert active(made, 4096, 4096) == pytest.approx(35, abs=1.5)
    assert active(made, 1024, 4096) == pytest.approx(25, abs=1)


@pytest.mark.slow
def test_the_full_size_has_the_published_number_of_active_features():
    """34 of 16,384, and 25 of the 4,096 most frequent (SynthSAEBench-16k)."""
    made = WORLDS["16k"]()
    assert active(made, 16_384, 4096) == pytest.approx(34, abs=1)
    assert active(made, 4096, 4096) == pytest.approx(25, abs=1)


def test_impossible_worlds_are_refused():
    with pytest.raises(UsageError, match="probability 2"):
        independent(5, 4, active=10.0)
    with pytest.raises(UsageError, match=r"batch is 512.*raise samples"):
        toy(8, 4, sparsity=0.9, rows=100).steps(512, 1)
