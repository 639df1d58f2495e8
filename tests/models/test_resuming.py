"""A resumed pass is the whole pass, bit for bit, without its first layers."""

from functools import partial

import pytest
import torch
from torch import Tensor

from sememe.models.language_model import LanguageModel
from sememe.models.reading import replaced
from sememe.models.resuming import layers_before, recorded, resumed
from sememe.models.sites import layers_of
from tests.models.tiny_families import (
    FAMILIES,
    LAYERS,
    MIXTURES,
    VOCABULARY,
    family,
    unknown_architecture,
    wrap,
)


@pytest.fixture(scope="module", params=[*FAMILIES, *MIXTURES])
def model(request: pytest.FixtureRequest) -> LanguageModel:
    return family(request.param)


IDS = torch.randint(0, VOCABULARY, (3, 11), generator=torch.Generator().manual_seed(1))


def moved(by: float, activation: Tensor) -> Tensor:
    return activation + by


@pytest.mark.parametrize("site", ["layers.1.resid", "layers.2.attn.in", "layers.0.mlp.out"])
def test_a_replacement_gives_the_logits_of_a_whole_pass(model: LanguageModel, site: str) -> None:
    before = layers_before(model, site)
    assert before == int(site.split(".")[1])
    with recorded(model, (before, LAYERS)) as known:
        original = model.logits(IDS)
    for by in (0.5, -0.5):
        with replaced(model, site, partial(moved, by)):
            whole = model.logits(IDS)
            with resumed(model, known, before):
                assert torch.equal(model.logits(IDS), whole)
        assert not torch.equal(whole, original)
    with resumed(model, known, LAYERS):
        assert torch.equal(model.logits(IDS), original)


def test_skipped_layers_do_not_run_and_run_again_afterwards(model: LanguageModel) -> None:
    with recorded(model, (2,)) as known:
        original = model.logits(IDS)
    ran: list[int] = []
    handles = [
        part.register_forward_hook(lambda *_args, number=number: ran.append(number))
        for number, layer in enumerate(layers_of(model.module))
        for part in list(layer.children())[:1]
    ]
    with resumed(model, known, 2):
        model.logits(IDS)
    assert set(ran) == {2}
    ran.clear()
    with pytest.raises(ZeroDivisionError), resumed(model, known, 2):
        raise ZeroDivisionError
    assert torch.equal(model.logits(IDS), original)
    assert set(ran) == {0, 1, 2}
    for handle in handles:
        handle.remove()


def test_an_architecture_without_named_sites_runs_whole() -> None:
    model = wrap(unknown_architecture(), "unknown")
    assert layers_before(model, "logits") == 0
    with recorded(model, (0,)) as known:
        original = model.logits(IDS)
    assert not known
    with resumed(model, known, 0):
        assert torch.equal(model.logits(IDS), original)
