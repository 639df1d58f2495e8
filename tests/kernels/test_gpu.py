"""The Triton kernels against their plain twins: interpreted without a CUDA device, compiled on one.

Where scores must agree exactly they are small whole numbers, which both sides sum without rounding,
so that ties are everywhere.
"""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode

from sememe.dictionaries.nonlinearities import BatchTopK, JumpReLU, TopK
from sememe.dictionaries.objectives import L0, AuxK, Reconstruction
from sememe.kernels import choice, reference
from sememe.training import TrainConfig
from sememe.training.trainer import Trainer
from tests.kernels.test_twins import a_code, dense, weights

gpu = pytest.importorskip("sememe.kernels.gpu", reason="triton is not installed")

SHAPES = [(1, 1, 1, 1), (5, 16, 40, 7), (70, 33, 257, 16), (66, 40, 300, 9), (30, 24, 64, 64)]
"""rows, width, features, k"""
DTYPES = [torch.float32, torch.bfloat16]
shapes = pytest.mark.parametrize(("rows", "width", "features", "k"), SHAPES)
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


PLACE = pytest.param("cuda", marks=pytest.mark.gpu) if torch.cuda.is_available() else "cpu"


@pytest.fixture(params=[PLACE])
def device(request, monkeypatch):
    """Where tensors lie: on the CUDA device if there is one, else here, for the interpreter."""
    if request.param == "cpu":
        monkeypatch.setattr("triton.runtime.interpreter.InterpreterBuilder.create_dot", product)
    return request.param


def product(builder, a, b, total, *_):
    """Stand in for the interpreter's product, which multiplies the bits of bfloat16 as integers."""
    a, b = (
        (m.data.astype(np.uint32) << 16).view(np.float32) if m.data.dtype == np.uint16 else m.data
        for m in (a, b)
    )
    return type(total)(a @ b + total.data, total.dtype.scalar)


