"""The compiled selection over a whole batch agrees with its plain twin, ties included."""

import pytest
import torch

from sememe.kernels import cpu, reference

ROWS, FEATURES, WIDTH = 37, 70, 9


def inputs(kind):
    generator = torch.Generator().manual_seed(3)
    x, W = (torch.randn(n, WIDTH, generator=generator) for n in (ROWS, FEATURES))
    if kind == "ties":  # small whole numbers: many scores are equal
        x, W = x.round(), W.round()
    return x, W, torch.full((FEATURES,), -100.0 if kind == "nothing positive" else 0.0)


@pytest.mark.parametrize("kind", ["random", "ties", "nothing positive"])
@pytest.mark.parametrize("k", [1, 5, FEATURES])
def test_batchtopk_agrees_with_its_twin(kind, k):
    found = cpu.encode_batchtopk(*inputs(kind), k)
    wanted = reference.encode_batchtopk(*inputs(kind), k)
    torch.testing.assert_close(dense(found), dense(wanted))


@pytest.mark.parametrize("kind", ["random", "ties", "nothing positive"])
def test_positive_agrees_with_its_twin(kind):
    found, wanted = (m.encode_positive(*inputs(kind)) for m in (cpu, reference))
    torch.testing.assert_close(dense(found), dense(wanted))


def test_no_rows_give_an_empty_code():
    x, W, bias = inputs("random")
    for code in (cpu.encode_batchtopk(x[:0], W, bias, 3), cpu.encode_positive(x[:0], W, bias)):
        assert code.values.shape[0] == 0


def dense(code):
    values = torch.zeros(len(code.values), FEATURES)
    return values.scatter_add_(1, code.indices.long(), code.values)
