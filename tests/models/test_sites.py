import re

import pytest
import torch
from transformers import MixtralConfig, MixtralForCausalLM

from sememe.errors import UsageError
from sememe.models.language_model import LanguageModel
from sememe.models.reading import read
from tests.models.tiny_families import (
    FAMILIES,
    HIDDEN,
    LAYERS,
    VOCABULARY,
    WIDTH,
    family,
    unknown_architecture,
    wrap,
)


@pytest.mark.parametrize("name", list(FAMILIES))
def test_every_family_has_all_sites_with_their_widths(name: str) -> None:
    model = family(name)
    widths = {"resid": WIDTH, "mlp.hidden": HIDDEN, "mlp.out": WIDTH, "attn.out": WIDTH}
    expected = [(f"layers.{n}.{kind}", widths[kind]) for n in range(LAYERS) for kind in widths]
    assert model.sites() == [*expected, ("logits", VOCABULARY)]
    assert model.width("layers.1.mlp.hidden") == HIDDEN
    assert model.context == 64
    assert model.vocabulary == VOCABULARY


def test_an_unknown_architecture_lists_modules() -> None:
    model = wrap(unknown_architecture(), "opt-like")
    sites = dict(model.sites())
    assert sites["module:model.decoder.layers.1"] == WIDTH
    assert sites["module:model.decoder.layers.1.self_attn.q_proj"] == WIDTH
    assert "module:model.decoder.layers.1.fc1" not in sites  # it sees (batch * time, width)
    assert sites["logits"] == VOCABULARY
    found = read(model, torch.zeros((2, 5), dtype=torch.long), list(sites))
    assert {name: tensor.shape[-1] for name, tensor in found.items()} == sites
    with pytest.raises(UsageError, match=r"\(opt\).*without named sites; write module:PATH"):
        model.site("layers.0.resid")


@pytest.mark.parametrize(
    ("site", "message"),
    [
        ("layers.1.residual", "unknown site 'layers.1.residual': did you mean layers.1.resid"),
        ("layers.3.resid", "'layers.3.resid': llama has 3 layers, numbered 0 to 2"),
        ("embedding", "layers.N.{resid,mlp.hidden,mlp.out,attn.out} with N from 0 to 2"),
        ("layers.-1.resid", "unknown site"),
        ("", "unknown site ''"),
        ("module:model.layer.0.mlp", "did you mean model.layers.0.mlp"),
        ("module:", "has no module ''; it has model, model.embed_tokens"),
    ],
)
def test_a_wrong_site_says_what_there_is(site: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        family("llama").site(site)


def test_a_site_that_the_architecture_lacks() -> None:
    """A mixture of experts has no single hidden layer."""
    module = MixtralForCausalLM(
        MixtralConfig(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            intermediate_size=HIDDEN,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            num_local_experts=2,
        )
    )
    model = wrap(module, "experts")
    with pytest.raises(UsageError, match=r"layer 1 of experts \(mixtral\) has no mlp.down_proj"):
        model.site("layers.1.mlp.hidden")
    names = [site.name for site in model.sites()]
    assert names[:3] == ["layers.0.resid", "layers.0.mlp.out", "layers.0.attn.out"]


def test_smollm2(smollm2: LanguageModel) -> None:
    sites = dict(smollm2.sites())
    assert len(sites) == 30 * 4 + 1
    assert sites["layers.14.resid"] == 576
    assert sites["layers.29.mlp.hidden"] == 1536
    assert sites["logits"] == 49152
