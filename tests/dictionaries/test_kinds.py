"""What every kind of dictionary must do: one battery over tables of kinds, sites and terms."""

import math

import pytest
import torch

from sememe.dictionaries import (
    NONLINEARITIES,
    BatchTopK,
    Code,
    Dictionary,
    DictionaryConfig,
    Encoder,
    Gated,
    JumpReLU,
    Refined,
    ReLU,
    TopK,
)
from sememe.dictionaries import scores as score_module
from sememe.dictionaries.nonlinearities import from_json, to_json
from sememe.dictionaries.objectives import (
    L0,
    L1,
    TERMS,
    AuxK,
    Divergence,
    GateReconstruction,
    Matryoshka,
    MultiTopK,
    PreActivation,
    Reconstruction,
    Step,
    Tanh,
    activate,
)
from sememe.dictionaries.scores import pack
from sememe.errors import SememeError

WIDTH, FEATURES, K, ROWS = 12, 50, 6, 64
KINDS = {
    "topk": TopK(K),
    "batchtopk": BatchTopK(K),
    "relu": ReLU(),
    "jumprelu": JumpReLU(threshold=0.5, bandwidth=0.8),
    "gated": Gated(),
    "refined": Refined(TopK(K), eta=0.4, steps=2),
}
SHAPES = {
    "tied": {"reads": ("a",), "writes": ("a",), "read_widths": (WIDTH,), "write_widths": (WIDTH,)},
    "untied": {
        "reads": ("a",),
        "writes": ("a",),
        "read_widths": (WIDTH,),
        "write_widths": (WIDTH,),
        "centre": "none",
    },
    "transcoder": {
        "reads": ("a",),
        "writes": ("b",),
        "read_widths": (WIDTH,),
        "write_widths": (7,),
        "centre": "none",
    },
    "skip": {
        "reads": ("a",),
        "writes": ("b",),
        "read_widths": (WIDTH,),
        "write_widths": (7,),
        "centre": "none",
        "skip": True,
    },
    "crosscoder": {
        "reads": ("a", "b"),
        "writes": ("a", "b"),
        "read_widths": (WIDTH, 7),
        "write_widths": (WIDTH, 7),
    },
}
ENTRIES = {"sparse": 2.0, "dense": -1.0}
"""Largest shares of active features at which entries are kept: all are below, and none."""


CASES = [
    (kind, shape)
    for kind in KINDS
    for shape, sites in SHAPES.items()
    if not KINDS[kind].compares or sites["reads"] == sites["writes"]
]


@pytest.fixture(params=CASES, ids="-".join)
def case(request):
    return request.param


@pytest.fixture
def kind(case):
    return case[0]


@pytest.fixture
def shape(case):
    return case[1]


@pytest.fixture(params=sorted(ENTRIES))
def entries(request, monkeypatch):
    monkeypatch.setattr(score_module, "SPARSE", ENTRIES[request.param])
    return request.param


def make(kind, shape="tied", bias=-4.0, dtype=torch.float32):
    config = DictionaryConfig(features=FEATURES, nonlinearity=KINDS[kind], **SHAPES[shape])
    scales = [0.37, 1.9][: len(config.reads)], [0.37 if config.autoencodes else 0.8, 1.9]
    dictionary = Dictionary(config, scales[0], scales[1][: len(config.writes)])
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in dictionary.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
            if "learnt" in name:
                parameter.abs_().mul_(0.3)
        dictionary.W_dec /= dictionary.W_dec.norm(dim=1, keepdim=True)
        dictionary.b_enc += bias
        if kind == "batchtopk":
            dictionary.estimates.get_buffer("threshold").fill_(0.6)
    return dictionary.to(dtype)


def activations(dictionary, dtype=torch.float32):
    generator = torch.Generator().manual_seed(6)
    return 4 * torch.randn(ROWS, dictionary.config.width, generator=generator).to(dtype) + 1


def targets(dictionary, dtype=torch.float32):
    generator = torch.Generator().manual_seed(7)
    return torch.randn(ROWS, dictionary.config.write_width, generator=generator).to(dtype)


def scores_of(dictionary, scaled):
    centre = dictionary.b_dec if dictionary.config.centre == "tied" else 0
    return (scaled - centre) @ dictionary.W_enc.T + dictionary.b_enc


