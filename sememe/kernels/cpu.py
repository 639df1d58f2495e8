"""The kernels on CPU in float32: torch for the encoder product, compiled loops for the rest.

Same functions, arguments and results as :mod:`sememe.kernels.reference`, to rounding. What is dense
is only the encoder product, made in chunks of rows whose scores are read again while still in
cache; everything else touches active entries alone.
"""

import threading

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sememe.kernels import compiled
from sememe.kernels.code import Code
from sememe.kernels.workers import share_out

ENCODE_ROWS = 512
ROWS = 512
FEATURES = 512

_local = threading.local()


def _scores_buffer(rows: int, features: int) -> Float[Tensor, "rows features"]:
    """Return this thread's scratch matrix; pages of a fresh one would cost as much as selection."""
    buffer: Tensor | None = getattr(_local, "scores", None)
    if buffer is None or buffer.numel() < rows * features:
        buffer = _local.scores = torch.empty(rows * features)
    return buffer[: rows * features].view(rows, features)


def encode_topk(
    x: Float[Tensor, "rows width"],
    W_enc: Float[Tensor, "features width"],
    bias: Float[Tensor, " features"],
    k: int,
) -> Code:
    """See :func:`sememe.kernels.reference.encode_topk`."""
    x, W_enc, bias = x.detach(), W_enc.detach(), bias.detach()
    indices = torch.empty(x.shape[0], k, dtype=torch.int32)
    values = torch.empty(x.shape[0], k)
    i, bits = indices.numpy(), values.view(torch.int32).numpy()
    share_out(
        lambda a, b: _encode_span(x[a:b], W_enc, bias, i[a:b], bits[a:b]), x.shape[0], ENCODE_ROWS
    )
    return Code(indices, values)


def _encode_span(
    x: Float[Tensor, "rows width"],
    W_enc: Float[Tensor, "features width"],
    bias: Float[Tensor, " features"],
    indices: compiled.Array,
    bits: compiled.Array,
) -> None:
    """Write the code of some rows; ``bits`` are its values as int32."""
    scores = _scores_buffer(x.shape[0], W_enc.shape[0])
    torch.addmm(bias, x, W_enc.T, out=scores)
    compiled.select_rows(scores.view(torch.int32).numpy(), indices.shape[1], indices, bits)


def encode_batchtopk(
    x: Float[Tensor, "rows width"],
    W_enc: Float[Tensor, "features width"],
    bias: Float[Tensor, " features"],
    k: int,
) -> Code:
    """See :func:`sememe.kernels.reference.encode_batchtopk`."""
    scores = _scores(x, W_enc, bias)
    flat = scores.reshape(-1)
    positive = flat[flat > 0]
    kept = min(k * x.shape[0], len(positive))
    if kept == len(positive):
        return _entries(scores, np.float32(0), 0)
    bound = np.partition(positive, len(positive) - kept)[len(positive) - kept]
    return _entries(scores, bound, kept - int(np.count_nonzero(positive > bound)))


def encode_positive(
    x: Float[Tensor, "rows width"],
    W_enc: Float[Tensor, "features width"],
    bias: Float[Tensor, " features"],
) -> Code:
    """See :func:`sememe.kernels.reference.encode_positive`."""
    return _entries(_scores(x, W_enc, bias), np.float32(0), 0)


def _scores(
    x: Float[Tensor, "rows width"],
    W_enc: Float[Tensor, "features width"],
    bias: Float[Tensor, " features"],
) -> compiled.Array:
    """Return all scores, in this thread's scratch matrix."""
    scores = _scores_buffer(x.shape[0], W_enc.shape[0])
    for part, out in zip(x.detach().split(ROWS), scores.split(ROWS), strict=True):
        torch.addmm(bias.detach(), part, W_enc.detach().T, out=out)
    return scores.numpy()


def _entries(scores: compiled.Array, bound: np.float32, at_bound: int) -> Code:
    """Return the scores above ``bound``, and the first ``at_bound`` of those that equal it."""
    most = compiled.most_above(scores, bound, at_bound)
    indices = torch.empty(len(scores), most, dtype=torch.int32)
    values = torch.empty(len(scores), most)
    compiled.pack_above(scores, bound, at_bound, indices.numpy(), values.numpy())
    return Code(indices, values)


def decode(
    indices: Int[Tensor, "rows k"],
    values: Float[Tensor, "rows k"],
    W: Float[Tensor, "features width"],
) -> Float[Tensor, "rows width"]:
    """See :func:`sememe.kernels.reference.decode`."""
    out = torch.empty(indices.shape[0], W.shape[1])
    i, v, w, o = _array(indices), _array(values), _array(W), out.numpy()
    share_out(lambda a, b: compiled.decode_rows(i[a:b], v[a:b], w, o[a:b]), len(i), ROWS)
    return out


def code_gradient(
    indices: Int[Tensor, "rows k"],
    values: Float[Tensor, "rows k"],
    W: Float[Tensor, "features width"],
    gradient: Float[Tensor, "rows width"],
) -> Float[Tensor, "rows k"]:
    """See :func:`sememe.kernels.reference.code_gradient`."""
    out = torch.empty(*indices.shape)
    i, v, w, g, o = _array(indices), _array(values), _array(W), _array(gradient), out.numpy()
    share_out(
        lambda a, b: compiled.code_gradient_rows(i[a:b], v[a:b], w, g[a:b], o[a:b]), len(i), ROWS
    )
    return out


def weight_gradient(
    indices: Int[Tensor, "rows k"],
    coefficients: Float[Tensor, "rows k"],
    x: Float[Tensor, "rows width"],
    features: int,
) -> tuple[Float[Tensor, "features width"], Float[Tensor, " features"]]:
    """See :func:`sememe.kernels.reference.weight_gradient`."""
    starts = np.empty(features + 1, np.int64)
    row = np.empty(indices.numel(), np.int32)
    weight = np.empty(indices.numel(), np.float32)
    compiled.transpose(_array(indices), _array(coefficients), starts, row, weight)
    out, bias = torch.empty(features, x.shape[1]), torch.empty(features)
    r, o, s = _array(x), out.numpy(), bias.numpy()
    share_out(
        lambda a, b: compiled.weight_gradient_rows(starts, row, weight, r, o[a:b], s[a:b], a),
        features,
        FEATURES,
    )
    return out, bias


def adam_rows(
    parameter: Float[Tensor, "features width"],
    gradient: Float[Tensor, "features width"],
    first: Float[Tensor, "features width"],
    second: Float[Tensor, "features width"],
    *,
    step: int,
    learning_rate: float,
    betas: tuple[float, float],
    epsilon: float,
    unit_rows: bool,
) -> None:
    """See :func:`sememe.kernels.reference.adam_rows`."""
    p, g = parameter.detach().numpy(), _array(gradient)
    m, v = first.numpy(), second.numpy()
    rate = learning_rate / (1 - betas[0] ** step)
    settings = (rate, *betas, 1 - betas[1] ** step, epsilon, unit_rows)
    share_out(
        lambda a, b: compiled.adam_span(p[a:b], g[a:b], m[a:b], v[a:b], *settings), len(p), FEATURES
    )


def _array(tensor: Tensor) -> compiled.Array:
    return tensor.detach().contiguous().numpy()
