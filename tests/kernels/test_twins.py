"""Every kernel against its plain twin, and the twins against dense float64 algebra."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sememe.kernels import Code, choice, cpu, reference

SHAPES = [(1, 3, 1, 1), (5, 16, 40, 7), (700, 33, 257, 16), (513, 64, 1000, 32), (30, 24, 64, 64)]
"""rows, width, features, k"""


def weights(rows, width, features, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, width, generator=generator)
    W = torch.randn(features, width, generator=generator) / width**0.5
    return x, W, 0.3 * torch.randn(features, generator=generator)


def a_code(rows, features, k, seed=1):
    """Entries with holes, repeated features across rows, and none twice in a row."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(rows, features, generator=generator).argsort(1)[:, :k]
    values = torch.randn(rows, k, generator=generator).clamp_min(0)
    return Code(order.where(values > 0, 0).to(torch.int32), values)


def dense(code, features):
    out = torch.zeros(len(code.values), features, dtype=torch.float64)
    return out.scatter_add_(1, code.indices.long(), code.values.double())


@pytest.mark.parametrize(("rows", "width", "features", "k"), SHAPES)
def test_encode_agrees_with_its_twin(rows, width, features, k):
    x, W, b = weights(rows, width, features)
    ours, twin = cpu.encode_topk(x, W, b, k), reference.encode_topk(x, W, b, k)
    torch.testing.assert_close(ours.values, twin.values, atol=1e-5, rtol=1e-5)
    scores = (x @ W.T + b).gather(1, ours.indices.long())
    torch.testing.assert_close(scores.where(ours.values > 0, 0), ours.values, atol=1e-5, rtol=1e-5)
    assert ours.indices.dtype == torch.int32
    assert (ours.indices == twin.indices).float().mean() > 0.99  # near-ties may round either way


@pytest.mark.parametrize(("rows", "width", "features", "k"), SHAPES)
def test_encode_is_what_a_float64_sort_says(rows, width, features, k):
    x, W, b = weights(rows, width, features)
    scores = x.double() @ W.double().T + b.double()
    expected = scores.clamp_min(0).topk(k, dim=1).values
    for kernels in (cpu, reference):
        values = kernels.encode_topk(x, W, b, k).values
        torch.testing.assert_close(values.double(), expected, atol=1e-5, rtol=1e-5)


integers = st.integers(min_value=-3, max_value=3)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_ties_go_to_the_lower_feature_and_equal_values_come_by_feature(data):
    features = data.draw(st.integers(1, 150))
    k = data.draw(st.integers(1, features))
    scores = data.draw(st.lists(integers, min_size=features, max_size=features))
    ranked = sorted((-s, f) for f, s in enumerate(scores) if s > 0)[:k]
    ranked += [(0, 0)] * (k - len(ranked))
    bias = torch.tensor(scores, dtype=torch.float32)
    for kernels in (cpu, reference):
        code = kernels.encode_topk(torch.zeros(2, 4), torch.zeros(features, 4), bias, k)
        for row in range(2):
            assert code.indices[row].tolist() == [f for _, f in ranked]
            assert code.values[row].tolist() == [-float(s) for s, _ in ranked]


def test_all_scores_equal_fill_the_code_with_the_first_features():
    code = cpu.encode_topk(torch.zeros(3, 4), torch.zeros(5000, 4), torch.ones(5000), 8)
    assert code.indices.tolist() == [list(range(8))] * 3


def test_a_row_without_positive_scores_has_no_entries():
    for kernels in (cpu, reference):
        code = kernels.encode_topk(torch.zeros(3, 4), torch.zeros(90, 4), -torch.ones(90), 5)
        assert not code.values.any()
        assert not code.indices.any()


def test_infinite_and_nan_scores_are_never_lost():
    bias = torch.zeros(200)
    bias[7], bias[150] = float("inf"), float("nan")
    x, W = torch.zeros(20, 4), torch.zeros(200, 4)
    for kernels in (cpu, reference):
        codes = [
            kernels.encode_topk(x, W, bias, 3),
            kernels.encode_batchtopk(x, W, bias, 3),
            kernels.encode_positive(x, W, bias),
        ]
        for code in codes:
            assert code.values.isnan().any(dim=1).all()
            assert code.values.isinf().any(dim=1).all()


