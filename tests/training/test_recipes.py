"""Recipes give what their papers say."""

import pytest

from sememe.dictionaries import BatchTopK, Gated, JumpReLU, ReLU, TopK
from sememe.dictionaries.objectives import L0, L1, AuxK, Matryoshka, PreActivation, Tanh
from sememe.errors import UsageError
from sememe.training import TrainConfig, recipes
from sememe.training.recipes import RECIPES


def term(config: TrainConfig, kind: type):
    return next(part for part in config.objective if isinstance(part, kind))


def test_openai_learning_rate_follows_the_root_of_the_features():
    assert recipes.openai_topk(features=32_768).rate() == pytest.approx(1e-4)
    assert recipes.openai_topk(features=8192).rate() == pytest.approx(2e-4)
    assert recipes.openai_topk(k=7).nonlinearity == TopK(7)
    assert term(recipes.openai_topk(), AuxK).weight == 1 / 32


def test_april_update_weighs_a_ramped_penalty_by_free_norms():
    recipe = recipes.april_update()
    assert (recipe.nonlinearity, term(recipe, L1)) == (ReLU(), L1(5.0, ramp=0.05))
    assert (recipe.decay, recipe.norms) == (0.2, "free")
    assert (recipe.rate(), recipe.beta1, recipe.beta2, recipe.clip) == (5e-5, 0.9, 0.999, 1.0)


def test_towards_monosemanticity_resamples_four_times():
    recipe = recipes.towards_monosemanticity()
    rule = recipe.resampling
    assert [step for step in range(150_000) if rule.due(step)] == [25_000, 50_000, 75_000, 100_000]
    assert (rule.silent, rule.rows, rule.encoder_norm) == (12_500, 819_200, 0.2)
    assert (recipe.batch, recipe.norms) == (8192, "unit")


def test_january_2025_has_a_wide_window_and_a_penalty_that_ramps_to_the_end():
    recipe = recipes.january_2025()
    assert recipe.nonlinearity == JumpReLU(threshold=0.1, bandwidth=2.0)
    assert (term(recipe, Tanh).c, term(recipe, Tanh).ramp) == (4.0, 1.0)
    assert term(recipe, PreActivation).weight == 3e-6
    assert (recipe.initialisation, recipe.first_active) == ("uniform", 10_000)


def test_budgets_and_targets_are_k():
    assert term(recipes.jumprelu(k=9), L0).target == 9
    assert recipes.jumprelu(k=9).first_active == 18
    assert recipes.batchtopk(k=9).nonlinearity == BatchTopK(9, memory=0.95)
    assert recipes.matryoshka(k=9).nonlinearity == BatchTopK(9, memory=0.95)
    assert term(recipes.matryoshka(), Matryoshka).shares == (1 / 16, 1 / 8, 1 / 4, 1 / 2)
    assert recipes.gated().nonlinearity == Gated()


def test_the_default_config_is_the_topk_recipe():
    assert recipes.topk() == TrainConfig() == recipes.make("topk", k=None, passes=4)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_is_a_sensible_composition(name):
    config = recipes.make(name, features=64, passes=2)
    assert (config.features, config.passes) == (64, 2)
    config.dictionary(("a",), ("a",), (8,), (8,))
    assert RECIPES[name].__doc__


def test_unknown_recipes_and_settings_are_refused_naming_them():
    with pytest.raises(UsageError, match=r"recipe is 'best'; expected one of sememe"):
        recipes.make("best")
    with pytest.raises(UsageError, match=r"sparsity is 3\.0, but recipe sememe has none"):
        recipes.make("sememe", sparsity=3.0)
    with pytest.raises(UsageError, match="k is 3, but recipe gated has none"):
        recipes.make("gated", k=3)
