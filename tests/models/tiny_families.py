"""A tiny random model of each architecture family, built from its config class."""

from collections.abc import Callable

import torch
from tokenizers import Tokenizer as Backend
from tokenizers.models import WordLevel
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    JetMoeConfig,
    JetMoeForCausalLM,
    LagunaConfig,
    LagunaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from sememe.models.language_model import LanguageModel
from sememe.models.tokenizer import Tokenizer

VOCABULARY, WIDTH, HIDDEN, LAYERS, HEADS = 64, 32, 80, 3, 4
EXPERTS, SHARED = 4, 24
_GATED = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}

FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**_GATED)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**_GATED, sliding_window=32)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**_GATED)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**_GATED)),
    "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**_GATED, sliding_window=32)),
    "gemma3": lambda: Gemma3ForCausalLM(Gemma3TextConfig(**_GATED, sliding_window=32)),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY,
            n_embd=WIDTH,
            n_layer=LAYERS,
            n_head=4,
            n_inner=HIDDEN,
            n_positions=64,
            initializer_range=0.3,
        )
    ),
    "gpt_neox": lambda: GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            intermediate_size=HIDDEN,
            num_hidden_layers=LAYERS,
            num_attention_heads=4,
            max_position_embeddings=64,
            initializer_range=0.3,
        )
    ),
}
"""The architectures with named sites."""

_EXPERTS = {
    **_GATED,
    "num_experts": EXPERTS,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
}
MIXTURES: dict[str, Callable[[], PreTrainedModel]] = {
    "mixtral": lambda: MixtralForCausalLM(
        MixtralConfig(**_GATED, num_local_experts=EXPERTS, num_experts_per_tok=2)
    ),
    "qwen2_moe": lambda: Qwen2MoeForCausalLM(
        Qwen2MoeConfig(**_EXPERTS, shared_expert_intermediate_size=SHARED)
    ),
    "qwen3_moe": lambda: Qwen3MoeForCausalLM(Qwen3MoeConfig(**_EXPERTS)),
}
"""Mixtures of experts: named sites but for the MLP's hidden layer, which every expert has."""


def heads_by_layer(counts: tuple[int, ...]) -> PreTrainedModel:
    """Return a model whose layers have these numbers of heads, of width 8."""
    return LagunaForCausalLM(
        LagunaConfig(
            **{**_EXPERTS, "num_hidden_layers": len(counts)},
            num_attention_heads_per_layer=list(counts),
            shared_expert_intermediate_size=SHARED,
        )
    )


def one_expert_a_token() -> PreTrainedModel:
    """Return a mixture whose experts read tokens sorted by expert, as many as there are tokens."""
    return JetMoeForCausalLM(
        JetMoeConfig(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            intermediate_size=40,
            num_hidden_layers=2,
            num_key_value_heads=2,
            kv_channels=8,
            num_local_experts=EXPERTS,
            num_experts_per_tok=1,
            max_position_embeddings=64,
            initializer_range=0.3,
        )
    )


def unknown_architecture() -> PreTrainedModel:
    """Return a model of an architecture that has no named sites here."""
    return OPTForCausalLM(
        OPTConfig(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            ffn_dim=HIDDEN,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=64,
            word_embed_proj_dim=WIDTH,
        )
    )


def wrap(module: PreTrainedModel, name: str) -> LanguageModel:
    """Return ``module`` as a LanguageModel, with a tokenizer that is not used."""
    return LanguageModel(name, module, Tokenizer(Backend(WordLevel({"a": 0}, "a"))), hash="0")


def family(name: str) -> LanguageModel:
    """Return the tiny model of family ``name`` with weights of seed 0, norms included."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = {**FAMILIES, **MIXTURES}[name]()
        for path, parameter in module.named_parameters():
            if "norm" in path or "ln_" in path or "bias" in path:
                parameter.data += 0.2 * torch.randn_like(parameter)
    return wrap(module, name)
