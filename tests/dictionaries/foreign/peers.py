"""Dictionaries built, saved, loaded and run by the packages that define the formats.

Every case writes a directory as its package does and returns what the package itself makes of some
activations after loading that directory: independent of anything in sememe. Decoder rows have
norms from .5 to 2, and biases and thresholds are large enough that a mistake in any shows.
"""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

WIDTH, OUT, FEATURES, K, ROWS = 8, 6, 24, 4, 16
EXPECTED = "expected.safetensors"


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(width: int = WIDTH) -> Tensor:
    return 3 * draw(ROWS, width, seed=99) + 1


def fill(module: nn.Module) -> None:
    """Set every parameter to random numbers, a threshold to some below and some above zero."""
    for seed, (name, value) in enumerate(sorted(module.named_parameters())):
        value.data = 0.5 * draw(*value.shape, seed=seed)
        if name == "threshold":
            value.data = 3 * value.data + 0.5


def outcome(encode: Callable[[Tensor], Tensor], decode: Callable[[Tensor], Tensor]) -> dict:
    """Return the package's code and reconstruction, and how far a code's unit moves the latter."""
    x = inputs()
    code = encode(x)
    moved = decode(torch.eye(FEATURES)) - decode(torch.zeros(1, FEATURES))
    return {"x": x, "code": code, "norms": moved.norm(dim=1), "rebuilt": decode(code)}


def saelens(kind: str, directory: Path) -> dict[str, Tensor]:
    from sae_lens import SAE
    from sae_lens import saes as s

    shape = {"d_in": WIDTH, "d_sae": FEATURES}
    if "transcoder" in kind:
        shape["d_out"] = OUT
        shape["apply_b_dec_to_input"] = False
    batched = {"k": K, **shape}
    made = {
        "standard": lambda: s.StandardSAE(s.StandardSAEConfig(**shape)),
        "uncentred": lambda: s.StandardSAE(
            s.StandardSAEConfig(**shape, apply_b_dec_to_input=False)
        ),
        "scaled": lambda: s.StandardSAE(s.StandardSAEConfig(**shape)),
        "before-6": lambda: s.TopKSAE(s.TopKSAEConfig(**shape, k=K)),
        "topk": lambda: s.TopKSAE(s.TopKSAEConfig(**shape, k=K)),
        "topk-rescaled": lambda: s.TopKSAE(
            s.TopKSAEConfig(**shape, k=K, rescale_acts_by_decoder_norm=True)
        ),
        "jumprelu": lambda: s.JumpReLUSAE(s.JumpReLUSAEConfig(**shape)),
        "gated": lambda: s.GatedSAE(s.GatedSAEConfig(**shape)),
        "batchtopk": lambda: s.BatchTopKTrainingSAE(s.BatchTopKTrainingSAEConfig(**batched)),
        "batchtopk-training": lambda: s.BatchTopKTrainingSAE(
            s.BatchTopKTrainingSAEConfig(**batched)
        ),
        "matryoshka": lambda: s.MatryoshkaBatchTopKTrainingSAE(
            s.MatryoshkaBatchTopKTrainingSAEConfig(**batched, matryoshka_widths=[8, FEATURES])
        ),
        "transcoder": lambda: s.Transcoder(s.TranscoderConfig(**shape)),
        "skip-transcoder": lambda: s.SkipTranscoder(s.SkipTranscoderConfig(**shape)),
        "jumprelu-transcoder": lambda: s.JumpReLUTranscoder(s.JumpReLUTranscoderConfig(**shape)),
    }[kind]()
    fill(made)
    made.cfg.metadata.hook_name = "blocks.3.hook_resid_post"
    if hasattr(made, "topk_threshold"):
        made.topk_threshold = torch.tensor(2.0, dtype=torch.double)
        made.save_inference_model(directory)
    else:
        made.save_model(directory)
    loaded = SAE.load_from_disk(directory)
    if kind == "batchtopk-training":
        made.save_model(directory)  # as a checkpoint has it; the package runs the inference model
    if kind == "scaled":
        loaded.fold_activation_norm_scaling_factor(0.25)
        _edit(directory / "cfg.json", {"normalize_activations": "expected_average_only_in"})
        (directory / "activation_scaler.json").write_text(json.dumps({"scaling_factor": 0.25}))
    if kind == "before-6":
        (directory / "cfg.json").write_text(
            json.dumps(
                {
                    **shape,
                    "dtype": "float32",
                    "architecture": "standard",
                    "activation_fn_str": "topk",
                    "activation_fn_kwargs": {"k": K},
                    "apply_b_dec_to_input": True,
                    "finetuning_scaling_factor": False,
                    "normalize_activations": "none",
                    "hook_name": "blocks.3.hook_resid_pre",
                }
            )
        )
        loaded = SAE.load_from_disk(directory)
    found = outcome(loaded.encode, loaded.decode)
    return {**found, "rebuilt": loaded(inputs())}


