"""Sparse encode and decode that gradients flow through, touching active entries alone."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sememe.kernels import memory
from sememe.kernels.choice import kernels_for
from sememe.kernels.code import Code
from sememe.kernels.products import place_for


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
    indices, values = _Encode.apply("encode_topk", x, W_enc, bias, _sum_suffices(x), k)  # type: ignore[no-untyped-call]
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
    indices, values = _Encode.apply("encode_batchtopk", x, W_enc, bias, _sum_suffices(x), k)  # type: ignore[no-untyped-call]
    return Code(indices, values)


def encode_positive(
    x: Float[Tensor, "rows width"],
    W_enc: Float[Tensor, "features width"],
    bias: Float[Tensor, " features"],
) -> Code:
    """Return every positive entry of ``x W_enc^T + bias``, by ascending feature.

    Gradients as of :func:`encode_topk`.
    """
    indices, values = _Encode.apply("encode_positive", x, W_enc, bias, _sum_suffices(x))  # type: ignore[no-untyped-call]
    return Code(indices, values)


def scores(
    x: Float[Tensor, "rows width"],
    W_enc: Float[Tensor, "features width"],
    bias: Float[Tensor, " features"],
) -> Float[Tensor, "rows features"]:
    """Return ``x W_enc^T + bias`` whole.

    Where the gradient of ``x`` is only ever summed over rows (:func:`centred`) it takes one product
    with W_enc instead of one a row: of the five large products of a dense step, one less.
    """
    out: Tensor = _Scores.apply(x, W_enc, bias, _sum_suffices(x))  # type: ignore[no-untyped-call]
    return out


def decode(
    code: Code, W: Float[Tensor, "features width"], present: Tensor | None = None
) -> Float[Tensor, "rows width"]:
    """Return the sum of the active rows of ``W``; gradients reach the values and ``W``.

    Values get a gradient where they are not 0, or where ``present`` is not: an entry of value 0 may
    be one that a threshold holds back.
    """
    out: Tensor = _Decode.apply(code.indices, code.values, W, present)  # type: ignore[no-untyped-call]
    return out


def reconstruct(
    code: Code,
    W: Float[Tensor, "features width"],
    base: Float[Tensor, "some width"],
    target: Float[Tensor, "rows width"],
    present: Tensor | None = None,
) -> tuple[Float[Tensor, "rows width"], Float[Tensor, ""]]:
    """Return ``target - base - decode(code, W)`` without gradients, and its summed square.

    The sum is differentiable in the values, ``W`` and ``base``; with it known at once, the active
    rows of ``W`` are read once for the residual and for the gradient of the code.
    """
    residual, error = _Reconstruct.apply(code.indices, code.values, W, base, target, present)  # type: ignore[no-untyped-call]
    return residual, error


def centred(
    x: Float[Tensor, "rows width"], centre: Float[Tensor, " width"]
) -> Float[Tensor, "rows width"]:
    """Return ``x - centre``.

    Where only ``centre`` asks for a gradient, that is a sum over rows, and an encode behind it
    gives every row the mean of their gradients: one product with W_enc instead of one a row.
    """
    out: Tensor = _Centred.apply(x, centre)  # type: ignore[no-untyped-call]
    return out


def _sum_suffices(x: Tensor) -> bool:
    """Whether the gradient of ``x`` is only ever summed over rows."""
    made_by: Any = x.grad_fn
    centred_by = isinstance(made_by, _Centred._backward_cls)
    return centred_by and not made_by.needs_input_grad[0]


def squared_distance(
    target: Float[Tensor, "rows width"], rebuilt: Float[Tensor, "some width"]
) -> Float[Tensor, ""]:
    """Return the sum of (target - rebuilt)^2, differentiable; ``rebuilt`` may be one row."""
    out: Tensor = _SquaredDistance.apply(target, rebuilt.expand_as(target))  # type: ignore[no-untyped-call]
    return out


def gather(
    parameter: Float[Tensor, " features"], indices: Int[Tensor, "rows k"]
) -> Float[Tensor, "rows k"]:
    """Return ``parameter[indices]``; its gradient is summed in one order, whatever the threads."""
    out: Tensor = _Gather.apply(parameter, indices)  # type: ignore[no-untyped-call]
    return out


def scores_at(
    indices: Int[Tensor, "rows k"],
    there: Bool[Tensor, "rows k"],
    x: Float[Tensor, "rows width"],
    W_enc: Float[Tensor, "features width"],
    bias: Float[Tensor, " features"],
) -> Float[Tensor, "rows k"]:
    """Return ``x . W_enc[index] + bias[index]`` for every entry, 0 where none is there.

    Gradients reach ``W_enc`` and ``bias``.
    """
    out: Tensor = _ScoresAt.apply(indices, there, x, W_enc, bias)  # type: ignore[no-untyped-call]
    return out


class _ScoresAt(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        indices: Int[Tensor, "rows k"],
        there: Bool[Tensor, "rows k"],
        x: Float[Tensor, "rows width"],
        W_enc: Float[Tensor, "features width"],
        bias: Float[Tensor, " features"],
    ) -> Float[Tensor, "rows k"]:
        ctx.save_for_backward(indices, there, x, W_enc)
        products: Tensor = kernels_for(x).code_gradient(indices, there.to(x.dtype), W_enc, x)
        return products + bias[indices.long()] * there

    @staticmethod
    def backward(
        ctx: Any,  # noqa: ANN401
        gradient: Float[Tensor, "rows k"],
    ) -> tuple[Tensor | None, ...]:
        indices, there, x, W_enc = ctx.saved_tensors
        return None, None, None, *_to_weights(indices, gradient * there, x, W_enc)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        parameter: Float[Tensor, " features"],
        indices: Int[Tensor, "rows k"],
    ) -> Float[Tensor, "rows k"]:
        ctx.save_for_backward(indices)
        ctx.features = len(parameter)
        return parameter[indices.long()]

    @staticmethod
    def backward(
        ctx: Any,  # noqa: ANN401
        gradient: Float[Tensor, "rows k"],
    ) -> tuple[Tensor, None]:
        (indices,) = ctx.saved_tensors
        flat = indices.flatten().long()
        summed = torch.bincount(flat, gradient.flatten(), minlength=ctx.features)
        return summed.to(gradient.dtype), None


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        kernel: str,
        x: Float[Tensor, "rows width"],
        W_enc: Float[Tensor, "features width"],
        bias: Float[Tensor, " features"],
        sum_suffices: bool,
        *settings: int,
    ) -> tuple[Int[Tensor, "rows k"], Float[Tensor, "rows k"]]:
        code = getattr(kernels_for(x), kernel)(x, W_enc, bias, *settings)
        ctx.save_for_backward(x, W_enc, *code)
        ctx.sum_suffices = sum_suffices
        ctx.mark_non_differentiable(code.indices)
        ctx.set_materialize_grads(False)
        return code.indices, code.values

    @staticmethod
    def backward(
        ctx: Any,  # noqa: ANN401
        _: None,
        gradient: Float[Tensor, "rows k"] | None,
    ) -> tuple[Tensor | None, ...]:
        if gradient is None:
            return (None,) * len(ctx.needs_input_grad)
        x, W_enc, indices, values = ctx.saved_tensors
        gradient = gradient * (values != 0)
        kernels = kernels_for(x)
        weight, bias = _to_weights(indices, gradient, x, W_enc)
        to_x = None
        if ctx.needs_input_grad[1] and ctx.sum_suffices:
            to_x = _alike(bias, W_enc, x)
        elif ctx.needs_input_grad[1]:
            to_x = kernels.decode(indices, gradient, W_enc)
        return None, to_x, weight, bias, *[None] * (len(ctx.needs_input_grad) - 4)


class _Scores(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Float[Tensor, "rows width"],
        W_enc: Float[Tensor, "features width"],
        bias: Float[Tensor, " features"],
        sum_suffices: bool,
    ) -> Float[Tensor, "rows features"]:
        ctx.save_for_backward(x, W_enc)
        ctx.sum_suffices = sum_suffices
        return torch.addmm(bias, x, W_enc.T)

    @staticmethod
    def backward(
        ctx: Any,  # noqa: ANN401
        gradient: Float[Tensor, "rows features"],
    ) -> tuple[Tensor | None, Tensor | None, Tensor, None]:
        x, W_enc = ctx.saved_tensors
        bias = gradient.sum(0)
        weight = gradient.T @ x if ctx.needs_input_grad[1] else None
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = _alike(bias, W_enc, x) if ctx.sum_suffices else gradient @ W_enc
        return to_x, weight, bias, None


def _alike(
    bias: Float[Tensor, " features"],
    W_enc: Float[Tensor, "features width"],
    x: Float[Tensor, "rows width"],
) -> Float[Tensor, "rows width"]:
    """Return for every row the mean of the rows' gradients, from that of the bias."""
    return (bias @ W_enc / max(1, len(x))).expand_as(x)


