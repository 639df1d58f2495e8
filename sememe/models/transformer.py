"""The built-in language model: a small transformer like that of Towards Monosemanticity.

It is a GPT-NeoX of transformers, so that it loads, is read and is replaced like any other model.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from sememe.artefacts import write_bytes, write_json
from sememe.errors import UsageError

WEIGHTS, CONFIG = "model.safetensors", "config.json"


@dataclass(frozen=True)
class TransformerConfig:
    """The shape of a model: blocks of attention, then an MLP of ReLUs, each added to the stream."""

    width: int = 128
    """Dimensions of the residual stream."""
    layers: int = 1
    hidden: int = 512
    """Neurons of each MLP."""
    heads: int = 4
    """Attention heads of each layer, with rotary positions."""
    context: int = 256
    """The most tokens that it reads at once."""
    vocabulary: int = 4096
    """Token ids; rows of the embedding and of the unembedding, which are apart."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise UsageError(f"{name} is {value}; expected 1 or more")
        if self.width % (2 * self.heads):
            raise UsageError(
                f"width is {self.width} and heads is {self.heads}; expected a width that is an "
                "even number for each head"
            )

    @property
    def weights(self) -> int:
        """Weights that every token is multiplied by: the embedding, which is looked up, is not."""
        layer = 4 * self.width**2 + 2 * self.width * self.hidden
        return self.layers * layer + self.width * self.vocabulary

    @property
    def flops(self) -> int:
        """Floating-point operations of training on one token.

        6 for each weight (2 forward, 4 backward), logits included, and 6 for each dimension and
        layer for each token of the context, of which causal attention sees half on average.
        """
        return 6 * self.weights + 6 * self.layers * self.width * self.context

    def make(self, seed: int) -> GPTNeoXForCausalLM:
        """Return a model of random weights."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return GPTNeoXForCausalLM(
                GPTNeoXConfig(
                    vocab_size=self.vocabulary,
                    hidden_size=self.width,
                    num_hidden_layers=self.layers,
                    num_attention_heads=self.heads,
                    intermediate_size=self.hidden,
                    hidden_act="relu",
                    max_position_embeddings=self.context,
                    use_parallel_residual=False,
                    tie_word_embeddings=False,
                    bos_token_id=0,
                    eos_token_id=0,
                    use_cache=False,
                )
            )


def save_transformer(module: GPTNeoXForCausalLM, out: Path) -> list[str]:
    """Write weights and configuration to ``out`` as transformers reads them; return their names."""
    tensors = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    write_bytes(out / WEIGHTS, save(tensors, metadata={"format": "pt"}))
    write_json(out / CONFIG, json.loads(module.config.to_json_string(use_diff=True)))
    return [WEIGHTS, CONFIG]
