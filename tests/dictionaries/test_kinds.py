"""What every kind of dictionary must do: one battery over the table of kinds."""

import pytest
import torch

from sememe.dictionaries import Code, Dictionary, DictionaryConfig
from sememe.dictionaries.nonlinearities import NONLINEARITIES, from_json, to_json
from sememe.dictionaries.objectives import TERMS, Step
from sememe.training.config import TrainConfig
from sememe.training.kinds import KINDS

WIDTH, FEATURES, K, ROWS = 12, 50, 6, 64
SITE = ("layers.3.resid",)

DENSE = {
    "topk": lambda s: (
        torch.zeros_like(s).scatter(1, (t := s.topk(K, dim=1)).indices, t.values).relu()
    ),
    "relu": lambda s: s.relu(),
}
"""Every nonlinearity again, on all scores at once."""


@pytest.fixture(params=sorted(KINDS))
def kind(request):
    return request.param


@pytest.fixture(params=["tied", "none"])
def centre(request):
    return request.param


def make(kind, centre="tied", dtype=torch.float32):
    config = DictionaryConfig(
        reads=SITE,
        writes=SITE,
        width=WIDTH,
        features=FEATURES,
        nonlinearity=KINDS[kind].nonlinearity(TrainConfig(features=FEATURES, k=K)),
        centre=centre,
    )
    dictionary = Dictionary(config, scale=0.37)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in dictionary.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        dictionary.W_dec /= dictionary.W_dec.norm(dim=1, keepdim=True)
        dictionary.b_enc -= 2
    return dictionary.to(dtype)


def activations(dtype=torch.float32):
    return 4 * torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(6)).to(dtype) + 1


def dense_features(dictionary, x):
    """Feature values by the equations of the class, all at once."""
    centre = dictionary.b_dec if dictionary.config.centre == "tied" else 0
    scores = (x * dictionary.scale - centre) @ dictionary.W_enc.T + dictionary.b_enc
    return DENSE[dictionary.config.nonlinearity.kind](scores)


def test_every_kind_has_a_dense_twin_here():
    assert set(DENSE) == set(KINDS) == set(NONLINEARITIES)


def test_code_is_well_formed(kind, centre):
    code = make(kind, centre).encode(activations())
    assert code.indices.shape == code.values.shape
    assert code.indices.dtype == torch.int32
    assert code.values.dtype == torch.float32
    assert (code.values >= 0).all()
    assert (code.values.diff(dim=1) <= 0).all()
    assert (code.indices[code.values == 0] == 0).all()
    for indices, values in zip(*code, strict=True):
        there = indices[values > 0]
        assert len(set(there.tolist())) == len(there)


def test_encode_and_decode_are_the_equations(kind, centre):
    dictionary, x = make(kind, centre), activations()
    expected = dense_features(dictionary.double(), x.double())
    rebuilt = (expected @ dictionary.W_dec + dictionary.b_dec) / dictionary.scale
    dictionary.float()
    code = dictionary.encode(x)
    found = torch.zeros(ROWS, FEATURES).scatter_add_(1, code.indices.long(), code.values.detach())
    torch.testing.assert_close(found.double(), expected.detach(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        dictionary(x).double().detach(), rebuilt.detach(), atol=1e-4, rtol=1e-4
    )


def test_training_and_inference_see_the_same_features(kind, centre):
    dictionary, x = make(kind, centre), activations()
    activity = dictionary.activate(x * dictionary.scale)
    torch.testing.assert_close(
        dictionary.rebuild(activity) / dictionary.scale, dictionary(x), atol=1e-5, rtol=1e-5
    )


def test_folding_is_an_identity(kind, centre):
    """Encoder, decoder and biases with the scale folded in act on raw activations alone."""
    dictionary, x = make(kind, centre, torch.float64), activations(torch.float64)
    folded = dictionary.fold()
    scores = x @ folded.W_enc.T + folded.b_enc
    features = DENSE[dictionary.config.nonlinearity.kind](scores)
    torch.testing.assert_close(features, dense_features(dictionary, x))
    torch.testing.assert_close(features @ folded.W_dec + folded.b_dec, dictionary(x))


def test_gradients_of_the_objective_agree_with_a_dense_float64_twin(kind, centre):
    dictionary, x = make(kind, centre), activations()
    terms = KINDS[kind].terms(TrainConfig(features=FEATURES, k=K, l1=0.8))
    scaled = x * dictionary.scale
    activity = dictionary.activate(scaled)
    dead = torch.tensor([1, 4, 9, 33])
    step = Step(scaled, activity, dictionary.rebuild(activity), dictionary, dead)
    sum(weight * TERMS[name](step) for name, weight in terms.items()).backward()
    found = {name: p.grad.double() for name, p in dictionary.named_parameters()}

    twin = make(kind, centre, torch.float64)
    features = dense_features(twin, x.double())
    scaled = x.double() * twin.scale
    residual = scaled - features @ twin.W_dec - twin.b_dec
    losses = {"reconstruction": residual.square().sum(1).mean()}
    losses["l1"] = (features * twin.W_dec.norm(dim=1)).sum(1).mean()
    kept = torch.zeros(FEATURES, dtype=torch.bool)
    kept[dead] = True
    centred = (scaled - twin.b_dec if centre == "tied" else scaled).detach()
    scores = (centred @ twin.W_enc.T + twin.b_enc).masked_fill(~kept, -1).relu()
    target = residual.detach()
    left = (target - scores @ twin.W_dec).square().sum()
    losses["auxk"] = WIDTH * left / (target - target.mean(0)).square().sum()
    sum(weight * losses[name] for name, weight in terms.items()).backward()
    for name, parameter in twin.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, msg=name, atol=2e-4, rtol=2e-4)


def test_saved_and_loaded_is_the_same(kind, centre, tmp_path):
    dictionary = make(kind, centre)
    manifest = dictionary.save(tmp_path / "d", made_from={"model": "abc"}, note="x")
    loaded = Dictionary.load(tmp_path / "d")
    assert loaded.config == dictionary.config
    assert loaded.manifest == manifest
    for name, tensor in dictionary.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    first = {p.name: p.read_bytes() for p in (tmp_path / "d").iterdir()}
    loaded.save(tmp_path / "e", made_from={"model": "abc"}, note="x")
    assert first == {p.name: p.read_bytes() for p in (tmp_path / "e").iterdir()}


def test_settings_survive_json(kind):
    made = KINDS[kind].nonlinearity(TrainConfig(features=FEATURES, k=K))
    assert from_json(to_json(made)) == made


def test_no_rows_give_an_empty_code(kind):
    dictionary = make(kind)
    code = dictionary.encode(torch.zeros(0, WIDTH))
    assert isinstance(code, Code)
    assert len(code.values) == 0
    assert dictionary.decode(code).shape == (0, WIDTH)
