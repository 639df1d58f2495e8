import re

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sememe.errors import SememeError, UsageError
from sememe.models.language_model import LanguageModel
from sememe.models.reading import check_replaceable, read, replaced
from tests.models.tiny_families import (
    FAMILIES,
    HEADS,
    LAYERS,
    MIXTURES,
    VOCABULARY,
    family,
    unknown_architecture,
    wrap,
)

KINDS = ("resid", "attn.in", "attn.heads", "attn.out", "mlp.in", "mlp.hidden", "mlp.out")
PARTS = (*(f"layers.1.attn.head.{head}" for head in range(HEADS)), "logits.tokens.2,5-7")
ROUNDING = 1e-4
"""How far rows may lie apart that were summed in another order: in fp32, weights of 0.3."""


@pytest.fixture(scope="module", params=list(FAMILIES))
def model(request: pytest.FixtureRequest) -> LanguageModel:
    return family(request.param)


def some_ids(vocabulary: int, batch: int = 3, time: int = 11) -> Tensor:
    return torch.randint(0, vocabulary, (batch, time), generator=torch.Generator().manual_seed(1))


def hook_by_hand(module: nn.Module, targets: dict[str, tuple[nn.Module, str]], ids: Tensor) -> dict:
    """Return what plain hooks on the targets' inputs or outputs see in a whole pass."""
    seen: dict[str, Tensor] = {}

    def output_of(name: str, target: nn.Module) -> object:
        def hook(_module: nn.Module, _args: object, output: object) -> None:
            seen[name] = (output[0] if isinstance(output, tuple) else output).clone()

        return target.register_forward_hook(hook)

    def input_of(name: str, target: nn.Module) -> object:
        def hook(_module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
            seen[name] = (args[0] if args else kwargs["hidden_states"]).clone()

        return target.register_forward_pre_hook(hook, with_kwargs=True)

    handles = [
        (input_of if side == "in" else output_of)(name, target)
        for name, (target, side) in targets.items()
    ]
    with torch.no_grad():
        module(input_ids=ids)
    for handle in handles:
        handle.remove()
    return seen


def plain_hooks(model: LanguageModel, ids: Tensor, layer: int) -> dict[str, Tensor]:
    """Hook modules of ``layer`` by hand, as their modelling files name them, in a whole pass."""
    module = model.module
    if hasattr(module, "transformer"):
        block = module.transformer.h[layer]
        attention, mlp, heads, down = block.attn, block.mlp, block.attn.c_proj, block.mlp.c_proj
    elif hasattr(module, "gpt_neox"):
        block = module.gpt_neox.layers[layer]
        attention, mlp, heads = block.attention, block.mlp, block.attention.dense
        down = mlp.dense_4h_to_h
    else:
        block = module.model.layers[layer]
        attention, mlp, heads = block.self_attn, block.mlp, block.self_attn.o_proj
        down = getattr(mlp, "down_proj", None)
    name = f"layers.{layer}."
    targets = {
        name + "attn.in": (attention, "in"),
        name + "attn.heads": (heads, "in"),
        name + "attn.out": (attention, "out"),
        name + "mlp.in": (mlp, "in"),
        name + "mlp.out": (mlp, "out"),
        name + "resid": (block, "out"),
        "logits": (module.lm_head, "out"),
    }
    if down is not None:
        targets[name + "mlp.hidden"] = (down, "in")
    seen = hook_by_hand(module, targets, ids)
    count = module.config.num_attention_heads
    width = seen[name + "attn.heads"].shape[-1] // count
    for head in range(count):
        share = slice(head * width, (head + 1) * width)
        seen[f"{name}attn.head.{head}"] = seen[name + "attn.heads"][..., share]
    seen["logits.tokens.2,5-7"] = seen["logits"][..., [2, 5, 6, 7]]
    return seen


def test_each_site_equals_a_plain_hook_bit_for_bit(model: LanguageModel) -> None:
    ids = some_ids(VOCABULARY)
    for layer in (0, LAYERS - 1):
        expected = plain_hooks(model, ids, layer)
        assert len(expected) == 9 + HEADS
        for name, tensor in expected.items():
            assert torch.equal(read(model, ids, [name])[name], tensor), name
        together = read(model, ids, list(expected))
        assert list(together) == list(expected)
        for name, tensor in expected.items():
            assert torch.equal(together[name], tensor), name


@pytest.mark.parametrize("name", list(MIXTURES))
def test_routers_and_experts_equal_plain_hooks_with_a_row_a_token(name: str) -> None:
    model, ids = family(name), some_ids(VOCABULARY)
    layer = model.module.model.layers[1]
    path = "module:model.layers.1.mlp"
    targets = {
        f"{path}.gate": (layer.mlp.gate, "out"),
        f"{path}.experts": (layer.mlp.experts, "out"),
        f"{path}.experts:in": (layer.mlp.experts, "in"),
    }
    if name == "qwen2_moe":
        shared = layer.mlp.shared_expert
        targets[f"{path}.shared_expert"] = (shared, "out")
        targets[f"{path}.shared_expert.down_proj:in"] = (shared.down_proj, "in")
    seen = hook_by_hand(model.module, targets, ids)
    assert {len(tensor) for tensor in seen.values()} == {ids.numel()}
    expected = {name: tensor.view(*ids.shape, -1) for name, tensor in seen.items()}
    expected |= plain_hooks(model, ids, 1)
    together = read(model, ids, list(expected))
    for site, tensor in expected.items():
        assert torch.equal(together[site], tensor), site
    mixed, added = expected[f"{path}.experts"], expected["layers.1.mlp.out"]
    if name != "qwen2_moe":  # which adds its shared expert
        assert torch.equal(mixed, added)
    with torch.no_grad():
        chosen = expected[f"{path}.experts:in"] @ layer.mlp.gate.weight.T
    torch.testing.assert_close(chosen, expected[f"{path}.gate"])


@pytest.mark.parametrize("name", list(MIXTURES))
def test_one_expert_alone_is_refused_with_the_reason(name: str) -> None:
    model, ids = family(name), some_ids(VOCABULARY)
    with pytest.raises(SememeError, match=r"only the tokens that are routed to it: choose"):
        read(model, ids, ["module:model.layers.1.mlp.experts.act_fn"])


def test_a_random_projection_is_the_product_with_a_gaussian_matrix() -> None:
    """Fixed by its name: the matrix is numpy's of seed D; squared lengths stay as they are."""
    model, ids = family("llama"), some_ids(VOCABULARY)
    logits, small, large = read(
        model, ids, ["logits", "logits.random.5", "logits.random.60"]
    ).values()
    for projected in (small, large):
        width = projected.shape[-1]
        matrix = np.random.default_rng(width).standard_normal((VOCABULARY, width), np.float32)
        expected = logits.double() @ torch.from_numpy(matrix).double() / width**0.5
        torch.testing.assert_close(projected.double(), expected, rtol=1e-5, atol=1e-5)
    ratio = large.square().sum(-1) / logits.square().sum(-1)
    assert 0.8 < float(ratio.mean()) < 1.2
    assert torch.equal(read(family("llama"), ids, ["logits.random.5"])["logits.random.5"], small)


def test_smollm2_sites_equal_plain_hooks(smollm2: LanguageModel) -> None:
    ids = some_ids(smollm2.vocabulary, batch=2, time=9)
    for name, tensor in plain_hooks(smollm2, ids, 14).items():
        assert torch.equal(read(smollm2, ids, [name])[name], tensor), name


def test_a_plain_residual_sum_is_what_attention_and_mlp_write() -> None:
    """In a Llama, resid(n) = resid(n-1) + attn.out(n) + mlp.out(n): names mean what they say."""
    model = family("llama")
    names = ["layers.0.resid", "layers.1.attn.out", "layers.1.mlp.out", "layers.1.resid"]
    before, attention, mlp, after = read(model, some_ids(VOCABULARY), names).values()
    torch.testing.assert_close(before + attention + mlp, after)


def test_hidden_is_gate_times_value() -> None:
    model = family("llama")
    ids = some_ids(VOCABULARY)
    mlp = model.module.model.layers[1].mlp
    places = ["module:model.layers.1.mlp:in", "layers.1.mlp.hidden"]
    entering, hidden = read(model, ids, places).values()
    with torch.no_grad():
        expected = nn.functional.silu(mlp.gate_proj(entering)) * mlp.up_proj(entering)
    torch.testing.assert_close(hidden, expected)


def test_module_sites_of_an_unknown_architecture() -> None:
    model = wrap(unknown_architecture(), "opt-like")
    ids = some_ids(VOCABULARY)
    found = read(model, ids, ["module:model.decoder.layers.0", "logits"])
    assert found["module:model.decoder.layers.0"].shape == (3, 11, 32)
    assert torch.equal(found["logits"], model.logits(ids))


def test_the_pass_stops_at_the_last_site(model: LanguageModel) -> None:
    ran: list[str] = []
    handles = [
        module.register_forward_hook(lambda _m, _a, _o, path=path: ran.append(path))
        for path, module in model.module.named_modules()
    ]
    read(model, some_ids(VOCABULARY), ["layers.1.resid", "layers.0.mlp.out"])
    for handle in handles:
        handle.remove()
    last = model.site("layers.1.resid").path
    assert ran[-1] == last
    assert ran.count(last) == 1


def test_no_hook_and_no_gradient_is_left(model: LanguageModel) -> None:
    result = read(model, some_ids(VOCABULARY), ["layers.1.resid"])["layers.1.resid"]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.module.modules())
    assert not result.requires_grad
    weight = torch.ones(result.shape[-1], requires_grad=True)
    (result * weight).sum().backward()  # an inference-mode tensor would refuse
    torch.testing.assert_close(weight.grad, result.sum((0, 1)))