@pytest.mark.parametrize(("rows", "width", "features", "k"), SHAPES)
def test_decode_and_its_gradients_agree_with_dense_algebra(rows, width, features, k):
    x, W, _ = weights(rows, width, features)
    code = a_code(rows, features, k)
    D = dense(code, features)
    for kernels in (cpu, reference):
        torch.testing.assert_close(
            kernels.decode(*code, W).double(), D @ W.double(), atol=1e-4, rtol=1e-4
        )
        to_values = kernels.code_gradient(*code, W, x)
        expected = (x.double() @ W.double().T).gather(1, code.indices.long())
        expected = expected.where(code.values > 0, 0)
        torch.testing.assert_close(to_values.double(), expected, atol=1e-4, rtol=1e-4)
        weight, bias = kernels.weight_gradient(*code, x, features)
        torch.testing.assert_close(weight.double(), D.T @ x.double(), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(bias.double(), D.sum(0), atol=1e-4, rtol=1e-4)


def entries(generator, rows=500, k=7, features=300, width=33):
    """Return a gradient as products, some features without any entry."""
    indices = torch.randint(0, features - 20, (rows, k), generator=generator, dtype=torch.int32)
    coefficients = torch.randn(rows, k, generator=generator)
    coefficients[::3, 0] = 0
    return indices, coefficients, torch.randn(rows, width, generator=generator)


def added_up(indices, coefficients, x, features):
    dense = torch.zeros(len(x), features, dtype=torch.float64)
    dense.scatter_add_(1, indices.long(), coefficients.double())
    return dense.T @ x.double()


@pytest.mark.parametrize("given", ["added up", "products", "both"])
@pytest.mark.parametrize("unit_rows", [False, True])
@pytest.mark.parametrize("optimiser", ["adam", "adam without momentum", "adafactor"])
def test_optimisers_agree_with_their_twins_over_several_steps(optimiser, unit_rows, given):
    generator = torch.Generator().manual_seed(0)
    start = torch.nn.functional.normalize(torch.randn(300, 33, generator=generator), dim=1)
    gradients = [entries(generator) for _ in range(5)]
    ended = []
    for kernels in (cpu, reference):
        p = start.clone() if kernels is cpu else start.double()
        kind = p.new_zeros
        moments = {
            "adam": (kind(300, 33), kind(300, 33)),
            "adam without momentum": (None, kind(300, 33)),
            "adafactor": (kind(300), kind(33)),
        }[optimiser]
        betas = {"beta": 0.999} if optimiser == "adafactor" else {"betas": (0.9, 0.999)}
        if optimiser == "adam without momentum":
            betas = {"betas": (0.0, 0.999)}
        for step, gradient in enumerate(gradients, 1):
            products, _ = cpu.products_of(*gradient, 300)
            exact = added_up(*gradient, 300).to(p.dtype)
            if given == "both":
                more = torch.randn(300, 33, generator=torch.Generator().manual_seed(step))
                products, exact = products._replace(more=more), exact + more
            move = kernels.adafactor_rows if optimiser == "adafactor" else kernels.adam_rows
            move(
                p,
                products if given != "added up" and kernels is cpu else exact,
                *moments,
                step=step,
                learning_rate=1e-2,
                epsilon=1e-8,
                unit_rows=unit_rows,
                **betas,
            )
        ended.append((p, *(moment for moment in moments if moment is not None)))
    for ours, twin in zip(*ended, strict=True):
        torch.testing.assert_close(ours.double(), twin, atol=2e-5, rtol=1e-4)
    if unit_rows:
        torch.testing.assert_close(ended[0][0].norm(dim=1), torch.ones(300), atol=1e-6, rtol=0)


def test_products_add_up_to_the_gradient():
    gradient = entries(torch.Generator().manual_seed(1))
    products, bias = cpu.products_of(*gradient, 300)
    close = {"atol": 1e-5, "rtol": 1e-4}
    torch.testing.assert_close(products.dense().double(), added_up(*gradient, 300), **close)
    ones = torch.ones(500, 1)
    torch.testing.assert_close(bias.double(), added_up(*gradient[:2], ones, 300)[:, 0], **close)


def test_adafactor_estimates_each_second_moment_by_its_row_and_column():
    """Where squared gradients are products of rows and columns, steps are those of signs."""
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.rand(40, generator=generator) + 0.1, torch.rand(9, generator=generator)
    gradient = rows[:, None] * (columns + 0.1) * torch.randn(40, 9, generator=generator).sign()
    p, r, c = torch.zeros(40, 9), torch.zeros(40), torch.zeros(9)
    for step in range(1, 30):
        before = p.clone()
        cpu.adafactor_rows(
            p, gradient, r, c, step=step, learning_rate=0.5, beta=0.99, epsilon=0.0, unit_rows=False
        )
    torch.testing.assert_close(p - before, -0.5 * gradient.sign(), atol=1e-5, rtol=1e-5)


def test_adam_without_unit_rows_is_torchs_adam():
    generator = torch.Generator().manual_seed(0)
    ours = torch.randn(50, 9, generator=generator)
    theirs = torch.nn.Parameter(ours.clone())
    optimiser = torch.optim.Adam([theirs], lr=3e-3, betas=(0.9, 0.99), eps=1e-8)
    m, v = torch.zeros(50, 9), torch.zeros(50, 9)
    for step in range(1, 6):
        theirs.grad = torch.randn(50, 9, generator=generator)
        cpu.adam_rows(
            ours,
            theirs.grad,
            m,
            v,
            step=step,
            learning_rate=3e-3,
            betas=(0.9, 0.99),
            epsilon=1e-8,
            unit_rows=False,
        )
        optimiser.step()
    torch.testing.assert_close(ours, theirs.detach(), atol=1e-6, rtol=1e-5)


def test_results_do_not_depend_on_the_number_of_threads():
    x, W, b = weights(1500, 96, 1024)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            code = cpu.encode_topk(x, W, b, 16)
            results.append(
                [
                    *code,
                    cpu.decode(*code, W),
                    cpu.code_gradient(*code, W, x),
                    *cpu.weight_gradient(*code, x, 1024),
                ]
            )
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_the_callers_thread_count_is_left_as_it_was():
    threads = torch.get_num_threads()
    x, W, b = weights(2000, 16, 64)
    cpu.encode_topk(x, W, b, 4)
    assert torch.get_num_threads() == threads


def test_the_choice_is_compiled_for_float32_on_cpu_and_plain_otherwise(monkeypatch):
    assert choice.kernels_for(torch.zeros(2)) is cpu
    assert choice.kernels_for(torch.zeros(2, dtype=torch.float64)) is reference
    assert choice.kernels_for(torch.zeros(2, device="meta")) is reference
    monkeypatch.setattr(choice, "cpu_kernels", lambda: None)
    assert choice.kernels_for(torch.zeros(2)) is reference


def test_no_rows_give_no_entries():
    for kernels in (cpu, reference):
        nothing = torch.zeros(0, 4), torch.zeros(9, 4), torch.zeros(9)
        for code in (
            kernels.encode_topk(*nothing, 3),
            kernels.encode_batchtopk(*nothing, 3),
            kernels.encode_positive(*nothing),
        ):
            assert len(code.indices) == len(code.values) == 0


@pytest.mark.parametrize("rows_of_base", [1, 60])
def test_reconstruct_agrees_with_float64(rows_of_base):
    x, W, b = weights(60, 33, 300)
    code = cpu.encode_topk(x, W, b, 6)
    there = code.values + (torch.rand(60, 6, generator=torch.Generator().manual_seed(3)) > 0.5)
    base = torch.randn(rows_of_base, 33, generator=torch.Generator().manual_seed(4))
    exact = [part.double() for part in (code.values, W, base, x)]
    dense = torch.zeros(60, 300, dtype=torch.float64)
    dense.scatter_add_(1, code.indices.long(), exact[0])
    residual = exact[3] - dense @ exact[1] - exact[2]
    along = -(residual @ exact[1].T).gather(1, code.indices.long()).where(there > 0, 0)
    for kernels in (cpu, reference):
        found = kernels.reconstruct(*code, there, W, base, x)
        for ours, wanted in zip(found, (residual, residual.square().sum(), along), strict=True):
            torch.testing.assert_close(ours.double(), wanted, atol=1e-3, rtol=1e-5)
