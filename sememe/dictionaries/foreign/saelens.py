"""SAELens: cfg.json and sae_weights.safetensors, of versions before and after 6.

Its encoder is (width, features). ``expected_average_only_in`` is applied by no forward pass of the
package: it is folded into saved weights, or its factor lies in activation_scaler.json.
"""

from pathlib import Path
from typing import Any

from torch import Tensor

from sememe.artefacts import checksum, read_json
from sememe.dictionaries.foreign.weights import Files, Foreign, threshold, translated
from sememe.dictionaries.nonlinearities import Gated, JumpReLU, Nonlinearity, ReLU, TopK

CONFIG = "cfg.json"
WEIGHTS = "sae_weights.safetensors"
SCALER = "activation_scaler.json"

THRESHOLDED = ("jumprelu", "jumprelu_transcoder", "jumprelu_skip_transcoder")
BATCHED = ("batchtopk", "matryoshka_batchtopk")
TRANSCODERS = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")
ARCHITECTURES = ("standard", "topk", "gated", "jumprelu", *BATCHED, *TRANSCODERS)

HOOKS = (
    (r"blocks\.(\d+)\.hook_resid_post", lambda n: f"layers.{n}.resid"),
    (r"blocks\.(\d+)\.hook_resid_pre", lambda n: f"layers.{n - 1}.resid" if n else None),
    (r"blocks\.(\d+)\.(?:hook_mlp_out|mlp\.hook_out)", lambda n: f"layers.{n}.mlp.out"),
    (r"blocks\.(\d+)\.(?:hook_attn_out|attn\.hook_out)", lambda n: f"layers.{n}.attn.out"),
    (r"blocks\.(\d+)\.mlp\.hook_in", lambda n: f"layers.{n}.mlp.in"),
    (r"blocks\.(\d+)\.mlp\.hook_post", lambda n: f"layers.{n}.mlp.hidden"),
    (r"blocks\.(\d+)\.attn\.hook_z", lambda n: f"layers.{n}.attn.heads"),
)
"""Names of TransformerLens and our sites; a norm's inside and the middle of a layer have none."""


def read(directory: Path) -> Foreign:
    """Return what the files say; SememeError for what a dictionary of ours cannot be."""
    files = Files(directory, CONFIG, WEIGHTS)
    config = files.config
    architecture = _architecture(config)
    transcodes = architecture in TRANSCODERS
    _check(files, architecture)
    W_enc, W_dec = files.take("W_enc").T.contiguous(), files.take("W_dec")
    b_dec = files.take("b_dec")
    b_enc = files.take("b_gate" if architecture == "gated" else "b_enc")
    nonlinearity, extra = _nonlinearity(files, architecture, len(W_enc))
    if architecture in ("topk", *BATCHED) and _rescales(config, architecture):
        norms = W_dec.norm(dim=1, keepdim=True).clamp_min(1e-8)
        W_enc, b_enc, W_dec = W_enc * norms, b_enc * norms[:, 0], W_dec / norms
    skip = files.take("W_skip") if "skip" in architecture else None
    files.finish()
    scale = _scale(files)
    hooks = _hooks(config, transcodes)
    return Foreign(
        W_enc=W_enc,
        W_dec=W_dec,
        b_enc=b_enc,
        b_dec=b_dec,
        nonlinearity=nonlinearity,
        extra=extra,
        centred=not transcodes and bool(config.get("apply_b_dec_to_input", True)),
        scale=scale,
        W_skip=skip,
        files=files.checksums,
        hooks=hooks,
        sites=tuple(translated(hook, HOOKS) for hook in hooks),
    )


def _architecture(config: dict[str, Any]) -> str:
    """Return the architecture; before version 6 topk was a standard one's activation function."""
    before = config.get("activation_fn_str", config.get("activation_fn"))
    named = str(config.get("architecture", "standard"))
    return "topk" if named == "standard" and before == "topk" else named


def _check(files: Files, architecture: str) -> None:
    """Raise SememeError for settings that a dictionary of ours does not have."""
    config = files.config
    if architecture not in ARCHITECTURES:
        raise files.refuse(
            f"architecture {architecture!r}", f"is none of {', '.join(ARCHITECTURES)}"
        )
    before = config.get("activation_fn_str", config.get("activation_fn", "relu"))
    if before not in ("relu", "topk"):
        raise files.refuse(f"activation_fn {before!r}", "is neither relu nor topk")
    kwargs = config.get("activation_fn_kwargs") or {}
    if kwargs.get("postact_fn", "relu") not in ("relu", None):
        raise files.refuse("postact_fn", "is not relu, so that features could be negative")
    if config.get("finetuning_scaling_factor"):
        raise files.refuse(
            "finetuning_scaling_factor", "scales features after the encoder: fold it into W_dec"
        )
    norm = config.get("normalize_activations", "none")
    if norm in ("layer_norm", "constant_norm_rescale"):
        raise files.refuse(
            f"normalize_activations {norm!r}",
            "divides every activation by its own norm; a dictionary has one scale for a site",
        )
    if norm == "covariance_whitening":
        raise files.refuse(
            f"normalize_activations {norm!r}",
            "is not in these weights: save the inference model, which folds it",
        )
    if norm not in ("none", "expected_average_only_in", None, False, True):
        raise files.refuse(f"normalize_activations {norm!r}", "is unknown")
    if architecture in TRANSCODERS and norm not in ("none", None, False):
        raise files.refuse(
            f"normalize_activations {norm!r} of a transcoder", "is undone by no forward pass"
        )


def _nonlinearity(
    files: Files, architecture: str, features: int
) -> tuple[Nonlinearity, dict[str, Tensor]]:
    if architecture == "gated":
        return Gated(), {
            "log_scale": files.take("r_mag"),
            "magnitude_bias": files.take("b_mag"),
        }
    if architecture == "topk":
        kwargs = files.config.get("activation_fn_kwargs") or {}
        files.config.setdefault("k", kwargs.get("k"))
        return TopK(files.setting("k", int)), {}
    if architecture in BATCHED:
        return JumpReLU(), threshold(files.take("topk_threshold"), features)
    if architecture in THRESHOLDED:
        if "log_threshold" in files:
            return JumpReLU(), threshold(files.take("log_threshold").exp(), features)
        return JumpReLU(), threshold(files.take("threshold"), features)
    return ReLU(), {}


def _rescales(config: dict[str, Any], architecture: str) -> bool:
    """Return whether scores are multiplied by the norms of decoder rows before the choice."""
    return bool(config.get("rescale_acts_by_decoder_norm", architecture in BATCHED))


def _scale(files: Files) -> float | None:
    norm, path = files.config.get("normalize_activations"), files.directory / SCALER
    if norm not in ("expected_average_only_in", True):
        return 1.0
    if not path.exists():
        return None
    files.checksums[SCALER] = checksum(path)
    value = read_json(path).get("scaling_factor")
    return None if value is None else float(value)


def _hooks(config: dict[str, Any], transcodes: bool) -> tuple[str | None, ...]:
    told = {**config, **(config.get("metadata") or {})}
    read = told.get("hook_name") or told.get("hook_point")
    return (read, told.get("hook_name_out")) if transcodes else (read,)