LENGTHS = (5, 17, 1)


def padded(side: str, filler: int) -> tuple[Tensor, Tensor]:
    """Return documents of ``LENGTHS`` padded with ``filler`` on one side, and where they stand."""
    ids = some_ids(VOCABULARY, batch=3, time=17)
    batch, valid = torch.full_like(ids, filler), torch.zeros_like(ids, dtype=torch.bool)
    for row, length in enumerate(LENGTHS):
        place = slice(0, length) if side == "right" else slice(17 - length, 17)
        batch[row, place], valid[row, place] = ids[row, :length], True
    return batch, valid


def all_sites(model: LanguageModel) -> list[str]:
    names = [site.name for site in model.sites() if ".0." not in site.name]
    more = ["layers.1.attn.head.1", "logits.random.6", "logits.tokens.1-3"]
    if model.name in MIXTURES:
        more += ["module:model.layers.1.mlp.gate", "module:model.layers.1.mlp.experts"]
    return [*names, *more]


@pytest.mark.parametrize("name", [*FAMILIES, *MIXTURES])
def test_padding_on_either_side_leaves_the_rows_of_single_documents(name: str) -> None:
    model = family(name)
    sites = all_sites(model)
    ids = some_ids(VOCABULARY, batch=3, time=17)
    alone = [read(model, ids[row : row + 1, :n], sites) for row, n in enumerate(LENGTHS)]
    for side in ("left", "right"):
        batch, valid = padded(side, VOCABULARY - 1)
        for given in (valid, None) if side == "right" else (valid,):
            together = read(model, batch, sites, valid=given)
            for site in sites:
                expected = torch.cat([rows[site][0] for rows in alone])
                torch.testing.assert_close(
                    together[site][valid], expected, rtol=ROUNDING, atol=ROUNDING, msg=site
                )


