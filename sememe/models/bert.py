"""BERT (Devlin et al., 2018) as an encoder, for one sentence model in the server.

transformers has it too, but takes 200 MB of memory to import, a fifth of what the server of a
million features may use. Modules and weights have the names that they have there.
"""

import json
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
    "layer_norm_eps",
)
# Axis names: batch, time = tokens, width.


class Bert(nn.Module):
    """Token ids to a vector a token. No dropout: it is not for training."""

    def __init__(
        self,
        *,
        vocab_size: int,
        hidden_size: int,
        num_hidden_layers: int,
        num_attention_heads: int,
        intermediate_size: int,
        max_position_embeddings: int,
        type_vocab_size: int,
        layer_norm_eps: float,
    ) -> None:
        super().__init__()
        width = self.width = hidden_size
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(vocab_size, width),
                "position_embeddings": nn.Embedding(max_position_embeddings, width),
                "token_type_embeddings": nn.Embedding(type_vocab_size, width),
                "LayerNorm": nn.LayerNorm(width, layer_norm_eps),
            }
        )
        layers = (
            _Layer(width, num_attention_heads, intermediate_size, layer_norm_eps)
            for _ in range(num_hidden_layers)
        )
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(layers)})

    @classmethod
    def load(cls, directory: Path, dtype: torch.dtype) -> "Bert":
        """Read ``config.json`` and ``model.safetensors`` as transformers writes them."""
        config = json.loads((directory / "config.json").read_text())
        bert = cls(**{name: config[name] for name in SIZES})  # on "meta" torch imports 150 MB
        with safe_open(directory / "model.safetensors", "pt") as file:
            weights = {name: file.get_tensor(name).to(dtype) for name in bert.state_dict()}
        bert.load_state_dict(weights, assign=True)
        return bert

    def forward(
        self, ids: Int[Tensor, "batch time"], there: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time width"]:
        """Return a vector a token; none looks at tokens that are not ``there``."""
        part = self.embeddings
        places = torch.arange(ids.shape[1])
        x: Tensor = part["word_embeddings"](ids) + part["token_type_embeddings"](
            torch.zeros_like(ids[:1, :1])
        )
        x = part["LayerNorm"](x + part["position_embeddings"](places))
        layers = self.encoder["layer"]
        assert isinstance(layers, nn.ModuleList)
        for layer in layers:
            x = layer(x, there[:, None, None, :])
        return x


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int, inner: int, epsilon: float) -> None:
        super().__init__()
        self.heads = heads
        looked = {name: nn.Linear(width, width) for name in ("query", "key", "value")}
        self.attention = nn.ModuleDict(
            {"self": nn.ModuleDict(looked), "output": _sum(width, width, epsilon)}
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, inner)})
        self.output = _sum(inner, width, epsilon)

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        parts = self.attention["self"]
        assert isinstance(parts, nn.ModuleDict)
        q, k, v = (
            parts[name](x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        seen = scaled_dot_product_attention(q, k, v, attn_mask=there).transpose(1, 2).flatten(2)
        x = _added(self.attention["output"], seen, x)
        return _added(self.output, gelu(self.intermediate["dense"](x)), x)


def _sum(inner: int, width: int, epsilon: float) -> nn.ModuleDict:
    return nn.ModuleDict(
        {"dense": nn.Linear(inner, width), "LayerNorm": nn.LayerNorm(width, epsilon)}
    )


def _added(part: nn.Module, x: Tensor, to: Tensor) -> Tensor:
    assert isinstance(part, nn.ModuleDict)
    found: Tensor = part["LayerNorm"](part["dense"](x) + to)
    return found
