"""dictionary_learning: config.json and ae.pt, a pickle, which must become ae.safetensors first.

Linear layers keep (out, in), so that its decoder is (width, features); the classes that hold plain
matrices keep encoders (width, features). Only some classes centre their input.
"""

from pathlib import Path

from torch import Tensor

from sememe.dictionaries.foreign.weights import Files, Foreign, threshold, translated
from sememe.dictionaries.nonlinearities import Gated, JumpReLU, Nonlinearity, ReLU, TopK
from sememe.errors import SememeError

CONFIG = "config.json"
WEIGHTS = "ae.safetensors"
PICKLE = "ae.pt"

_OF_LAYER = (
    (r"resid_post_layer_(\d+)", lambda n: f"layers.{n}.resid"),
    (r"mlp_out_layer_(\d+)", lambda n: f"layers.{n}.mlp.out"),
    (r"attention_out_layer_(\d+)", lambda n: f"layers.{n}.attn.out"),
)

LINEAR = {
    "AutoEncoder": "bias",
    "AutoEncoderNew": "decoder.bias",
    "GatedAutoEncoder": "decoder_bias",
    "AutoEncoderTopK": "b_dec",
    "BatchTopKSAE": "b_dec",
}
"""Classes with linear layers, and what they call the decoder bias."""
PLAIN = ("JumpReluAutoEncoder", "MatryoshkaBatchTopKSAE")
"""Classes with plain matrices."""
UNCENTRED = ("AutoEncoderNew", "JumpReluAutoEncoder")


def read(directory: Path) -> Foreign:
    """Return what the files say; SememeError for what a dictionary of ours cannot be."""
    if not (directory / WEIGHTS).exists() and (directory / PICKLE).exists():
        raise SememeError(
            f"{directory / PICKLE} is a pickle, which can run any code when it is read. If you "
            "trust it, convert it where you made it: import torch; from safetensors.torch import "
            f"save_file; save_file({{n: v.contiguous() for n, v in torch.load({PICKLE!r}, "
            f"map_location='cpu', weights_only=True).items()}}, {WEIGHTS!r})"
        )
    files = Files(directory, CONFIG, WEIGHTS)
    trainer = files.setting("trainer", dict)
    kind = trainer.get("dict_class")
    if kind in LINEAR:
        W_enc, W_dec = files.take("encoder.weight"), files.take("decoder.weight").T.contiguous()
        b_enc = files.take("gate_bias" if kind == "GatedAutoEncoder" else "encoder.bias")
        b_dec = files.take(LINEAR[kind])
    elif kind in PLAIN:
        W_enc, W_dec = files.take("W_enc").T.contiguous(), files.take("W_dec")
        b_enc, b_dec = files.take("b_enc"), files.take("b_dec")
    else:
        raise files.refuse(f"dict_class {kind!r}", f"is none of {', '.join((*LINEAR, *PLAIN))}")
    nonlinearity, extra = _nonlinearity(files, kind, len(W_enc))
    files.finish()
    name = trainer.get("submodule_name")
    return Foreign(
        W_enc=W_enc,
        W_dec=W_dec,
        b_enc=b_enc,
        b_dec=b_dec,
        nonlinearity=nonlinearity,
        extra=extra,
        centred=kind not in UNCENTRED,
        files=files.checksums,
        hooks=(name,),
        sites=(translated(name, _OF_LAYER),),
    )


def _nonlinearity(files: Files, kind: str, features: int) -> tuple[Nonlinearity, dict[str, Tensor]]:
    """Return the kind that evaluation uses: batch top-k has a threshold then."""
    if kind == "GatedAutoEncoder":
        return Gated(), {
            "log_scale": files.take("r_mag"),
            "magnitude_bias": files.take("mag_bias"),
        }
    if kind == "AutoEncoderTopK":
        files.tensors.pop("threshold", None)  # kept for the trainer; encode takes the k largest
        return TopK(int(files.take("k"))), {}
    if kind in ("BatchTopKSAE", "MatryoshkaBatchTopKSAE"):
        for name in ("k", "group_sizes"):
            files.tensors.pop(name, None)
        return JumpReLU(), threshold(files.take("threshold"), features)
    if kind == "JumpReluAutoEncoder":
        return JumpReLU(), threshold(files.take("threshold"), features)
    return ReLU(), {}
