"""sparsify: cfg.json and sae.safetensors in a folder that is called as its hookpoint.

Encoder and decoder are both (latents, width). A ReLU comes before the choice of the k largest.
Autoencoders centre their input, transcoders do not.
"""

from pathlib import Path

from sememe.dictionaries.foreign.weights import Files, Foreign, translated
from sememe.dictionaries.nonlinearities import TopK

CONFIG = "cfg.json"
WEIGHTS = "sae.safetensors"

_LAYER = r"(?:\w+\.)*(?:layers|h)\.(\d+)"
_ATTENTION = r"\.(?:self_attn|attn|attention)"
HOOKPOINTS = (
    (_LAYER, lambda n: f"layers.{n}.resid"),
    (_LAYER + r"\.mlp", lambda n: f"layers.{n}.mlp.out"),
    (_LAYER + _ATTENTION, lambda n: f"layers.{n}.attn.out"),
)
"""Paths of modules, whose outputs autoencoders read and transcoders write."""
INPUTS = (
    (_LAYER + r"\.mlp", lambda n: f"layers.{n}.mlp.in"),
    (_LAYER + _ATTENTION, lambda n: f"layers.{n}.attn.in"),
)
"""The same modules' inputs, which transcoders read."""


def read(directory: Path) -> Foreign:
    """Return what the files say; SememeError for what a dictionary of ours cannot be."""
    files = Files(directory, CONFIG, WEIGHTS)
    config = files.config
    transcodes, skips = bool(config.get("transcode")), bool(config.get("skip_connection"))
    if (activation := config.get("activation", "topk")) != "topk":
        raise files.refuse(
            f"activation {activation!r}", "takes the largest of each group; expected topk"
        )
    if config.get("signed"):
        raise files.refuse("signed", "lets features be negative; ours are not")
    if skips and not transcodes:
        raise files.refuse(
            "skip_connection of an autoencoder", "passes the input through beside the features"
        )
    W_enc, b_enc = files.take("encoder.weight"), files.take("encoder.bias")
    W_dec, b_dec = files.take("W_dec"), files.take("b_dec")
    W_skip = files.take("W_skip") if skips else None
    files.finish()
    name = directory.absolute().name
    written = translated(name, HOOKPOINTS)
    return Foreign(
        W_enc=W_enc,
        W_dec=W_dec,
        b_enc=b_enc,
        b_dec=b_dec,
        nonlinearity=TopK(files.setting("k", int)),
        extra={},
        centred=not transcodes,
        W_skip=W_skip,
        files=files.checksums,
        hooks=(f"{name}:in", name) if transcodes else (name,),
        sites=(translated(name, INPUTS), written) if transcodes else (written,),
    )