def largest(scores, count):
    """The largest scores by a full sort, as a mask."""
    mask = torch.zeros(scores.numel(), dtype=torch.bool)
    mask[scores.flatten().sort(descending=True, stable=True).indices[:count]] = True
    return mask.view_as(scores)


def topk(scores, k=K):
    kept = torch.stack([largest(row[None], k)[0] for row in scores]) & (scores > 0)
    return scores * kept


def dense_features(dictionary, scaled, training):
    """Feature values by the equations of the papers, on all scores at once."""
    kind, learnt = dictionary.config.nonlinearity.kind, dictionary.learnt
    scores = scores_of(dictionary, scaled)
    if kind == "topk":
        return topk(scores)
    if kind == "refined":
        centre = dictionary.b_dec if dictionary.config.centre == "tied" else 0
        features, seen = topk(scores), scaled - centre
        for _ in range(2):
            left = scaled - centre - features @ dictionary.W_dec
            seen = seen + 0.4 * left
            features = topk(seen @ dictionary.W_enc.T + dictionary.b_enc)
        return features
    if kind == "batchtopk":
        kept = largest(scores, K * len(scores)) if training else scores > 0.6
        return scores * (kept & (scores > 0))
    if kind == "relu":
        return scores.relu()
    if kind == "jumprelu":
        return scores * (scores > learnt["threshold"])
    product = scores - dictionary.b_enc
    magnitude = learnt["log_scale"].exp() * product + learnt["magnitude_bias"]
    return (scores > 0) * magnitude.relu()


def spread(values):
    """Feature values as a dense matrix."""
    if not isinstance(values, Code):
        return values
    dense = torch.zeros(len(values.values), FEATURES, dtype=values.values.dtype)
    return dense.scatter_add_(1, values.indices.long(), values.values)


def test_every_kind_and_every_term_is_in_the_battery():
    assert set(KINDS) == set(NONLINEARITIES)
    assert {term.name for terms in OBJECTIVES.values() for term in terms} | {"kl"} == set(TERMS)


def test_code_is_well_formed(kind, shape, entries):
    dictionary = make(kind, shape)
    code = dictionary.encode(activations(dictionary))
    assert code.indices.shape == code.values.shape
    assert code.indices.dtype == torch.int32
    assert code.values.dtype == torch.float32
    assert (code.values >= 0).all()
    assert (code.values > 0).any()
    assert (code.values.diff(dim=1) <= 0).all()
    assert (code.indices[code.values == 0] == 0).all()
    for indices, values in zip(*code, strict=True):
        there = indices[values > 0]
        assert len(set(there.tolist())) == len(there)


def test_encode_and_decode_are_the_equations(kind, shape, entries):
    dictionary = make(kind, shape)
    twin, x = make(kind, shape, dtype=torch.float64), activations(dictionary)
    scaled = x.double() * twin.read_scale
    expected = dense_features(twin, scaled, training=False)
    rebuilt = expected @ twin.W_dec + twin.b_dec
    if twin.config.skip:
        rebuilt = rebuilt + scaled @ twin.W_skip.T
    found = spread(dictionary.encode(x)).double()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        dictionary(x).double(), rebuilt / twin.write_scale, atol=2e-4, rtol=1e-4
    )


def test_a_row_means_the_same_whatever_stands_beside_it(kind, shape):
    dictionary = make(kind, shape)
    x = activations(dictionary)
    together, alone = dictionary(x), torch.cat([dictionary(row[None]) for row in x])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_folding_is_an_identity(kind, shape):
    """Encoder, decoder, biases and extras with scales and centre folded in take raw activations."""
    dictionary = make(kind, shape, dtype=torch.float64)
    x = activations(dictionary, torch.float64)
    if KINDS[kind].compares:
        with pytest.raises(SememeError, match="use the dictionary as it is"):
            dictionary.fold()
        return
    folded = dictionary.fold()
    encoder = Encoder(folded.W_enc, folded.b_enc, folded.extra, folded.W_dec)
    code = dictionary.config.nonlinearity.encode(x, encoder)
    torch.testing.assert_close(spread(code), spread(dictionary.encode(x)))
    rebuilt = spread(code) @ folded.W_dec + folded.b_dec
    if folded.W_skip is not None:
        rebuilt = rebuilt + x @ folded.W_skip.T
    torch.testing.assert_close(rebuilt, dictionary(x))