def whole(rows, width, features, seed=0):
    """Return inputs, weights and biases of small whole numbers."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-1, 2, (rows, width), generator=generator).float()
    W = torch.randint(-2, 3, (features, width), generator=generator).float()
    return x, W, torch.randint(-3, 4, (features,), generator=generator).float()


def close(ours, twin, tolerance=1e-5):
    torch.testing.assert_close(ours.cpu().double(), twin.double(), atol=tolerance, rtol=tolerance)


def the_same(ours, twin):
    assert ours.indices.dtype == torch.int32
    assert ours.values.dtype == twin.values.dtype
    assert torch.equal(ours.values.cpu(), twin.values)
    assert torch.equal(ours.indices.cpu(), twin.indices)


def encodings(k):
    return [("encode_topk", (k,)), ("encode_batchtopk", (k,)), ("encode_positive", ())]


@shapes
@dtypes
def test_encoders_agree_with_their_twins_entry_by_entry(rows, width, features, k, dtype, device):
    x, W, b = (t.to(dtype) for t in whole(rows, width, features))
    for name, settings in encodings(k):
        ours = getattr(gpu, name)(x.to(device), W.to(device), b.to(device), *settings)
        the_same(ours, getattr(reference, name)(x, W, b, *settings))


@shapes
def test_topk_is_what_a_float64_sort_says(rows, width, features, k, device):
    x, W, b = weights(rows, width, features)
    expected = (x.double() @ W.double().T + b.double()).clamp_min(0).topk(k, dim=1).values
    close(gpu.encode_topk(x.to(device), W.to(device), b.to(device), k).values, expected)


def test_neighbouring_features_that_are_active_together_cost_nothing_more(device, monkeypatch):
    x, W, b = whole(9, 20, 1500)
    b[:12] += 500
    expected = reference.encode_topk(x, W, b, 12)
    monkeypatch.setattr(reference, "encode_topk", None)
    the_same(gpu.encode_topk(x.to(device), W.to(device), b.to(device), 12), expected)


def test_a_row_whose_largest_all_lie_in_one_tile_is_encoded_anew(device, monkeypatch):
    x, W, b = whole(9, 20, 1500)
    W[::12, 0] += 200  # 12 tiles hold every 12th feature each
    x[:, 0] = torch.tensor([1.0, 0, 0, 1, 0, 0, 0, 0, 1])
    plain, again = reference.encode_topk, []
    expected = plain(x, W, b, 12)
    monkeypatch.setattr(reference, "encode_topk", lambda *a: again.append(len(a[0])) or plain(*a))
    the_same(gpu.encode_topk(x.to(device), W.to(device), b.to(device), 12), expected)
    assert again == [3]


def test_rows_in_several_parts_are_the_same(device, monkeypatch):
    x, W, b = (t.to(device) for t in whole(11, 8, 300))
    expected = reference.encode_topk(x, W, b, 5)
    monkeypatch.setattr(gpu, "CANDIDATES", 3 * 3 * 12)
    the_same(gpu.encode_topk(x, W, b, 5), expected)


def test_a_batch_of_equal_scores_goes_to_the_earlier_rows_and_lower_features(device):
    x, W = torch.zeros(7, 4, device=device), torch.zeros(400, 4, device=device)
    code = gpu.encode_batchtopk(x, W, torch.ones(400, device=device), 60)  # 420 entries
    counts = (code.values > 0).sum(1)
    assert counts.tolist() == [400, 20, 0, 0, 0, 0, 0]
    assert code.indices[0].tolist() == list(range(400))
    assert code.indices[1, :20].tolist() == list(range(20))


def test_without_positive_scores_there_are_no_entries(device):
    x, W, b = (torch.zeros(s, device=device) for s in ((3, 4), (90, 4), (90,)))
    for name, settings in encodings(5):
        code = getattr(gpu, name)(x, W, b - 1, *settings)
        assert code.values.shape == (3, 5 if name == "encode_topk" else 0)
        assert not code.values.any()
        assert not code.indices.any()


def test_without_rows_there_is_a_code_without_rows(device):
    x, W, b = (torch.zeros(s, device=device) for s in ((0, 4), (90, 4), (90,)))
    for name, settings in encodings(5):
        code = getattr(gpu, name)(x, W, b, *settings)
        assert code.values.shape[0] == code.indices.shape[0] == 0
        assert gpu.decode(*code, W).shape == (0, 4)
        assert gpu.code_gradient(*code, W, x).shape == code.values.shape
        assert not gpu.weight_gradient(*code, x, 90)[0].any()


def test_infinite_and_nan_scores_are_never_lost(device):
    b = torch.zeros(600, device=device)
    b[7], b[150], b[151] = torch.inf, torch.nan, -torch.tensor(torch.nan)
    x, W = torch.zeros(1, 4, device=device), torch.zeros(600, 4, device=device)
    for name, settings in encodings(4):
        values = getattr(gpu, name)(x, W, b, *settings).values[0]
        assert values.isnan().sum() == 2
        assert values.isinf().sum() == 1


@shapes
@dtypes
def test_decode_and_its_gradients_agree_with_dense_algebra(rows, width, features, k, dtype, device):
    x, W, _ = (t.to(dtype) for t in weights(rows, width, features))
    code = a_code(rows, features, k)
    code = code._replace(values=code.values.to(dtype))
    D, x64, W64 = dense(code, features), x.double(), W.double()
    indices, values, x, W = (t.to(device) for t in (*code, x, W))
    tolerance = 1e-4 if dtype == torch.float32 else 2e-2
    close(gpu.decode(indices, values, W), D @ W64, tolerance)
    expected = (x64 @ W64.T).gather(1, code.indices.long()).where(code.values > 0, 0)
    close(gpu.code_gradient(indices, values, W, x), expected, tolerance)
    weight, bias = gpu.weight_gradient(indices, values, x, features)
    close(weight, D.T @ x64, tolerance)
    close(bias, D.sum(0), tolerance)


def test_rows_that_no_entry_names_are_not_read(device):
    W = torch.ones(5, 3, device=device)
    W[0] = torch.nan
    indices = torch.tensor([[2, 0], [4, 0]], dtype=torch.int32, device=device)
    values = torch.tensor([[2.0, 0], [-1, 0]], device=device)
    assert gpu.decode(indices, values, W).tolist() == [[2.0] * 3, [-1.0] * 3]
    ones = torch.ones(1, device=device).expand(2, 3)
    assert gpu.code_gradient(indices, values, W, ones).tolist() == [[3, 0], [3, 0]]


@pytest.mark.parametrize("shape", [(40, 33), (1, 1500)])
@pytest.mark.parametrize("unit_rows", [False, True])
def test_adam_agrees_with_its_twin_over_several_steps(shape, unit_rows, device):
    generator = torch.Generator().manual_seed(0)
    start = torch.nn.functional.normalize(torch.randn(shape, generator=generator), dim=1)
    gradients = [torch.randn(shape, generator=generator) for _ in range(5)]
    settings = {"learning_rate": 1e-2, "betas": (0.9, 0.999), "epsilon": 1e-8}
    ended = []
    for kernels, place in ((gpu, device), (reference, "cpu")):
        p, m, v = (t.to(place) for t in (start.clone(), torch.zeros(shape), torch.zeros(shape)))
        for step, gradient in enumerate(gradients, 1):
            g = gradient.to(place)
            kernels.adam_rows(p, g, m, v, step=step, unit_rows=unit_rows, **settings)
        ended.append((p, m, v))
    for ours, twin in zip(*ended, strict=True):
        torch.testing.assert_close(ours.cpu(), twin, atol=1e-6, rtol=1e-5)
    if unit_rows:
        torch.testing.assert_close(ended[0][0].norm(dim=1).cpu(), torch.ones(shape[0]))


class Stream:
    """Sparse sums of directions at one site."""

    sites, widths, scales, rows = ("site",), (12,), (1.0,), 96

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        values = torch.rand(96, 30, generator=generator) - 0.8
        self.x = values.clamp_min(0) @ torch.randn(30, 12, generator=generator) * 8

    def steps(self, batch, passes):
        return self.rows * passes // batch

    def batches(self, batch, passes, seed, start=0):
        yield from (self.x.repeat(passes, 1)).split(batch)[start:]

    def sample(self, rows):
        return self.x[:rows]


@pytest.mark.parametrize(
    ("nonlinearity", "objective"),
    [
        (TopK(4), (Reconstruction(), AuxK())),
        (BatchTopK(4), (Reconstruction(), AuxK())),
        (JumpReLU(bandwidth=0.1), (Reconstruction(), L0(weight=0.1))),
    ],
    ids=["topk", "batchtopk", "jumprelu"],
)
def test_training_goes_as_with_the_plain_twins(nonlinearity, objective, device, monkeypatch):
    config = TrainConfig(
        features=48,
        nonlinearity=nonlinearity,
        objective=objective,
        batch=24,
        passes=1,
        dead_tokens=40,
    )
    stream, trainers = Stream(), []
    for kernels, place in ((gpu, device), (reference, "cpu")):
        monkeypatch.setattr(choice, "cpu_kernels", lambda kernels=kernels: kernels)
        trainer = Trainer(stream, config, stream.sites, stream.sites, place)
        for rows in stream.batches(24, 1, 0):
            trainer.advance(rows)
        trainers.append(trainer)
    ours, twin = trainers
    for name, weight in twin.dictionary.state_dict().items():
        close(ours.dictionary.state_dict()[name], weight, 1e-3)
    assert ours.figures() == pytest.approx(twin.figures(), rel=1e-3)
    resumed = Trainer(stream, config, stream.sites, stream.sites, device)
    saved = {name: tensor.cpu() for name, tensor in ours.tensors().items()}
    resumed.restore(saved, {**ours.state(), "step": ours.step})
    assert all(torch.equal(a, resumed.tensors()[n]) for n, a in ours.tensors().items())


def test_the_choice_on_a_cuda_device_is_triton_where_it_imports(monkeypatch):
    with FakeTensorMode():
        there = torch.empty(2, device="cuda")
        assert choice.kernels_for(there) is gpu
        assert choice.kernels_for(there.bfloat16()) is gpu
        assert choice.kernels_for(there.double()) is reference
        monkeypatch.setattr(choice, "gpu_kernels", lambda: None)
        assert choice.kernels_for(there) is reference


@pytest.mark.slow
def test_every_program_compiles_for_gpus_that_are_not_here(tmp_path):
    """The interpreter lets pass what the compiler refuses."""
    settings = {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "tests.kernels.compile_programs"]
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
