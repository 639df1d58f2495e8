"""The kernels on CPU in float32: torch for the encoder product, compiled loops for the rest.

Same functions, arguments and results as :mod:`sememe.kernels.reference`, to rounding. What is dense
is only the encoder product, made in chunks of rows whose scores are read again while still in
cache; everything else touches active entries alone.
"""

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from sememe.kernels import candidates, compiled, screening, selection, updates
from sememe.kernels.code import Code
from sememe.kernels.compiled import Array
from sememe.kernels.memory import empty, scratch
from sememe.kernels.products import Products
from sememe.kernels.reference import column_factors
from sememe.kernels.screening import Encoder, Found
from sememe.kernels.workers import share_out

ENCODE_ROWS = 512
ROWS = 512
FEATURES = 512
PROBE_ROWS = 128
SURPLUS = 1.25
"""How many more entries than wanted the first guess of a threshold aims at."""


def encode_topk(
    x: Float[Tensor, "rows width"],
    W_enc: Float[Tensor, "features width"],
    bias: Float[Tensor, " features"],
    k: int,
) -> Code:
    """See :func:`sememe.kernels.reference.encode_topk`."""
    x, W, bias = _plain(x), _plain(W_enc), _plain(bias)
    indices, values = np.empty((len(x), k), np.int32), np.empty((len(x), k), np.int32)
    if not screening.suits(x, W, k):
        share_out(
            lambda a, b: _exact_topk(x[a:b], W, bias, indices[a:b], values[a:b]),
            len(x),
            ENCODE_ROWS,
        )
        return _code(indices, values)

    def use(a: int, b: int, found: Found) -> None:
        scores = found.scores.view(np.int32)
        candidates.rank_rows(found.features, scores, found.counts, k, indices[a:b], values[a:b])
        for rows in _uncertain(found):
            where = np.empty((len(rows), k), np.int32), np.empty((len(rows), k), np.int32)
            _exact_topk(x[a + rows], W, bias, *where)
            indices[a + rows], values[a + rows] = where

    screening.screen(x, screening.prepare(W, bias), k, 0.0, 8 * k + 256, use)
    return _code(indices, values)