def test_moving_decoder_norms_to_the_encoder_changes_nothing(kind, shape):
    dictionary = make(kind, shape, dtype=torch.float64)
    if not dictionary.config.nonlinearity.rescalable:
        with pytest.raises(Exception, match="train with unit rows"):
            dictionary.unit_rows()
        return
    with torch.no_grad():
        dictionary.W_dec.mul_(torch.linspace(0.2, 3, FEATURES)[:, None])
    x = activations(dictionary, torch.float64)
    before, code = dictionary(x), spread(dictionary.encode(x))
    norms = dictionary.W_dec.detach().norm(dim=1)
    dictionary.unit_rows()
    torch.testing.assert_close(dictionary(x), before)
    torch.testing.assert_close(spread(dictionary.encode(x)), code * norms)
    torch.testing.assert_close(
        dictionary.W_dec.norm(dim=1), torch.ones(FEATURES, dtype=torch.float64)
    )


OBJECTIVES = {
    "plain": (Reconstruction(),),
    "l1": (Reconstruction(0.7), L1(0.8)),
    "tanh": (Reconstruction(), Tanh(0.8, c=3.0)),
    "l0": (Reconstruction(), L0(0.9)),
    "target": (Reconstruction(), L0(2.0, target=3.0)),
    "preactivation": (Reconstruction(), PreActivation(0.1)),
    "auxk": (Reconstruction(), AuxK(0.5, most=3)),
    "multi_topk": (Reconstruction(), MultiTopK(0.4, factor=3)),
    "matryoshka": (Reconstruction(), Matryoshka(0.6, shares=(0.1, 0.5))),
    "sampled": (Reconstruction(), Matryoshka(0.6, sampled=3, seed=4)),
    "gate": (L1(0.3), GateReconstruction(1.2), Reconstruction()),
}
DEAD = torch.tensor([1, 4, 9, 33, 40])


class Gradients(torch.autograd.Function):
    """The step function with its stand-in gradients by 2407.14435, on all scores at once."""

    @staticmethod
    def forward(ctx, z, threshold, bandwidth):
        ctx.save_for_backward(z, threshold)
        ctx.bandwidth = bandwidth
        return (z > threshold).to(z.dtype)

    @staticmethod
    def backward(ctx, gradient):
        z, threshold = ctx.saved_tensors
        inside = ((z - threshold) / ctx.bandwidth).abs() < 0.5
        return None, (-gradient * inside / ctx.bandwidth).sum(0), None


def twin_losses(twin, scaled, target):
    """Every term again, dense in float64."""
    scores = scores_of(twin, scaled)
    kind = twin.config.nonlinearity.kind
    base = twin.b_dec + (scaled @ twin.W_skip.T if twin.config.skip else 0)
    norms = sum(p.norm(dim=1) for p in twin.W_dec.split(list(twin.config.write_widths), dim=1))
    if kind == "jumprelu":
        step = Gradients.apply(scores, twin.learnt["threshold"], 0.8)
        # f = z H(z - theta); the paper's df/dtheta is that of theta H, so z is held at theta there.
        held = scores * step.detach()
        features = held + twin.learnt["threshold"].detach() * (step - step.detach())
    else:
        features = dense_features(twin, scaled, training=True)
    gate = scores.relu() if kind == "gated" else features
    error = target - features @ twin.W_dec - base

    def square(left):
        return left.square().sum() / ROWS

    def matryoshka(term):
        return sum(
            square(target - features[:, :end] @ twin.W_dec[:end] - base)
            for end in term.ends(FEATURES, 11)
        )

    def auxk(term):
        dead = scores_detached[:, DEAD]
        kept = torch.stack([largest(row[None], term.most)[0] for row in dead])
        left = error.detach()
        rest = (left - (dead * kept) @ twin.W_dec[DEAD]).square().sum()
        return target.shape[1] * rest / (left - left.mean(0)).square().sum()

    centre = twin.b_dec.detach() if twin.config.centre == "tied" else 0
    scores_detached = (scaled - centre) @ twin.W_enc.T + twin.b_enc

    def multi(term):
        kept = torch.stack([largest(row[None], term.factor * K)[0] for row in scores])
        return square(target - (scores * kept).relu() @ twin.W_dec - base)

    return {
        "reconstruction": lambda term: square(error),
        "l1": lambda term: (gate * norms).sum() / ROWS,
        "tanh": lambda term: (term.c * features * norms).tanh().sum() / ROWS,
        "l0": lambda term: (
            step.sum() / ROWS
            if term.target is None
            else (step.sum() / ROWS / term.target - 1).square()
        ),
        "preactivation": lambda term: (
            ((twin.learnt["threshold"] - scores_detached).relu() * norms.detach()).sum() / ROWS
        ),
        "auxk": auxk,
        "multi_topk": multi,
        "matryoshka": matryoshka,
        "gate_reconstruction": lambda term: square(
            target - gate @ twin.W_dec.detach() - (base.detach())
        ),
    }


