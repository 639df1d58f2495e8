"""Gradients through sparse encode and decode against dense autograd in float64."""

import pytest
import torch

from sememe.kernels import centred, decode, encode_topk, gather, scores, squared_distance

ROWS, WIDTH, FEATURES, K = 37, 12, 60, 9


def tensors(dtype):
    generator = torch.Generator().manual_seed(3)
    draws = {
        "x": torch.randn(ROWS, WIDTH, generator=generator),
        "W_enc": torch.randn(FEATURES, WIDTH, generator=generator),
        "bias": torch.randn(FEATURES, generator=generator) - 6,  # rows with fewer than K entries
        "W_dec": torch.randn(FEATURES, WIDTH, generator=generator),
    }
    return {name: t.to(dtype).requires_grad_() for name, t in draws.items()}


def loss_of(values, rebuilt, x):
    return (rebuilt - x.detach()).square().sum() + 0.7 * values.sum()


def dense_twin():
    """TopK then ReLU on all the scores, then dense products, by autograd in float64."""
    t = tensors(torch.float64)
    scores = t["x"] @ t["W_enc"].T + t["bias"]
    top = scores.topk(K, dim=1)
    features = torch.zeros_like(scores).scatter(1, top.indices, top.values.relu())
    loss = loss_of(features, features @ t["W_dec"], t["x"])
    loss.backward()
    return loss, {name: tensor.grad for name, tensor in t.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_gradient_agrees_with_the_dense_twin(dtype):
    expected_loss, expected = dense_twin()
    t = tensors(dtype)
    code = encode_topk(t["x"], t["W_enc"], t["bias"], K)
    loss = loss_of(code.values, decode(code, t["W_dec"]), t["x"])
    loss.backward()
    tolerance = {"atol": 2e-4, "rtol": 2e-4} if dtype == torch.float32 else {}
    torch.testing.assert_close(loss.double(), expected_loss, **tolerance)
    for name, gradient in expected.items():
        torch.testing.assert_close(t[name].grad.double(), gradient, msg=name, **tolerance)


@pytest.mark.parametrize("learns", ["input", "centre"])
def test_dense_scores_teach_what_plain_products_do(learns):
    found = {}
    for name, dtype in (("ours", torch.float32), ("plain", torch.float64)):
        t = {key: value.detach() for key, value in tensors(dtype).items()}
        centre = torch.linspace(-1, 1, WIDTH, dtype=dtype)
        (t["x"] if learns == "input" else centre).requires_grad_()
        W, bias = t["W_enc"].requires_grad_(), t["bias"].requires_grad_()
        if name == "ours":
            out = scores(centred(t["x"], centre), W, bias)
        else:
            out = (t["x"] - centre) @ W.T + bias
        out.square().sum().backward()
        found[name] = [v.grad for v in (t["x"], centre, W, bias)]
    for ours, plain in zip(*found.values(), strict=True):
        assert (ours is None) == (plain is None)
        if plain is not None:
            atol = 1e-5 * float(plain.abs().max())
            torch.testing.assert_close(ours.double(), plain, rtol=1e-5, atol=atol)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_entries_that_relu_zeroed_get_no_gradient(dtype):
    x = torch.ones(4, 3, dtype=dtype)
    W = torch.zeros(6, 3, dtype=dtype, requires_grad=True)
    bias = torch.tensor([1.0, -1, -2, 2, -3, -4], dtype=dtype, requires_grad=True)
    code = encode_topk(x, W, bias, 5)
    assert (code.values > 0).sum(1).tolist() == [2] * 4
    code.values.sum().backward()
    assert bias.grad.tolist() == [4, 0, 0, 4, 0, 0]
    assert W.grad.abs().sum(1).tolist() == [12, 0, 0, 12, 0, 0]


def test_gather_is_indexing_and_its_gradient_the_sum():
    generator = torch.Generator().manual_seed(0)
    indices = torch.randint(FEATURES, (3000, 20), generator=generator).int()
    weights = torch.randn(3000, 20, generator=generator)
    parameter = torch.randn(FEATURES, generator=generator, requires_grad=True)
    (gather(parameter, indices) * weights).sum().backward()
    assert torch.equal(gather(parameter, indices), parameter[indices.long()])
    expected = torch.zeros(FEATURES, dtype=torch.float64)
    expected.index_add_(0, indices.flatten().long(), weights.flatten().double())
    torch.testing.assert_close(parameter.grad.double(), expected, atol=1e-4, rtol=1e-4)
    first = parameter.grad.clone()
    for _ in range(5):
        parameter.grad = None
        (gather(parameter, indices) * weights).sum().backward()
        assert torch.equal(parameter.grad, first)


@pytest.mark.parametrize("raw_learns", [False, True])
def test_the_centre_gets_the_gradient_of_the_dense_twin(raw_learns):
    t = {name: tensor.detach() for name, tensor in tensors(torch.float64).items()}
    weights = torch.arange(1.0, ROWS * K + 1, dtype=torch.float64).view(ROWS, K).sin()
    gradients = []
    for dense in (False, True):
        raw = t["x"].clone().requires_grad_(raw_learns)
        centre = t["x"].mean(0).requires_grad_()
        if dense:
            scores = (raw - centre) @ t["W_enc"].T + t["bias"] + 6
            values = scores.topk(K, dim=1).values.relu()
        else:
            x = centred(raw, centre)
            values = encode_topk(x, t["W_enc"], t["bias"] + 6, K).values
        (weights * values).sum().backward()
        gradients.append([centre.grad, raw.grad] if raw_learns else [centre.grad])
    for ours, twin in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, twin)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_squared_distance_agrees_with_autograd(dtype):
    t = tensors(dtype)
    x, y = t["x"], t["W_enc"][:ROWS]
    found = torch.autograd.grad(3 * squared_distance(x, y), [x, t["W_enc"]])
    expected = torch.autograd.grad(3 * (x - y).square().sum(), [x, t["W_enc"]])
    for ours, twin in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, twin)
    near = squared_distance(x, y[:1])
    torch.testing.assert_close(near, (x - y[:1]).square().sum())
