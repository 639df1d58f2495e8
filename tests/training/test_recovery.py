"""Every recipe finds the features of a small world: the floor below which something is broken."""

import dataclasses

import pytest
import torch

from sememe.evaluation.ground_truth import assign, cosines, ground_truth
from sememe.evaluation.worlds import independent
from sememe.studies.synthetic import trained
from sememe.training import recipes

ACTIVE, LATENTS, STEPS, BATCH = 2, 40, 120, 256
PENALTY = {"towards_monosemanticity": 1.0, "april_update": 1.0, "january_2025": 1.0, "gated": 1.0}


def small_world():
    return independent(20, 20, active=float(ACTIVE), rows=STEPS * BATCH, seed=7)


@pytest.mark.parametrize("name", sorted(recipes.RECIPES))
def test_every_recipe_finds_the_features_of_a_small_world(name):
    world = small_world()
    sparsity = {"sparsity": PENALTY[name]} if name in PENALTY else {"k": ACTIVE}
    recipe = recipes.make(name, features=LATENTS, passes=1, **sparsity)
    config = dataclasses.replace(recipe, batch=BATCH, learning_rate=2e-2, dead_tokens=2000)
    figures = ground_truth(trained(world, config), world.directions, world.held_out(2048))
    assert figures["mcc"] > 0.75
    assert figures["recovered"] > 0.7
    assert figures["fvu"] < 0.35


def test_a_random_dictionary_is_below_the_floor():
    rows = torch.randn(LATENTS, 20, generator=torch.Generator().manual_seed(0))
    match = assign(cosines(rows, small_world().directions))
    assert match.mcc < 0.6
    assert float((match.cosine > 0.7).float().mean()) < 0.3