SENSIBLE = [
    (kind, shape, objective)
    for kind, shape in CASES
    for objective, terms in OBJECTIVES.items()
    if not any(term.refusal(make(kind, shape).config) for term in terms)
]


@pytest.mark.parametrize(("kind", "shape", "objective"), SENSIBLE)
def test_gradients_agree_with_a_dense_float64_twin(kind, shape, objective, entries):
    dictionary = make(kind, shape)
    terms = OBJECTIVES[objective]
    scaled = activations(dictionary) * dictionary.read_scale
    target = scaled if dictionary.config.autoencodes else targets(dictionary)
    activity = activate(terms, dictionary, scaled)
    sparse = entries == "sparse" or dictionary.config.nonlinearity.budgeted
    assert isinstance(activity.values, Code) == sparse
    step = Step.of(terms, dictionary, activity, scaled, target, dead=DEAD, k=K, number=11)
    loss = sum(term.weight * term(step) for term in terms)
    loss.backward()

    twin = make(kind, shape, dtype=torch.float64)
    wide = scaled.double()
    losses = twin_losses(twin, wide, wide if twin.config.autoencodes else target.double())
    expected = sum(term.weight * losses[term.name](term) for term in terms)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    for (name, ours), (_, theirs) in zip(
        dictionary.named_parameters(), twin.named_parameters(), strict=True
    ):
        wanted = torch.zeros_like(theirs) if theirs.grad is None else theirs.grad
        found = torch.zeros_like(ours) if ours.grad is None else ours.grad
        size = max(1.0, float(wanted.abs().max()))
        torch.testing.assert_close(found.double(), wanted, msg=name, atol=3e-4 * size, rtol=2e-3)


@pytest.mark.parametrize("factors", [(3,), (3, 2), (20,)])
@pytest.mark.parametrize("kind", ["topk", "batchtopk", "refined"])
def test_one_code_for_both_of_multi_topk_is_what_two_are(kind, factors):
    """Features and gradients are those of the two encodings; TopK encodes once for both."""
    terms = (Reconstruction(), *(MultiTopK(0.4, factor=factor) for factor in factors))
    found = []
    for once in (True, False):
        dictionary = make(kind)
        x = activations(dictionary) * dictionary.read_scale
        activity = activate(terms, dictionary, x) if once else dictionary.activate(x)
        assert (activity.wider is not None) == (once and kind == "topk")
        step = Step.of(terms, dictionary, activity, x, x, dead=DEAD, k=K)
        sum(term.weight * term(step) for term in terms).backward()
        found.append([*activity.values, *(p.grad for p in dictionary.parameters())])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two)


def test_entries_that_a_relu_zeroed_get_no_gradient():
    """With k larger than the number of positive scores, top-k entries include zeroed ones."""
    dictionary = make("topk", bias=-14.0)
    x = activations(dictionary) * dictionary.read_scale
    activity = dictionary.activate(x)
    assert (activity.values.values == 0).any()
    dictionary.rebuild(activity, x).square().sum().backward()
    fired = torch.zeros(FEATURES, dtype=torch.bool)
    fired[activity.values.indices[activity.values.values > 0].long()] = True
    assert fired.any()
    assert not fired.all()
    for gradient in (dictionary.W_enc.grad, dictionary.W_dec.grad, dictionary.b_enc.grad[:, None]):
        assert not gradient[~fired].any()


