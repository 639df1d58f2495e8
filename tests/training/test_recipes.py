"""Recipes give what their papers say."""

import pytest

from sememe.training import TrainConfig, recipes


def test_openai_learning_rate_follows_the_root_of_the_features():
    assert recipes.openai_topk(features=32_768).rate() == pytest.approx(1e-4)
    assert recipes.openai_topk(features=8192).rate() == pytest.approx(2e-4)


def test_april_update_is_relu_with_a_ramped_penalty():
    recipe = recipes.april_update()
    assert (recipe.kind, recipe.l1, recipe.ramp, recipe.decay) == ("relu", 5.0, 0.05, 0.2)
    assert (recipe.rate(), recipe.beta1, recipe.beta2, recipe.clip) == (5e-5, 0.9, 0.999, 1.0)


def test_the_default_config_is_the_topk_recipe():
    assert recipes.topk() == TrainConfig()