def encode_batchtopk(
    x: Float[Tensor, "rows width"],
    W_enc: Float[Tensor, "features width"],
    bias: Float[Tensor, " features"],
    k: int,
) -> Code:
    """See :func:`sememe.kernels.reference.encode_batchtopk`.

    Some rows tell about where the threshold is. All entries above a somewhat lower one hold the
    largest; should they turn out too few, it is lowered.
    """
    x, W, bias = _plain(x), _plain(W_enc), _plain(bias)
    encoder = screening.prepare(W, bias) if screening.suits(x, W) else None
    probe = x[:: max(1, len(x) // PROBE_ROWS)]
    seen = (
        (probe @ W.T + bias).bfloat16() if encoder is None else screening.low_scores(probe, encoder)
    )
    bits, target = seen.view(torch.int16).numpy(), SURPLUS * k * len(probe)
    while True:
        edge = selection.reached_by(bits, int(target))
        floor = float(np.int32(edge << 16).view(np.float32))
        code = _entries_above(x, W, bias, encoder, floor)
        if floor == 0 or int((code.values > 0).sum()) >= k * len(x):
            return _largest(code, k * len(x))
        target *= 2


def encode_positive(
    x: Float[Tensor, "rows width"],
    W_enc: Float[Tensor, "features width"],
    bias: Float[Tensor, " features"],
) -> Code:
    """See :func:`sememe.kernels.reference.encode_positive`."""
    x, W, bias = _plain(x), _plain(W_enc), _plain(bias)
    encoder = screening.prepare(W, bias) if screening.suits(x, W) else None
    return _entries_above(x, W, bias, encoder, 0.0)


def _entries_above(
    x: Float[Tensor, "rows width"],
    W: Float[Tensor, "features width"],
    bias: Float[Tensor, " features"],
    encoder: Encoder | None,
    floor: float,
) -> Code:
    """Return every score above ``floor`` >= 0 by ascending feature, screened given ``encoder``."""
    parts: dict[int, Code] = {}
    if not len(x):
        return Code(torch.empty(0, 0, dtype=torch.int32), torch.empty(0, 0))

    def exact(a: int, b: int) -> None:
        parts[a] = _exact_above(x[a:b], W, bias, floor)

    def use(a: int, b: int, found: Found) -> None:
        others = [(rows, _exact_above(x[a + rows], W, bias, floor)) for rows in _uncertain(found)]
        widest = max([int(found.counts.max()), *(code.values.shape[1] for _, code in others)])
        indices = np.zeros((b - a, widest), np.int32)
        values = np.zeros((b - a, widest), np.float32)
        candidates.copy_rows(found.features, found.scores, found.counts, indices, values)
        for rows, code in others:
            indices[rows, : code.indices.shape[1]] = code.indices.numpy()
            values[rows, : code.values.shape[1]] = code.values.numpy()
        parts[a] = Code(torch.from_numpy(indices), torch.from_numpy(values))

    if encoder is None:
        share_out(exact, len(x), ENCODE_ROWS)
    else:
        screening.screen(x, encoder, 0, floor, len(W) // 16 + 256, use)
    codes = [parts[a] for a in sorted(parts)]
    widest = max((code.values.shape[1] for code in codes), default=0)
    padded = [[pad(part, (0, widest - part.shape[1])) for part in code] for code in codes]
    indices, values = (torch.cat(part) for part in zip(*padded, strict=True))
    return Code(indices, values)


def _largest(code: Code, wanted: int) -> Code:
    """Return the ``wanted`` largest entries of all rows; of equal ones the first."""
    values = code.values.numpy()
    present = values[~(values <= 0)]
    edge, ties = 0.0, 0
    if len(present) > wanted:
        edge = float(np.partition(present, len(present) - wanted)[len(present) - wanted])
        ties = wanted - int((~(present <= edge)).sum())
    counts = np.empty(len(values), np.int32)
    selection.count_kept(values, edge, ties, counts)
    shape = len(values), int(counts.max(initial=0))
    kept, kept_values = np.empty(shape, np.int32), np.empty(shape, np.float32)
    selection.keep_rows(code.indices.numpy(), values, edge, ties, kept, kept_values)
    return Code(torch.from_numpy(kept), torch.from_numpy(kept_values))


def _uncertain(found: Found) -> Iterable[Array]:
    """Yield the rows that screening has left to float32, some at a time."""
    rows = np.flatnonzero(found.counts < 0)
    return (rows[start : start + ENCODE_ROWS] for start in range(0, len(rows), ENCODE_ROWS))


def _scores(
    x: Float[Tensor, "rows width"],
    W: Float[Tensor, "features width"],
    bias: Float[Tensor, " features"],
) -> Array:
    """Return float32 scores as int32 bits, in this thread's scratch memory."""
    bits = scratch("exact scores", (len(x), len(W)), np.int32)
    torch.addmm(bias, x, W.T, out=torch.from_numpy(bits).view(torch.float32))
    return bits


def _exact_topk(
    x: Float[Tensor, "rows width"],
    W: Float[Tensor, "features width"],
    bias: Float[Tensor, " features"],
    indices: Array,
    values: Array,
) -> None:
    """Write the code of some rows; ``values`` are its values as int32 bits."""
    selection.select_rows(_scores(x, W, bias), indices.shape[1], indices, values)


def _exact_above(
    x: Float[Tensor, "rows width"],
    W: Float[Tensor, "features width"],
    bias: Float[Tensor, " features"],
    floor: float,
) -> Code:
    """Return the entries of some rows above ``floor``."""
    scores, edge = _scores(x, W, bias), int(np.float32(floor).view(np.int32))
    counts = np.empty(len(x), np.int32)
    selection.count_above(scores, edge, counts)
    shape = len(x), int(counts.max(initial=0))
    indices, values = np.empty(shape, np.int32), np.empty(shape, np.int32)
    selection.rows_above(scores, edge, indices, values)
    return _code(indices, values)


def _code(indices: Array, bits: Array) -> Code:
    return Code(torch.from_numpy(indices), torch.from_numpy(bits).view(torch.float32))


def decode(
    indices: Int[Tensor, "rows k"],
    values: Float[Tensor, "rows k"],
    W: Float[Tensor, "features width"],
) -> Float[Tensor, "rows width"]:
    """See :func:`sememe.kernels.reference.decode`."""
    out = empty(indices.shape[0], W.shape[1])
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
    out = empty(*indices.shape)
    i, v, w, g, o = _array(indices), _array(values), _array(W), _array(gradient), out.numpy()
    share_out(
        lambda a, b: compiled.code_gradient_rows(i[a:b], v[a:b], w, g[a:b], o[a:b]), len(i), ROWS
    )
    return out


def reconstruct(
    indices: Int[Tensor, "rows k"],
    values: Float[Tensor, "rows k"],
    there: Float[Tensor, "rows k"],
    W: Float[Tensor, "features width"],
    base: Float[Tensor, "some width"],
    target: Float[Tensor, "rows width"],
) -> tuple[Float[Tensor, "rows width"], Float[Tensor, ""], Float[Tensor, "rows k"]]:
    """See :func:`sememe.kernels.reference.reconstruct`."""
    residual, along = empty(*target.shape), empty(*indices.shape)
    i, v, h, w, o, t = (_array(part) for part in (indices, values, there, W, base, target))
    left, q, sums = residual.numpy(), along.numpy(), np.empty(len(target))
    shared = len(base) == 1

    def rows(a: int, b: int) -> None:
        own = o if shared else o[a:b]
        compiled.reconstruct_rows(
            i[a:b], v[a:b], h[a:b], w, own, t[a:b], left[a:b], sums[a:b], q[a:b]
        )

    share_out(rows, len(i), ROWS)
    return residual, torch.tensor(sums.sum(), dtype=torch.float32), along


def weight_gradient(
    indices: Int[Tensor, "rows k"],
    coefficients: Float[Tensor, "rows k"],
    x: Float[Tensor, "rows width"],
    features: int,
) -> tuple[Float[Tensor, "features width"], Float[Tensor, " features"]]:
    """See :func:`sememe.kernels.reference.weight_gradient`."""
    products, bias = products_of(indices, coefficients, x, features)
    out = empty(features, x.shape[1])
    starts, row, weight, rows = (part.numpy() for part in products[:4])
    o = out.numpy()
    share_out(
        lambda a, b: compiled.product_rows(starts, row, weight, rows, o[a:b], a), features, FEATURES
    )
    return out, bias


def products_of(
    indices: Int[Tensor, "rows k"],
    coefficients: Float[Tensor, "rows k"],
    x: Float[Tensor, "rows width"],
    features: int,
) -> tuple[Products, Float[Tensor, " features"]]:
    """Return what :func:`weight_gradient` does, the first part not added up."""
    entries = indices.numel()
    starts, row = torch.empty(features + 1, dtype=torch.int64), empty(entries, dtype=np.int32)
    weight, bias = empty(entries), empty(features)
    s, r, w = starts.numpy(), row.numpy(), weight.numpy()
    compiled.transpose(_array(indices), _array(coefficients), s, r, w)
    compiled.entry_sums(s, w, bias.numpy())
    return Products(starts, row, weight, _plain(x)), bias


def squared_distance(
    a: Float[Tensor, "rows width"], b: Float[Tensor, "rows width"]
) -> Float[Tensor, ""]:
    """See :func:`sememe.kernels.reference.squared_distance`."""
    p, q, sums = _array(a), b.detach().numpy(), np.empty(len(a))
    share_out(lambda u, v: compiled.squared_distances(p[u:v], q[u:v], sums[u:v]), len(a), ROWS)
    return torch.tensor(sums.sum(), dtype=torch.float32)


def difference(
    a: Float[Tensor, "rows width"], b: Float[Tensor, "rows width"], factor: Float[Tensor, ""]
) -> Float[Tensor, "rows width"]:
    """See :func:`sememe.kernels.reference.difference`."""
    out = empty(*a.shape)
    p, q, o, by = _array(a), _array(b), out.numpy(), float(factor)
    share_out(lambda u, v: compiled.differences(p[u:v], q[u:v], by, o[u:v]), len(a), ROWS)
    return out


def adam_rows(
    parameter: Float[Tensor, "features width"],
    gradient: Float[Tensor, "features width"] | Products,
    first: Float[Tensor, "features width"] | None,
    second: Float[Tensor, "features width"],
    *,
    step: int,
    learning_rate: float,
    betas: tuple[float, float],
    epsilon: float,
    unit_rows: bool,
) -> None:
    """See :func:`sememe.kernels.reference.adam_rows`."""
    p, g = parameter.detach().numpy(), _gradient(gradient)
    m = _NOTHING if first is None else first.numpy()
    rate = learning_rate / (1 - betas[0] ** step)
    settings = (rate, *betas, 1 - betas[1] ** step, epsilon, unit_rows)
    v = second.numpy()
    share_out(lambda a, b: updates.adam_span(a, b, p, g, m, v, *settings), len(p), FEATURES)


def adafactor_rows(
    parameter: Float[Tensor, "features width"],
    gradient: Float[Tensor, "features width"] | Products,
    rows: Float[Tensor, " features"],
    columns: Float[Tensor, " width"],
    *,
    step: int,
    learning_rate: float,
    beta: float,
    epsilon: float,
    unit_rows: bool,
) -> None:
    """See :func:`sememe.kernels.reference.adafactor_rows`."""
    p, g, r = parameter.detach().numpy(), _gradient(gradient), rows.numpy()
    factors = column_factors(columns).numpy()
    squares = np.empty((-(-len(p) // FEATURES), p.shape[1]), np.float32)
    settings = (learning_rate, beta, 1 - beta**step, epsilon, unit_rows)
    share_out(
        lambda a, b: updates.adafactor_span(
            a, b, p, g, r, factors, squares[a // FEATURES], *settings
        ),
        len(p),
        FEATURES,
    )
    columns.lerp_(torch.from_numpy(squares.sum(0) / len(p)), 1 - beta)


_NOTHING = np.empty((0, 0), np.float32)


def _gradient(gradient: Tensor | Products) -> updates.Gradient:
    """Return the gradient as the loops take it."""
    if isinstance(gradient, Products):
        starts, row, weight, x = (part.numpy() for part in gradient[:4])
        more = _NOTHING if gradient.more is None else _array(gradient.more)
        return updates.Gradient(more, starts, row, weight, x)
    none = np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.float32)
    return updates.Gradient(_array(gradient), *none, x=_NOTHING)


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous()


def _array(tensor: Tensor) -> Array:
    array: Array = _plain(tensor).numpy()
    return array
