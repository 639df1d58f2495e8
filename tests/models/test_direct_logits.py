import numpy as np
import pytest
import torch

from sememe.models.language_model import LanguageModel
from sememe.models.reading import read, replaced
from tests.models.tiny_families import FAMILIES, LAYERS, VOCABULARY, WIDTH, family


def final_norm_and_head(model: LanguageModel) -> tuple[torch.nn.Module, np.ndarray]:
    module = model.module
    if hasattr(module, "transformer"):
        norm = module.transformer.ln_f
    elif hasattr(module, "gpt_neox"):
        norm = module.gpt_neox.final_layer_norm
    else:
        norm = module.model.norm
    return norm, module.lm_head.weight.double().numpy()


@pytest.mark.parametrize("name", list(FAMILIES))
def test_against_the_definition_in_float64(name: str) -> None:
    model = family(name)
    norm, unembedding = final_norm_and_head(model)
    directions = torch.randn(7, WIDTH, generator=torch.Generator().manual_seed(2))
    scaled = directions.double().numpy()
    if name in ("gpt2", "gpt_neox"):
        scaled = scaled - scaled.mean(-1, keepdims=True)
    weight = norm.weight.double().numpy()
    scaled = scaled * (1.0 + weight if name.startswith("gemma") else weight)
    expected = scaled @ unembedding.T
    np.testing.assert_allclose(
        model.direct_logits(directions).numpy(), expected, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2"])
def test_against_the_model_itself(name: str) -> None:
    """With the norm's denominator multiplied away, logits are linear in the last stream.

    So size(h + d) * logits(h + d) - size(h) * logits(h), by the model's own last norm and
    unembedding in float64, is what direction d adds by the direct path.
    """
    model = family(name)
    model.module.double()
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    site = f"layers.{LAYERS - 1}.resid"
    stream = read(model, ids, [site])[site]
    direction = torch.randn(WIDTH, generator=torch.Generator().manual_seed(3)).double()

    def size(x: torch.Tensor) -> torch.Tensor:
        if name == "gpt2":
            x = x - x.mean(-1, keepdim=True)
        norm, _ = final_norm_and_head(model)
        epsilon = getattr(norm, "variance_epsilon", None) or norm.eps
        return (x.square().mean(-1, keepdim=True) + epsilon).sqrt()

    def bias_free(x: torch.Tensor) -> torch.Tensor:
        with replaced(model, site, lambda _: x):
            logits = model.logits(ids)
        with replaced(model, site, lambda _: torch.zeros_like(x)):
            return logits - model.logits(ids)

    moved = stream + direction
    by_model = bias_free(moved) * size(moved) - bias_free(stream) * size(stream)
    direct = model.direct_logits(direction[None].float())[0].double()
    torch.testing.assert_close(by_model[0], direct.expand(5, VOCABULARY), rtol=1e-3, atol=1e-3)


def test_smollm2_promotes_what_it_unembeds(smollm2: LanguageModel) -> None:
    """The direction that the unembedding has for a token promotes that token above all others."""
    head = smollm2.module.get_output_embeddings().weight
    tokens = [504, 16438, 27003]
    norm = smollm2.module.model.norm.weight
    effects = smollm2.direct_logits(head[tokens].float() / norm)
    torch.testing.assert_close(effects, head[tokens] @ head.T, rtol=1e-4, atol=1e-4)
