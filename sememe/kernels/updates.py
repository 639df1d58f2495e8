"""The loops of the optimisers: rows of weights stepped where they are, their gradients made there.

The gradient of a row is made of products (:class:`sememe.kernels.products.Products`) just before
its step, so that it never leaves the processor's cache; or it is there already.
"""

from typing import NamedTuple

import numpy as np

from sememe.kernels.compiled import Array, compiled, product_row


class Gradient(NamedTuple):
    """A gradient of weights: ``dense`` plus products, either of which may be empty."""

    dense: Array
    starts: Array
    row: Array
    weight: Array
    x: Array


@compiled
def row_gradient(gradient: Gradient, f: int, parameter: Array, unit: bool, out: Array) -> None:
    """Write the gradient of row ``f``; of a ``unit`` row without the part along it."""
    if len(gradient.starts):
        product_row(gradient.starts, gradient.row, gradient.weight, gradient.x, f, out)
    else:
        out[:] = 0
    if len(gradient.dense):
        dense = gradient.dense[f]
        for j in range(out.shape[0]):
            out[j] += dense[j]
    if unit:
        along = out.dtype.type(0)
        for j in range(out.shape[0]):
            along += out[j] * parameter[j]
        for j in range(out.shape[0]):
            out[j] -= along * parameter[j]


@compiled
def to_norm_1(row: Array) -> None:
    """Scale a row to norm 1."""
    square = row.dtype.type(0)
    for j in range(row.shape[0]):
        square += row[j] * row[j]
    shrink = row.dtype.type(1) / np.sqrt(square)
    for j in range(row.shape[0]):
        row[j] *= shrink


@compiled
def adam_span(
    begin: int,
    end: int,
    parameter: Array,
    gradient: Gradient,
    first: Array,
    second: Array,
    rate: float,
    beta1: float,
    beta2: float,
    correction2: float,
    epsilon: float,
    unit: bool,
) -> None:
    """Step some rows by Adam; ``rate`` holds the first moment's bias correction.

    ``first`` may be empty where ``beta1`` is 0.
    """
    width = parameter.shape[1]
    cast_to = parameter.dtype.type
    b1, b2, eps, lr = cast_to(beta1), cast_to(beta2), cast_to(epsilon), cast_to(rate)
    a1, a2, c2 = cast_to(1 - beta1), cast_to(1 - beta2), cast_to(1 / correction2)
    g = np.empty(width, parameter.dtype)
    for f in range(begin, end):
        p, v = parameter[f], second[f]
        row_gradient(gradient, f, p, unit, g)
        if len(first):
            m = first[f]
            for j in range(width):
                m[j] = b1 * m[j] + a1 * g[j]
                v[j] = b2 * v[j] + a2 * g[j] * g[j]
                p[j] -= lr * m[j] / (np.sqrt(v[j] * c2) + eps)
        else:
            for j in range(width):
                v[j] = b2 * v[j] + a2 * g[j] * g[j]
                p[j] -= lr * g[j] / (np.sqrt(v[j] * c2) + eps)
        if unit:
            to_norm_1(p)


@compiled
def adafactor_span(
    begin: int,
    end: int,
    parameter: Array,
    gradient: Gradient,
    rows: Array,
    factors: Array,
    squares: Array,
    rate: float,
    beta: float,
    correction: float,
    epsilon: float,
    unit: bool,
) -> None:
    """Step some rows by Adafactor; ``squares`` becomes the columns' sums of squared gradients.

    ``factors`` are what each column's step is multiplied by.
    """
    width = parameter.shape[1]
    cast_to = parameter.dtype.type
    b, a, eps, lr = cast_to(beta), cast_to((1 - beta) / width), cast_to(epsilon), cast_to(rate)
    c = cast_to(1 / correction)
    g = np.empty(width, parameter.dtype)
    squares[:] = 0
    for f in range(begin, end):
        p = parameter[f]
        row_gradient(gradient, f, p, unit, g)
        total = cast_to(0)
        for j in range(width):
            square = g[j] * g[j]
            squares[j] += square
            total += square
        rows[f] = b * rows[f] + a * total
        step = lr / (np.sqrt(rows[f] * c) + eps)
        for j in range(width):
            p[j] -= step * factors[j] * g[j]
        if unit:
            to_norm_1(p)