def sparsify(kind: str, directory: Path) -> dict[str, Tensor]:
    from sparsify import SparseCoder, SparseCoderConfig

    settings = {"transcoder": {"transcode": True}, "autoencoder": {}}
    settings["skip-transcoder"] = {"transcode": True, "skip_connection": True}
    config = SparseCoderConfig(num_latents=FEATURES, k=K, **settings[kind])
    made = SparseCoder(WIDTH, config)
    fill(made)
    made.save_to_disk(directory)
    loaded = SparseCoder.load_from_disk(directory)

    def encode(x: Tensor) -> Tensor:
        values, indices, _ = loaded.encode(x)
        return torch.zeros(len(x), FEATURES).scatter(1, indices, values)

    def decode(code: Tensor) -> Tensor:
        return loaded.decode(code, torch.arange(FEATURES).expand(len(code), -1))

    return {**outcome(encode, decode), "rebuilt": loaded(inputs()).sae_out}


def dictionary_learning(kind: str, directory: Path) -> dict[str, Tensor]:
    from dictionary_learning import dictionary as d
    from dictionary_learning.trainers import batch_top_k, matryoshka_batch_top_k, top_k
    from dictionary_learning.utils import load_dictionary

    groups = [8, FEATURES - 8]
    made = {
        "AutoEncoder": lambda: d.AutoEncoder(WIDTH, FEATURES),
        "AutoEncoderNew": lambda: d.AutoEncoderNew(WIDTH, FEATURES),
        "GatedAutoEncoder": lambda: d.GatedAutoEncoder(WIDTH, FEATURES),
        "JumpReluAutoEncoder": lambda: d.JumpReluAutoEncoder(WIDTH, FEATURES),
        "AutoEncoderTopK": lambda: top_k.AutoEncoderTopK(WIDTH, FEATURES, K),
        "BatchTopKSAE": lambda: batch_top_k.BatchTopKSAE(WIDTH, FEATURES, K),
        "MatryoshkaBatchTopKSAE": lambda: matryoshka_batch_top_k.MatryoshkaBatchTopKSAE(
            WIDTH, FEATURES, K, groups
        ),
    }[kind]()
    fill(made)
    if kind in ("BatchTopKSAE", "MatryoshkaBatchTopKSAE"):
        made.threshold.fill_(1.0)
    directory.mkdir(parents=True, exist_ok=True)
    torch.save(made.state_dict(), directory / "ae.pt")
    trainer = {"dict_class": kind, "k": K, "submodule_name": "resid_post_layer_3"}
    (directory / "config.json").write_text(
        json.dumps({"trainer": {**trainer, "group_sizes": groups}})
    )
    if kind == "MatryoshkaBatchTopKSAE":  # its loader takes no group sizes
        loaded = made
    else:
        loaded, _ = load_dictionary(str(directory), "cpu")
    state = torch.load(directory / "ae.pt", weights_only=True)
    save_file({n: v.contiguous() for n, v in state.items()}, directory / "ae.safetensors")
    (directory / "ae.pt").unlink()
    return outcome(loaded.encode, loaded.decode)


def _edit(path: Path, change: dict) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


CASES: dict[str, tuple[Callable[[str, Path], dict[str, Tensor]], tuple[str, ...]]] = {
    "sae_lens": (
        saelens,
        (
            "standard",
            "uncentred",
            "scaled",
            "before-6",
            "topk",
            "topk-rescaled",
            "jumprelu",
            "gated",
            "batchtopk",
            "batchtopk-training",
            "matryoshka",
            "transcoder",
            "skip-transcoder",
            "jumprelu-transcoder",
        ),
    ),
    "sparsify": (sparsify, ("autoencoder", "transcoder", "skip-transcoder")),
    "dictionary_learning": (
        dictionary_learning,
        (
            "AutoEncoder",
            "AutoEncoderNew",
            "GatedAutoEncoder",
            "JumpReluAutoEncoder",
            "AutoEncoderTopK",
            "BatchTopKSAE",
            "MatryoshkaBatchTopKSAE",
        ),
    ),
}
"""By package: what builds a case, and its cases."""


def build(package: str, kind: str, directory: Path) -> dict[str, Tensor]:
    """Write a case's directory and return what its package makes of the inputs."""
    with torch.no_grad():
        made = CASES[package][0](kind, directory)
    return {name: value.detach().float().contiguous() for name, value in made.items()}