class _Centred(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Float[Tensor, "rows width"],
        centre: Float[Tensor, " width"],
    ) -> Float[Tensor, "rows width"]:
        return torch.sub(x, centre, out=memory.empty_like(x))

    @staticmethod
    def backward(
        ctx: Any,  # noqa: ANN401
        gradient: Float[Tensor, "rows width"],
    ) -> tuple[Tensor | None, Tensor | None]:
        to_centre = -gradient.sum(0) if ctx.needs_input_grad[1] else None
        return gradient if ctx.needs_input_grad[0] else None, to_centre


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
            to_W, _ = _to_weights(indices, values, gradient, W)
        return None, to_values, to_W, None


class _Reconstruct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        indices: Int[Tensor, "rows k"],
        values: Float[Tensor, "rows k"],
        W: Float[Tensor, "features width"],
        base: Float[Tensor, "some width"],
        target: Float[Tensor, "rows width"],
        present: Tensor | None,
    ) -> tuple[Float[Tensor, "rows width"], Float[Tensor, ""]]:
        there = values if present is None else present.to(values.dtype)
        kernels = kernels_for(W)
        residual, error, along = kernels.reconstruct(indices, values, there, W, base, target)
        ctx.save_for_backward(indices, values, W, residual, along)
        ctx.one_base = len(base) == 1
        ctx.mark_non_differentiable(residual)
        ctx.set_materialize_grads(False)  # zeros as large as the residual otherwise
        return residual, error

    @staticmethod
    def backward(
        ctx: Any,  # noqa: ANN401
        _: None,
        gradient: Float[Tensor, ""] | None,
    ) -> tuple[Tensor | None, ...]:
        if gradient is None:
            return (None,) * 6
        indices, values, W, residual, along = ctx.saved_tensors
        to_values, to_W, to_base = ctx.needs_input_grad[1:4]
        left = residual.sum(0, keepdim=True) if ctx.one_base else residual
        return (
            None,
            2 * gradient * along if to_values else None,
            _to_weights(indices, -2 * gradient * values, residual, W)[0] if to_W else None,
            -2 * gradient * left if to_base else None,
            None,
            None,
        )


