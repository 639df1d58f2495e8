"""Sparse encode and decode that gradients flow through, touching active entries alone."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sememe.kernels.choice import kernels_for
from sememe.kernels.code import Code


def encode_topk(
    x: Float[Tensor, "rows width"],
    W_enc: Float[Tensor, "features width"],
    bias: Float[Tensor, " features"],
    k: int,
) -> Code:
    """Return the ``k`` largest positive entries of ``x W_enc^T + bias`` in every row.

    Gradients reach ``W_enc`` and ``bias``, only through entries that are there. They also reach
    ``x`` where it asks for them.
    """
    indices, values = _Encode.apply("encode_topk", x, W_enc, bias, k)  # type: ignore[no-untyped-call]
    return Code(indices, values)


def encode_batchtopk(
    x: Float[Tensor, "rows width"],
    W_enc: Float[Tensor, "features width"],
    bias: Float[Tensor, " features"],
    k: int,
) -> Code:
    """Return the ``k`` x rows largest positive entries of ``x W_enc^T + bias`` over all rows.

    Gradients as of :func:`encode_topk`.
    """
    indices, values = _Encode.apply("encode_batchtopk", x, W_enc, bias, k)  # type: ignore[no-untyped-call]
    return Code(indices, values)


def encode_positive(
    x: Float[Tensor, "rows width"],
    W_enc: Float[Tensor, "features width"],
    bias: Float[Tensor, " features"],
) -> Code:
    """Return every positive entry of ``x W_enc^T + bias``, by ascending feature.

    Gradients as of :func:`encode_topk`.
    """
    indices, values = _Encode.apply("encode_positive", x, W_enc, bias)  # type: ignore[no-untyped-call]
    return Code(indices, values)


def decode(
    code: Code, W: Float[Tensor, "features width"], present: Tensor | None = None
) -> Float[Tensor, "rows width"]:
    """Return the sum of the active rows of ``W``; gradients reach the values and ``W``.

    Values get a gradient where they are not 0, or where ``present`` is not: an entry of value 0 may
    be one that a threshold holds back.
    """
    out: Tensor = _Decode.apply(code.indices, code.values, W, present)  # type: ignore[no-untyped-call]
    return out


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        kernel: str,
        x: Float[Tensor, "rows width"],
        W_enc: Float[Tensor, "features width"],
        bias: Float[Tensor, " features"],
        *settings: int,
    ) -> tuple[Int[Tensor, "rows k"], Float[Tensor, "rows k"]]:
        code = getattr(kernels_for(x), kernel)(x, W_enc, bias, *settings)
        ctx.save_for_backward(x, W_enc, *code)
        ctx.mark_non_differentiable(code.indices)
        return code.indices, code.values

    @staticmethod
    def backward(
        ctx: Any,  # noqa: ANN401
        _: Tensor,
        gradient: Float[Tensor, "rows k"],
    ) -> tuple[Tensor | None, ...]:
        x, W_enc, indices, values = ctx.saved_tensors
        gradient = gradient * (values != 0)
        kernels = kernels_for(x)
        weight, bias = kernels.weight_gradient(indices, gradient, x, W_enc.shape[0])
        to_x = kernels.decode(indices, gradient, W_enc) if ctx.needs_input_grad[1] else None
        return None, to_x, weight, bias, *[None] * (len(ctx.needs_input_grad) - 4)


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        indices: Int[Tensor, "rows k"],
        values: Float[Tensor, "rows k"],
        W: Float[Tensor, "features width"],
        present: Tensor | None,
    ) -> Float[Tensor, "rows width"]:
        there = values if present is None else present.to(values.dtype)
        ctx.save_for_backward(indices, values, W, there)
        out: Tensor = kernels_for(W).decode(indices, values, W)
        return out

    @staticmethod
    def backward(
        ctx: Any,  # noqa: ANN401
        gradient: Float[Tensor, "rows width"],
    ) -> tuple[None, Tensor | None, Tensor | None, None]:
        indices, values, W, there = ctx.saved_tensors
        kernels = kernels_for(W)
        to_values = to_W = None
        if ctx.needs_input_grad[1]:
            to_values = kernels.code_gradient(indices, there, W, gradient)
        if ctx.needs_input_grad[2]:
            to_W = kernels.weight_gradient(indices, values, gradient, W.shape[0])[0]
        return None, to_values, to_W, None