@pytest.mark.parametrize(
    ("kind", "term", "said"),
    [
        ("topk", L1(), "topk sets the number of active features"),
        ("batchtopk", Tanh(), "batchtopk sets the number"),
        ("relu", L0(), "only jumprelu has a gradient"),
        ("gated", PreActivation(), "only jumprelu has thresholds"),
        ("relu", MultiTopK(), "only kinds with a k"),
        ("topk", MultiTopK(factor=0), "factor is 0"),
        ("gated", Tanh(), "never the gate"),
        ("jumprelu", L0(target=0.0), "target is 0.0"),
        ("relu", Tanh(c=0.0), "c is 0.0"),
        ("topk", AuxK(most=0), "most is 0"),
        ("topk", AuxK(budget=0.0), "its budget is 0.0; expected more than 0"),
        ("topk", Matryoshka(shares=()), "no prefixes"),
        ("jumprelu", GateReconstruction(), "only gated has a gate"),
        ("topk", Matryoshka(shares=(0.5, 1.5)), "expected numbers between 0 and 1"),
    ],
)
def test_terms_that_make_no_sense_are_refused_with_the_reason(kind, term, said):
    assert said in term.refusal(make(kind).config)


def test_the_model_goes_on_from_one_site_only():
    assert "one site, not several" in Divergence().refusal(make("relu", "crosscoder").config)
    assert Divergence().refusal(make("relu").config) == ""


def test_batchtopk_learns_its_threshold_as_a_running_mean():
    dictionary = make("batchtopk")
    nonlinearity = BatchTopK(K, memory=0.9)
    extra = {name: torch.zeros(()) for name in ("threshold", "batches")}
    smallest, expected = [], 0.0
    for number in range(30):
        x = activations(dictionary) * dictionary.read_scale * (1 + number / 10)
        activity = dictionary.activate(x, nonlinearity)
        nonlinearity.after_step(activity, extra)
        kept = activity.values.values.detach()
        smallest.append(float(kept[kept > 0].min()))
        weight = max(1 / (number + 1), 0.1)
        expected += weight * (smallest[-1] - expected)
    assert float(extra["threshold"]) == pytest.approx(expected, rel=1e-5)
    assert min(smallest) < expected < max(smallest)


def test_saved_and_loaded_is_the_same(kind, shape, tmp_path):
    dictionary = make(kind, shape)
    manifest = dictionary.save(tmp_path / "d", made_from={"model": "abc"}, note="x")
    loaded = Dictionary.load(tmp_path / "d")
    assert loaded.config == dictionary.config
    assert loaded.manifest == manifest
    assert set(loaded.state_dict()) == set(dictionary.state_dict())
    for name, tensor in dictionary.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    first = {p.name: p.read_bytes() for p in (tmp_path / "d").iterdir()}
    loaded.save(tmp_path / "e", made_from={"model": "abc"}, note="x")
    assert first == {p.name: p.read_bytes() for p in (tmp_path / "e").iterdir()}
    x = activations(dictionary)
    assert torch.equal(loaded(x), dictionary(x))


def test_settings_survive_json(kind):
    assert from_json(to_json(KINDS[kind])) == KINDS[kind]


def test_activations_of_a_lower_precision_are_taken_as_they_are(kind, shape):
    dictionary = make(kind, shape)
    low = activations(dictionary).bfloat16()
    assert torch.equal(dictionary(low), dictionary(low.float()))


def test_no_rows_give_an_empty_code(kind, shape):
    dictionary = make(kind, shape)
    code = dictionary.encode(torch.zeros(0, dictionary.config.width))
    assert isinstance(code, Code)
    assert len(code.values) == 0
    assert dictionary.decode(code).shape == (0, dictionary.config.write_width)


def test_packing_keeps_values_and_sorts_them():
    dense = torch.tensor([[0.0, 2, 0, 5], [0, 0, 0, 0], [1, 0, 0, 0]])
    code = pack(dense)
    assert code.indices.tolist() == [[3, 1], [0, 0], [0, 0]]
    assert code.values.tolist() == [[5, 2], [0, 0], [1, 0]]
    loose = Code(
        torch.tensor([[3, 0, 1], [0, 0, 0], [0, 2, 0]]).int(),
        torch.tensor([[5.0, 0, 2], [0, 0, 0], [1, 0, 0]]),
    )
    assert all(torch.equal(a, b) for a, b in zip(pack(loose), code, strict=True))


def test_sampled_prefixes_are_a_function_of_the_step_and_reach_all_sizes():
    term = Matryoshka(sampled=4, seed=2)
    assert term.ends(1000, 7) == term.ends(1000, 7)
    drawn = [end for number in range(500) for end in term.ends(1000, number)]
    assert all(0 < end < 1000 for end in drawn)
    logs = torch.tensor([math.log(end) / math.log(1000) for end in drawn])
    assert float(logs.mean()) == pytest.approx(0.5, abs=0.05)