class _SquaredDistance(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        target: Float[Tensor, "rows width"],
        rebuilt: Float[Tensor, "rows width"],
    ) -> Float[Tensor, ""]:
        ctx.save_for_backward(target, rebuilt)
        out: Tensor = kernels_for(target).squared_distance(target, rebuilt)
        return out

    @staticmethod
    def backward(
        ctx: Any,  # noqa: ANN401
        gradient: Float[Tensor, ""],
    ) -> tuple[Tensor | None, Tensor | None]:
        target, rebuilt = ctx.saved_tensors
        to_target = to_rebuilt = None
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
            to_rebuilt = kernels_for(target).difference(rebuilt, target, 2 * gradient)
            to_target = -to_rebuilt if ctx.needs_input_grad[0] else None
        return to_target, to_rebuilt


def _to_weights(
    indices: Int[Tensor, "rows k"],
    coefficients: Float[Tensor, "rows k"],
    x: Float[Tensor, "rows width"],
    W: Float[Tensor, "features width"],
) -> tuple[Float[Tensor, "features width"] | None, Float[Tensor, " features"]]:
    """Return the gradients of weights and bias; none of weights where it is collected."""
    kernels, pending = kernels_for(x), place_for(W)
    if pending is None or not hasattr(kernels, "products_of"):
        weight, bias = kernels.weight_gradient(indices, coefficients, x, len(W))
        return weight, bias
    pending[W.data_ptr()], bias = kernels.products_of(indices, coefficients, x, len(W))
    return None, bias
