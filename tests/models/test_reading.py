import re

import pytest
import torch
from torch import Tensor, nn

from sememe.errors import SememeError, UsageError
from sememe.models.language_model import LanguageModel
from sememe.models.reading import read, replaced
from tests.models.tiny_families import (
    FAMILIES,
    LAYERS,
    VOCABULARY,
    family,
    unknown_architecture,
    wrap,
)

KINDS = ("resid", "mlp.hidden", "mlp.out", "attn.out")


@pytest.fixture(scope="module", params=list(FAMILIES))
def model(request: pytest.FixtureRequest) -> LanguageModel:
    return family(request.param)


def some_ids(vocabulary: int, batch: int = 3, time: int = 11) -> Tensor:
    return torch.randint(0, vocabulary, (batch, time), generator=torch.Generator().manual_seed(1))


def plain_hooks(model: LanguageModel, ids: Tensor, layer: int) -> dict[str, Tensor]:
    """Hook modules of ``layer`` by hand, as their modelling files name them, in a whole pass."""
    module = model.module
    if hasattr(module, "transformer"):
        block = module.transformer.h[layer]
        attention, mlp, down = block.attn, block.mlp, block.mlp.c_proj
    elif hasattr(module, "gpt_neox"):
        block = module.gpt_neox.layers[layer]
        attention, mlp, down = block.attention, block.mlp, block.mlp.dense_4h_to_h
    else:
        block = module.model.layers[layer]
        attention, mlp, down = block.self_attn, block.mlp, block.mlp.down_proj
    seen: dict[str, Tensor] = {}

    def output_of(name: str, target: nn.Module) -> object:
        def hook(_module: nn.Module, _args: object, output: object) -> None:
            seen[name] = (output[0] if isinstance(output, tuple) else output).clone()

        return target.register_forward_hook(hook)

    def input_of(name: str, target: nn.Module) -> object:
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            seen[name] = args[0].clone()

        return target.register_forward_pre_hook(hook)

    handles = [
        output_of(f"layers.{layer}.resid", block),
        output_of(f"layers.{layer}.attn.out", attention),
        output_of(f"layers.{layer}.mlp.out", mlp),
        input_of(f"layers.{layer}.mlp.hidden", down),
        output_of("logits", module.lm_head),
    ]
    with torch.no_grad():
        module(input_ids=ids)
    for handle in handles:
        handle.remove()
    return seen


def test_each_site_equals_a_plain_hook_bit_for_bit(model: LanguageModel) -> None:
    ids = some_ids(VOCABULARY)
    for layer in (0, LAYERS - 1):
        expected = plain_hooks(model, ids, layer)
        assert len(expected) == 5
        for name, tensor in expected.items():
            assert torch.equal(read(model, ids, [name])[name], tensor), name
        together = read(model, ids, list(expected))
        assert list(together) == list(expected)
        for name, tensor in expected.items():
            assert torch.equal(together[name], tensor), name


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


def test_right_padding_does_not_reach_what_is_before_it(model: LanguageModel) -> None:
    ids = some_ids(VOCABULARY, batch=3, time=17)
    lengths = (5, 17, 1)
    batch = torch.full_like(ids, VOCABULARY - 1)
    for row, length in enumerate(lengths):
        batch[row, :length] = ids[row, :length]
    names = ["layers.2.resid", "layers.1.mlp.hidden"]
    together = read(model, batch, names)
    for row, length in enumerate(lengths):
        alone = read(model, ids[row : row + 1, :length], names)
        for name in names:
            torch.testing.assert_close(
                together[name][row, :length], alone[name][0], rtol=1e-4, atol=1e-4
            )


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


@pytest.mark.parametrize("site", [*(f"layers.1.{kind}" for kind in KINDS), "logits"])
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
