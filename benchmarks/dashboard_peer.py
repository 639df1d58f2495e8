"""SAEDashboard on a folder of tokens and weights: runs in its own environment, without sememe.

``benchmarks.dashboard`` calls it. The model is built from a directory; nothing is fetched.
"""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
from sae_dashboard.sae_vis_data import SaeVisConfig
from sae_dashboard.sae_vis_runner import SaeVisRunner
from sae_lens import TopKSAE, TopKSAEConfig
from safetensors.torch import load_file
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions import convert_llama_weights
from transformers import AutoModelForCausalLM


def load(directory: Path) -> HookedTransformer:
    """Return a Llama-like model as TransformerLens has it."""
    source = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    given = source.config
    rope = getattr(given, "rope_theta", None) or given.rope_parameters["rope_theta"]
    config = HookedTransformerConfig(
        d_model=given.hidden_size,
        n_layers=given.num_hidden_layers,
        n_heads=given.num_attention_heads,
        n_key_value_heads=given.num_key_value_heads,
        d_head=given.hidden_size // given.num_attention_heads,
        d_mlp=given.intermediate_size,
        d_vocab=given.vocab_size,
        n_ctx=1024,
        act_fn=given.hidden_act,
        normalization_type="RMS",
        positional_embedding_type="rotary",
        rotary_base=int(rope),
        rotary_dim=given.hidden_size // given.num_attention_heads,
        rotary_adjacent_pairs=False,
        gated_mlp=True,
        final_rms=True,
        eps=given.rms_norm_eps,
        original_architecture="LlamaForCausalLM",
        device="cpu",
    )
    model = HookedTransformer(config)
    state = convert_llama_weights(source, config)
    model.load_state_dict(model.fill_missing_keys(state), strict=False)
    with torch.inference_mode():
        ids = torch.arange(16)[None]
        error = (model(ids) - source(ids).logits).abs().max()
    assert error < 1e-2, f"the model computes other logits than its source: off by {error}"
    return model.eval()


def main(folder: Path) -> None:
    """Describe the features that the folder names, and print the seconds."""
    asked = json.loads((folder / "asked.json").read_text())
    torch.set_num_threads(asked["threads"])
    model = load(folder / "model")
    weights = load_file(folder / "dictionary.safetensors")
    features, width = weights["W_dec"].shape
    sae = TopKSAE(
        TopKSAEConfig(
            d_in=width,
            d_sae=features,
            k=asked["k"],
            apply_b_dec_to_input=False,
            rescale_acts_by_decoder_norm=True,
        )
    )
    sae.load_state_dict(weights)
    tokens = torch.from_numpy(np.load(folder / "tokens.npy")).long()
    config = SaeVisConfig(
        hook_point=f"blocks.{asked['layer']}.hook_resid_post",
        features=list(range(asked["features"])),
        minibatch_size_features=asked["features"],
    )
    cpu, wall = time.process_time(), time.perf_counter()
    made = SaeVisRunner(config).run(encoder=sae, model=model, tokens=tokens)
    taken = time.process_time() - cpu, time.perf_counter() - wall
    assert len(made.feature_data_dict) == asked["features"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(json.dumps({"cpu": taken[0], "wall": taken[1], "peak_mb": peak}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
