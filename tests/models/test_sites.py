import re

import pytest
import torch

from sememe.errors import SememeError, UsageError
from sememe.models.language_model import LanguageModel
from sememe.models.reading import read
from tests.models.tiny_families import (
    EXPERTS,
    FAMILIES,
    HEADS,
    HIDDEN,
    LAYERS,
    MIXTURES,
    SHARED,
    VOCABULARY,
    WIDTH,
    family,
    heads_by_layer,
    one_expert_a_token,
    unknown_architecture,
    wrap,
)


@pytest.mark.parametrize("name", list(FAMILIES))
def test_every_family_has_all_sites_with_their_widths(name: str) -> None:
    model = family(name)
    kinds = ("resid", "attn.in", "attn.heads", "attn.out", "mlp.in", "mlp.hidden", "mlp.out")
    widths = {**dict.fromkeys(kinds, WIDTH), "mlp.hidden": HIDDEN}
    expected = [(f"layers.{n}.{kind}", widths[kind]) for n in range(LAYERS) for kind in widths]
    assert model.sites() == [*expected, ("logits", VOCABULARY)]
    assert model.width("layers.1.mlp.hidden") == HIDDEN
    assert dict(model.part_sites()) == {
        "layers.N.attn.head.H": f"{WIDTH // HEADS}, H from 0 to {HEADS - 1}",
        "logits.random.D": "D",
        "logits.tokens.IDS": "as many as IDS",
    }
    assert model.width(f"layers.2.attn.head.{HEADS - 1}") == WIDTH // HEADS
    assert model.width("logits.random.7") == 7
    assert model.width("logits.tokens.0,5-9,63") == 7
    assert model.context == 64
    assert model.vocabulary == VOCABULARY


def test_an_unknown_architecture_lists_modules() -> None:
    model = wrap(unknown_architecture(), "opt-like")
    sites = dict(model.sites())
    assert sites["module:model.decoder.layers.1"] == WIDTH
    assert sites["module:model.decoder.layers.1.self_attn.q_proj"] == WIDTH
    assert sites["module:model.decoder.layers.1.fc1"] == HIDDEN
    assert "module:model.decoder.layers" not in sites
    assert [name for name, _ in model.part_sites()] == ["logits.random.D", "logits.tokens.IDS"]
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
        ("embedding", "attn.out,mlp.in,mlp.hidden,mlp.out,attn.head.H} with N from 0 to 2"),
        ("layers.1.attn.head.4", "layer 1 of llama has 4 attention heads, numbered 0 to 3"),
        ("layers.1.attn.head.x", "unknown site 'layers.1.attn.head.x'"),
        ("layers.9.attn.head.0", "llama has 3 layers"),
        ("logits.random.0", "logits.random.D with D from 1 to 64"),
        ("logits.random.65", "logits.random.D with D from 1 to 64"),
        ("logits.random.", "logits.random.D with D from 1 to 64"),
        ("logits.tokens.", "ids in rising order, such as 5,17,300-399, each below 64"),
        ("logits.tokens.3,64", "each below 64"),
        ("logits.tokens.3,3", "rising order"),
        ("logits.tokens.9-8", "rising order"),
        ("logits.tokens.1-5,4", "rising order"),
        ("logits.tokens.1,,2", "rising order"),
        ("logits.top.3", "expected logits, logits.random.D"),
        ("layers.-1.resid", "unknown site"),
        ("", "unknown site ''"),
        ("module:model.layer.0.mlp", "did you mean model.layers.0.mlp"),
        ("module:", "has no module ''; it has model, model.embed_tokens"),
    ],
)
def test_a_wrong_site_says_what_there_is(site: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        family("llama").site(site)


@pytest.mark.parametrize("name", list(MIXTURES))
def test_a_mixture_of_experts_has_no_single_hidden_layer(name: str) -> None:
    model = family(name)
    with pytest.raises(UsageError, match=rf"layer 1 of {name} \({name}\) has no mlp.down_proj"):
        model.site("layers.1.mlp.hidden")
    first = [site.name.removeprefix("layers.0.") for site in model.sites()][:6]
    assert first == ["resid", "attn.in", "attn.heads", "attn.out", "mlp.in", "mlp.out"]
    block = "module:model.layers.1.mlp"
    assert model.width(f"{block}.gate") == EXPERTS
    assert model.width(f"{block}.experts") == WIDTH
    if name == "qwen2_moe":
        assert model.width(f"{block}.shared_expert.down_proj:in") == SHARED
    for one in ("layers.1.experts.2", f"{block}.experts.0", f"{block}.experts.0.down_proj:in"):
        with pytest.raises(UsageError, match=rf"{one}': {name} computes all .* {block}\.ex"):
            model.site(one)
    with pytest.raises(SememeError, match=r"act_fn' of .* does not give one vector a token"):
        model.width(f"{block}.experts.act_fn")


def test_layers_may_have_different_numbers_of_heads() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = wrap(heads_by_layer((4, 2)), "laguna")
    assert model.width("layers.0.attn.heads") == 4 * 8
    assert model.width("layers.1.attn.heads") == 2 * 8
    assert dict(model.part_sites())["layers.N.attn.head.H"] == "8, H from 0 to 1 or 3"
    with pytest.raises(UsageError, match="layer 1 of laguna has 2 attention heads"):
        model.site("layers.1.attn.head.2")
    sites = ["layers.1.attn.heads", "layers.1.attn.head.1"]
    heads, second = read(model, torch.arange(12).view(2, 6), sites).values()
    assert torch.equal(heads[..., 8:], second)


def test_rows_sorted_by_expert_are_not_taken_for_tokens() -> None:
    """With one expert a token there are as many rows as tokens, in the order of the experts."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = wrap(one_expert_a_token(), "jet")
    site = "module:model.layers.0.mlp.input_linear"
    with pytest.raises(SememeError, match="in the order of the tokens"):
        read(model, torch.arange(12).view(2, 6), [site])
    with pytest.raises(SememeError, match="in the order of the tokens"):
        model.width(site)
    assert site not in dict(model.sites())
    assert model.width("module:model.layers.0.mlp.router.layer") == EXPERTS


def test_smollm2(smollm2: LanguageModel) -> None:
    sites = dict(smollm2.sites())
    assert len(sites) == 30 * 7 + 1
    assert sites["layers.14.resid"] == 576
    assert sites["layers.29.mlp.hidden"] == 1536
    assert sites["layers.14.attn.heads"] == 9 * 64
    assert sites["logits"] == 49152
    assert smollm2.part_sites()[0] == ("layers.N.attn.head.H", "64, H from 0 to 8")
