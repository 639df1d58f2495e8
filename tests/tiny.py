"""A tiny random model with a real byte-level tokenizer, saved as a Hugging Face directory."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM

from sememe.models.quiet import quiet

TEXT = (
    "The sea was calm and the ship sailed on. She said that the sun would rise over the hills.",
    "def add(first, second):\n    return first + second\n",
    "In 1984 there were 1,024 of them; by 2021 only 37 were left.",
    "Море было спокойно, и корабль шёл дальше.",
    "البحر هادئ والسفينة تبحر. 바다는 잔잔했다. 大海很平静。",
)


def tiny_tokenizer(path: Path, *, vocabulary: int = 512) -> None:
    """Train a byte-level tokenizer on ``TEXT`` and save it as ``path``/tokenizer.json."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        TEXT,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=["<|bos|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    backend.post_processor = processors.TemplateProcessing(
        single="<|bos|> $A", special_tokens=[("<|bos|>", 0)]
    )
    path.mkdir(parents=True, exist_ok=True)
    backend.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|bos|>"})
    )


def tiny_model(path: Path, *, layers: int = 3, width: int = 32, context: int = 128) -> Path:
    """Save a random Llama (seed 0) and its tokenizer in ``path``, for load_model(str(path))."""
    tiny_tokenizer(path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=512,
                hidden_size=width,
                intermediate_size=3 * width,
                num_hidden_layers=layers,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=context,
                initializer_range=0.3,
                tie_word_embeddings=False,
                bos_token_id=0,
                eos_token_id=0,
            )
        )
    with quiet():
        module.save_pretrained(str(path))
    return path
