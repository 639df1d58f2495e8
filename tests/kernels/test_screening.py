"""Screened kernels against a float64 sort, on inputs that bf16 does badly with."""

import pytest
import torch

from sememe.kernels import cpu, reference, screening

ROWS, WIDTH, FEATURES, K = 300, 64, 1030, 16


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """Screen on every processor: without bf16 hardware the product is slow, not wrong."""
    monkeypatch.delenv("SEMEME_SCREENING", raising=False)
    monkeypatch.setattr(screening, "fast_bf16", lambda: True)
    monkeypatch.setattr(screening, "tally", screening.Tally())


def plain():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, WIDTH, generator=generator)
    W = torch.randn(FEATURES, WIDTH, generator=generator) / WIDTH**0.5
    return x, W, 0.3 * torch.randn(FEATURES, generator=generator)


def outlier_dimensions():
    x, W, bias = plain()
    x[:, 3] += 300
    x[:, 40] *= 1000
    return x, W, bias


def uneven_norms():
    x, W, bias = plain()
    W *= torch.logspace(-3, 3, FEATURES)[torch.randperm(FEATURES)][:, None]
    x *= torch.logspace(-4, 4, ROWS)[:, None]
    return x, W, bias


def near_ties():
    """All features alike to less than bf16 can tell."""
    x, W, bias = plain()
    return x, W[:1] + 1e-4 * W, bias * 0 + 5


def ascending():
    """Every feature scores higher than all before it."""
    x, W, _ = plain()
    return x, W / 100, torch.linspace(-1, 10, FEATURES)


def degenerate_rows():
    x, W, bias = plain()
    x[:50], x[50:100], x[100:150] = 0, 1, 1e-42
    return x, W, bias


def huge():
    x, W, bias = plain()
    x[::7] *= 1e30
    x[::11] *= 3e37
    return x, W, bias


def tiny():
    x, W, bias = plain()
    return x * 1e-20, W * 1e-18, bias * 0


def barely_positive():
    """Scores about zero, few of them above it."""
    x, W, bias = plain()
    return x, W, bias - 3.5


def large_biases():
    x, W, bias = plain()
    return x, W, 1e6 + 100 * bias


ADVERSARIES = [
    plain,
    outlier_dimensions,
    uneven_norms,
    near_ties,
    ascending,
    degenerate_rows,
    huge,
    tiny,
    barely_positive,
    large_biases,
]


def true_scores(x, W, bias):
    return x.double() @ W.double().T + bias.double()


def rounding(x, W, bias):
    """How far a float32 sum of each row's scores may be from the true one."""
    largest = x.double().norm(dim=1) * W.double().norm(dim=1).max() + bias.double().abs().max()
    return (largest * WIDTH * 2.0**-23 + 1e-37)[:, None]


@pytest.mark.parametrize("inputs", ADVERSARIES, ids=lambda f: f.__name__)
def test_topk_is_the_true_one(inputs):
    x, W, bias = inputs()
    code = cpu.encode_topk(x, W, bias, K)
    assert screening.tally.rows == ROWS
    scores = true_scores(x, W, bias).clamp_min(0)
    expected = scores.topk(K, dim=1).values
    finite = expected.amax(1) < 1e37  # beyond, float32 has no numbers
    error = (code.values.double() - expected).abs()[finite]
    assert (error <= rounding(x, W, bias)[finite]).all()
    chosen = scores.gather(1, code.indices.long()).where(code.values > 0, 0)
    assert ((chosen - expected).abs()[finite] <= rounding(x, W, bias)[finite]).all()
    distinct = [len(set(i[v > 0].tolist())) for i, v in zip(*code, strict=True)]
    assert distinct == (code.values > 0).sum(1).tolist()


@pytest.mark.parametrize("inputs", ADVERSARIES, ids=lambda f: f.__name__)
def test_positive_entries_are_all_there(inputs):
    x, W, bias = inputs()
    code = cpu.encode_positive(x, W, bias)
    assert screening.tally.rows == ROWS
    scores = true_scores(x, W, bias)
    finite = scores.abs().amax(1) < 1e37
    found = torch.zeros_like(scores).scatter_add(1, code.indices.long(), code.values.double())
    assert ((found - scores.clamp_min(0)).abs() <= rounding(x, W, bias))[finite].all()
    assert (code.indices[:, 1:] > code.indices[:, :-1])[code.values[:, 1:] > 0].all()


@pytest.mark.parametrize(
    "inputs", [plain, outlier_dimensions, near_ties, barely_positive], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("wanted", ["0", "1"])
def test_batchtopk_is_its_twin(inputs, wanted, monkeypatch):
    monkeypatch.setenv("SEMEME_SCREENING", wanted)
    x, W, bias = inputs()
    ours, twin = cpu.encode_batchtopk(x, W, bias, K), reference.encode_batchtopk(x, W, bias, K)
    assert (screening.tally.rows > 0) == (wanted == "1")
    assert (ours.values > 0).sum() == (twin.values > 0).sum()
    sums = [code.values.double().sort(dim=1, descending=True).values for code in (ours, twin)]
    width = max(s.shape[1] for s in sums)
    padded = [torch.nn.functional.pad(s, (0, width - s.shape[1])) for s in sums]
    moved = ((padded[0] - padded[1]).abs() > 2 * rounding(x, W, bias)).sum()
    assert moved <= 4  # entries that tie at the edge may change rows


def test_every_row_of_ordinary_inputs_is_certified():
    cpu.encode_topk(*plain(), K)
    assert screening.tally == screening.Tally(rows=ROWS, exact=0)


def test_rows_that_cannot_be_certified_are_counted():
    cpu.encode_topk(*huge(), K)
    assert screening.tally.exact == len(range(0, ROWS, 11))


def test_the_bound_holds_for_every_score():
    for inputs in (plain, outlier_dimensions, uneven_norms, large_biases):
        x, W, bias = inputs()
        encoder = screening.prepare(W, bias)
        low = screening.low_scores(x, encoder)[:, :FEATURES].double()
        norm = x.double().norm(dim=1)[:, None]
        lost = (x.double() - x.bfloat16().double()).norm(dim=1)[:, None]
        a, b, c = torch.from_numpy(encoder.bounds).T
        bound = a * norm + b * lost + c + 1.01 * 2.0**-8 * low.abs()
        assert ((low - true_scores(x, W, bias)).abs() <= bound).all()


def test_results_do_not_depend_on_the_number_of_threads():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2100, WIDTH, generator=generator)
    _, W, bias = plain()
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(
                [
                    *cpu.encode_topk(x, W, bias, K),
                    *cpu.encode_batchtopk(x, W, bias, K),
                    *cpu.encode_positive(x, W, bias - 2),
                ]
            )
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
