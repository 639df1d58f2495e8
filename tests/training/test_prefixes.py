"""Matryoshka's options: prefixes by frequency, prefixes that teach only what they add; and tilt."""

import pytest
import torch

from sememe.dictionaries import Dictionary, DictionaryConfig, TopK
from sememe.dictionaries.objectives import Matryoshka, Step, squared_error

WIDTH, FEATURES, ROWS = 6, 16, 40
ENDS = [1, 4, 8]
SHARES = tuple(end / FEATURES for end in ENDS)


@pytest.fixture
def step():
    config = DictionaryConfig(
        reads=("x",),
        writes=("x",),
        read_widths=(WIDTH,),
        write_widths=(WIDTH,),
        features=FEATURES,
        nonlinearity=TopK(5),
    )
    dictionary = Dictionary(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in dictionary.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    x = torch.randn(ROWS, WIDTH, generator=generator)
    activity = dictionary.activate(x)
    frequency = torch.rand(FEATURES, generator=generator)
    dead = torch.zeros(0, dtype=torch.int64)
    return Step.of((), dictionary, activity, x, x, dead=dead, frequency=frequency)


def dense(step):
    values = torch.zeros(ROWS, FEATURES)
    code = step.activity.values
    return values.scatter_add(1, code.indices.long(), code.values)


@pytest.mark.parametrize("by_frequency", [False, True])
@pytest.mark.parametrize("detached", [False, True])
def test_prefixes_are_those_of_a_dense_twin(step, by_frequency, detached):
    term = Matryoshka(shares=SHARES, by_frequency=by_frequency, detached=detached)
    term(step).backward(retain_graph=True)
    found = step.dictionary.W_dec.grad.clone()
    step.dictionary.zero_grad()

    order = step.frequency.argsort(descending=True) if by_frequency else torch.arange(FEATURES)
    values, W = dense(step), step.dictionary.W_dec
    expected = torch.zeros(())
    start, before = 0, step.dictionary.b_dec
    for number, end in enumerate(ENDS):
        chosen = order[start:end]
        before = before.detach() if detached and number else before
        before = before + values[:, chosen] @ W[chosen]
        expected = expected + (step.x - before).square().sum(1).mean()
        start = end
    torch.testing.assert_close(term(step), expected)
    expected.backward()
    torch.testing.assert_close(found, step.dictionary.W_dec.grad, atol=1e-4, rtol=1e-4)


def test_detached_prefixes_teach_each_feature_once(step):
    """The first feature learns from the first prefix alone, whatever the others make of it."""
    Matryoshka(shares=SHARES, detached=True)(step).backward(retain_graph=True)
    found = step.dictionary.W_dec.grad[0].clone()
    step.dictionary.zero_grad()
    Matryoshka(shares=SHARES[:1])(step).backward()
    torch.testing.assert_close(found, step.dictionary.W_dec.grad[0])


def test_tilt_weighs_bad_rows_more():
    target = torch.tensor([[1.0, 0.0], [3.0, 0.0]])
    errors = torch.tensor([1.0, 9.0])
    weights = (0.5 * errors / errors.mean()).softmax(0)
    found = squared_error(target, torch.zeros(2, 2), tilt=0.5)
    assert float(found) == pytest.approx(float((weights * errors).sum()))
    assert float(squared_error(target, torch.zeros(2, 2))) == pytest.approx(5.0)
    assert float(squared_error(target, torch.zeros(2, 2), tilt=1e-6)) == pytest.approx(5.0)