@pytest.mark.parametrize("side", ["left", "right"])
def test_what_stands_in_the_padding_changes_no_bit(model: LanguageModel, side: str) -> None:
    sites = all_sites(model)
    batch, valid = padded(side, VOCABULARY - 1)
    first = read(model, batch, sites, valid=valid)
    other = read(model, padded(side, 3)[0], sites, valid=valid)
    for site in sites:
        assert torch.equal(first[site][valid], other[site][valid]), site


def test_right_padding_needs_no_mask(model: LanguageModel) -> None:
    batch, valid = padded("right", 0)
    sites = ["layers.1.resid", "layers.2.attn.heads"]
    given, without = read(model, batch, sites, valid=valid), read(model, batch, sites)
    for site in sites:
        assert torch.equal(given[site], without[site])


def test_valid_that_cannot_be_read_is_refused() -> None:
    model, ids = family("llama"), some_ids(VOCABULARY)
    gap = torch.ones_like(ids, dtype=torch.bool)
    gap[1, 4] = False
    with pytest.raises(UsageError, match="valid has a gap"):
        read(model, ids, ["layers.1.resid"], valid=gap)


def test_attention_gets_no_mask_tensor(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = nn.functional.scaled_dot_product_attention
    masks: list[Tensor | None] = []

    def spy(*args: Tensor, **kwargs: object) -> Tensor:
        mask = kwargs.get("attn_mask")
        masks.append(mask)
        assert mask is not None or kwargs.get("is_causal")
        return real(*args, **kwargs)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", spy)
    read(model, some_ids(VOCABULARY), ["layers.1.resid"])
    if model.name == "gemma2":  # soft-capped attention: transformers computes it without sdpa
        assert not masks
    else:
        assert masks == [None, None]


@pytest.mark.parametrize("site", [*(f"layers.1.{kind}" for kind in KINDS), "logits", *PARTS])
def test_replacing_by_the_same_changes_nothing(model: LanguageModel, site: str) -> None:
    ids = some_ids(VOCABULARY)
    before = model.logits(ids)
    seen: list[torch.Size] = []

    def same(tensor: Tensor) -> Tensor:
        seen.append(tensor.shape)
        return tensor.clone()

    with replaced(model, site, same):
        assert torch.equal(model.logits(ids), before)
    assert seen == [(3, 11, model.width(site))]
    with replaced(model, site, torch.zeros_like):
        assert not torch.equal(model.logits(ids), before)
    assert torch.equal(model.logits(ids), before)


def test_a_replaced_stream_is_the_logits_of_another_text(model: LanguageModel) -> None:
    """Whatever text was read, a stream put in after the last layer decides all logits."""
    site = f"layers.{LAYERS - 1}.resid"
    ids, others = some_ids(VOCABULARY), some_ids(VOCABULARY).flip(1)
    theirs = read(model, others, [site])[site]
    with replaced(model, site, lambda _: theirs):
        assert torch.equal(model.logits(ids), model.logits(others))
        assert torch.equal(read(model, ids, [site])[site], theirs)


def test_a_replaced_head_leaves_the_others(model: LanguageModel) -> None:
    ids, site = some_ids(VOCABULARY), "layers.1.attn.heads"
    width = model.width(site) // HEADS
    plain = read(model, ids, [site])[site]
    with replaced(model, "layers.1.attn.head.2", lambda x: x * 3):
        changed = read(model, ids, [site])[site]
    expected = plain.clone()
    expected[..., 2 * width : 3 * width] *= 3
    assert torch.equal(changed, expected)
    shift = torch.zeros(width, requires_grad=True)
    with replaced(model, "layers.1.attn.head.2", lambda x: x + shift):
        model.logits(ids, grad=True).logsumexp(-1).sum().backward()
    assert shift.grad is not None
    assert shift.grad.abs().sum() > 0


def test_replaced_logits_of_some_tokens_leave_the_others() -> None:
    model, ids = family("llama"), some_ids(VOCABULARY)
    before = model.logits(ids)
    with replaced(model, "logits.tokens.2,5-7", torch.zeros_like):
        after = model.logits(ids)
    chosen = [2, 5, 6, 7]
    assert not after[..., chosen].any()
    others = [token for token in range(VOCABULARY) if token not in chosen]
    assert torch.equal(after[..., others], before[..., others])


def test_what_a_block_reads_can_be_replaced(model: LanguageModel) -> None:
    """With nothing to read, an MLP gives every token the same."""
    with replaced(model, "layers.1.mlp.in", torch.zeros_like):
        out = read(model, some_ids(VOCABULARY), ["layers.1.mlp.out"])["layers.1.mlp.out"]
    assert torch.equal(out, out[:1, :1].expand_as(out))


@pytest.mark.parametrize("name", list(MIXTURES))
def test_experts_are_replaced_token_by_token_and_routers_are_refused(name: str) -> None:
    model, ids = family(name), some_ids(VOCABULARY)
    site, router = "module:model.layers.1.mlp.experts", "module:model.layers.1.mlp.gate"
    plain = read(model, ids, [site, "layers.1.mlp.out"])
    seen: list[torch.Size] = []

    def move(x: Tensor) -> Tensor:
        seen.append(x.shape)
        return x + torch.arange(11.0)[:, None]

    with replaced(model, site, move):
        changed = read(model, ids, ["layers.1.mlp.out"])["layers.1.mlp.out"]
    assert seen == [(3, 11, 32)]
    moved = plain["layers.1.mlp.out"] + torch.arange(11.0)[:, None]
    torch.testing.assert_close(changed, moved)
    with (
        replaced(model, router, torch.zeros_like),
        pytest.raises(
            SememeError, match=r"it is a router.*replace what it reads, module:.*gate:in"
        ),
    ):
        model.logits(ids)
    with pytest.raises(SememeError, match="it is a router"):
        check_replaceable(model, router)
    check_replaceable(model, site)
    with replaced(model, f"{router}:in", torch.zeros_like):
        assert not read(model, ids, [router])[router].any()


def test_a_random_projection_cannot_be_replaced() -> None:
    with (
        pytest.raises(UsageError, match=r"'logits.random.4' can be read but not replaced"),
        replaced(family("llama"), "logits.random.4", torch.zeros_like),
    ):
        pass


def test_replacements_nest(model: LanguageModel) -> None:
    ids = some_ids(VOCABULARY)
    site = "layers.1.mlp.out"
    plain = read(model, ids, [site])[site]
    with replaced(model, site, lambda x: x + 1), replaced(model, site, lambda x: x * 2):
        torch.testing.assert_close(read(model, ids, [site])[site], (plain + 1) * 2)


def test_gradients_reach_a_replacement_when_asked(model: LanguageModel) -> None:
    ids = some_ids(VOCABULARY)
    shift = torch.zeros(32, requires_grad=True)
    with replaced(model, "layers.1.resid", lambda x: x + shift):
        assert not model.logits(ids).requires_grad
        model.logits(ids, grad=True).logsumexp(-1).sum().backward()
    assert shift.grad is not None
    assert shift.grad.abs().sum() > 0


def test_a_replacement_of_another_shape_is_refused() -> None:
    model = family("llama")
    with (
        replaced(model, "layers.1.resid", lambda x: x[..., :3]),
        pytest.raises(SememeError, match=re.escape("(3, 11, 3)")),
    ):
        model.logits(some_ids(VOCABULARY))


def test_errors_of_reading() -> None:
    model = family("llama")
    ids = some_ids(VOCABULARY)
    assert read(model, ids, []) == {}
    with pytest.raises(UsageError, match=r"layers\.9\.resid"):
        read(model, ids, ["layers.9.resid"])
    with pytest.raises(SememeError, match="does not run"):
        read(model, ids, ["module:model.layers"])
    with pytest.raises(SememeError, match=r"shape \(1, 11, 8\)"):
        read(model, ids, ["module:model.rotary_emb"])
    assert not any(m._forward_hooks for m in model.module.modules())
