"""Every recipe finds the features of a small world: the floor below which something is broken."""

import dataclasses

import pytest

from sememe.evaluation.ground_truth import ground_truth
from sememe.evaluation.worlds import independent
from sememe.studies.synthetic import trained
from sememe.training import recipes

ACTIVE, SAMPLES = 2, 25_600
FLOORS = {"mcc": 0.9, "recovered": 0.9}
"""A random dictionary has an MCC of about .6 here, and recovers one feature in ten."""
PENALTY = {"towards_monosemanticity": 1.0, "april_update": 1.0, "january_2025": 1.0, "gated": 1.0}


@pytest.mark.parametrize("name", sorted(recipes.RECIPES))
def test_every_recipe_finds_the_features_of_a_small_world(name):
    world = independent(32, 16, active=float(ACTIVE), rows=SAMPLES, seed=7)
    sparsity = {"sparsity": PENALTY[name]} if name in PENALTY else {"k": ACTIVE}
    recipe = recipes.make(name, features=32, passes=1, **sparsity)
    config = dataclasses.replace(recipe, batch=128, learning_rate=1e-2, dead_tokens=2000)
    figures = ground_truth(trained(world, config), world.directions, world.held_out(2048))
    for figure, floor in FLOORS.items():
        assert figures[figure] > floor, (name, figures)
