"""LISTA's scores and gradients are those of its equations; each code has its own threshold."""

import dataclasses

import pytest
import torch

from sememe.dictionaries import BatchTopK, Dictionary, DictionaryConfig, Refined, ReLU, TopK
from sememe.dictionaries.nonlinearities import from_json, to_json, with_k
from sememe.errors import UsageError

WIDTH, FEATURES, K, ROWS, ETA = 12, 50, 6, 64, 0.3
INNER = [TopK(K), BatchTopK(K)]


def make(nonlinearity, dtype=torch.float32, seed=5):
    config = DictionaryConfig(
        reads=("x",),
        writes=("x",),
        read_widths=(WIDTH,),
        write_widths=(WIDTH,),
        features=FEATURES,
        nonlinearity=nonlinearity,
    )
    dictionary = Dictionary(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in dictionary.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        dictionary.W_dec /= dictionary.W_dec.norm(dim=1, keepdim=True)
        dictionary.W_enc /= dictionary.W_enc.norm(dim=1, keepdim=True)
        dictionary.b_enc -= 0.5
    return dictionary.to(dtype)


def activations(dtype=torch.float32):
    return 2 * torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(6)).to(dtype)


def dense_topk(scores, inner):
    """Return what ``inner`` keeps of all scores."""
    if inner.kind == "topk":
        bound = scores.topk(K, dim=1).values[:, -1:]
    else:
        bound = scores.flatten().topk(K * ROWS).values[-1]
    return scores * (scores >= bound) * (scores > 0)


def lista(dictionary, x, inner, steps):
    """Return the features by the equations, on all scores at once."""
    centred = x - dictionary.b_dec
    scores = centred @ dictionary.W_enc.T + dictionary.b_enc
    features = dense_topk(scores, inner)
    for _ in range(steps):
        left = centred - features @ dictionary.W_dec
        scores = scores + ETA * left @ dictionary.W_enc.T
        features = dense_topk(scores, inner)
    return features


@pytest.mark.parametrize("inner", INNER, ids=lambda inner: inner.kind)
@pytest.mark.parametrize("steps", [1, 2])
def test_values_and_gradients_are_those_of_a_dense_twin(inner, steps):
    kind = Refined(inner, eta=ETA, steps=steps)
    dictionary, x = make(kind), activations()
    rebuilt = dictionary.rebuild(dictionary.activate(x), x)
    (x - rebuilt).square().sum().backward()
    twin = make(kind, torch.float64)
    expected = lista(twin, x.double(), inner, steps) @ twin.W_dec + twin.b_dec
    torch.testing.assert_close(rebuilt.double(), expected, atol=1e-4, rtol=1e-4)
    (x.double() - expected).square().sum().backward()
    for (name, found), wanted in zip(dictionary.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(
            found.grad.double(), wanted.grad, atol=2e-2, rtol=1e-3, msg=lambda m, n=name: f"{n} {m}"
        )


def test_without_eta_it_is_its_inner_kind():
    x = activations()
    plain, refined = make(TopK(K)), make(Refined(TopK(K), eta=0.0))
    for found, wanted in zip(refined.encode(x), plain.encode(x), strict=True):
        assert torch.equal(found, wanted)


def test_each_time_has_its_own_threshold():
    """After training on a batch the thresholds give back the code of that batch."""
    dictionary, x = make(Refined(BatchTopK(K), eta=ETA)), activations()
    extra = dictionary.encoder().extra
    assert set(extra) == {"threshold_0", "batches_0", "threshold_1", "batches_1"}
    activity = dictionary.activate(x)
    dictionary.config.nonlinearity.after_step(activity, extra)
    first, last = activity.earlier[0].values, activity.values
    for threshold, code in ((extra["threshold_0"], first), (extra["threshold_1"], last)):
        assert float(threshold) == float(code.values[code.values > 0].detach().min())
    with torch.no_grad():
        for name in ("threshold_0", "threshold_1"):
            extra[name].sub_(1e-5)  # what equals the threshold is not above it
    found = dictionary.encode(x)
    torch.testing.assert_close(
        dictionary.decode(found), dictionary.rebuild(activity, x), atol=1e-4, rtol=1e-4
    )


def test_settings_survive_json_and_k_reaches_the_inner_kind(tmp_path):
    kind = Refined(BatchTopK(K), eta=0.2, steps=2)
    assert from_json(to_json(kind)) == kind
    assert with_k(kind, 9) == dataclasses.replace(kind, inner=BatchTopK(9))
    assert with_k(kind, 9).k == 9
    dictionary = make(kind)
    dictionary.save(tmp_path / "d", made_from={})
    loaded = Dictionary.load(tmp_path / "d")
    assert loaded.config == dictionary.config
    for found, wanted in zip(
        loaded.encode(activations()), dictionary.encode(activations()), strict=True
    ):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"inner": ReLU()}, "refined has relu inside; expected topk or batchtopk"),
        ({"inner": TopK(2), "eta": 1.5}, "eta is 1.5"),
        ({"inner": TopK(2), "steps": 0}, "steps is 0"),
    ],
)
def test_impossible_settings_are_refused(settings, said):
    with pytest.raises(UsageError, match=said):
        Refined(**settings)


def test_what_is_not_read_cannot_be_looked_at_again():
    with pytest.raises(UsageError, match=r"refined.*reads.*writes"):
        DictionaryConfig(
            reads=("a",),
            writes=("b",),
            read_widths=(4,),
            write_widths=(4,),
            features=8,
            nonlinearity=Refined(TopK(2)),
            centre="none",
        )
