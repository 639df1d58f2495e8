"""Training finds true features, keeps its rules at every step, and refuses what cannot work."""

import itertools
from dataclasses import dataclass, field, replace

import pytest
import torch

from sememe.activations.stream import MemoryStream
from sememe.dictionaries import BatchTopK, Dictionary, Gated, JumpReLU, Refined, ReLU, TopK
from sememe.dictionaries.initialisation import INITIALISATIONS
from sememe.dictionaries.objectives import (
    L0,
    L1,
    AuxK,
    Divergence,
    GateReconstruction,
    Matryoshka,
    MultiTopK,
    PreActivation,
    Reconstruction,
    Tanh,
)
from sememe.errors import SememeError, UsageError
from sememe.progress import Progress
from sememe.training import Resampling, TrainConfig, Trainer, train
from sememe.training.revival import resample
from sememe.training.schedules import fall, rise
from sememe.training.trainer import FACTOR_ROWS, SAMPLE_ROWS
from tests.training.worlds import world

SMALL = TrainConfig(
    features=96,
    nonlinearity=TopK(4),
    batch=256,
    passes=5,
    learning_rate=4e-3,
    initialisation="random",
)
KINDS = {
    "topk": {},
    "data": {"initialisation": "data"},
    "annealed": {"k_from": 12},
    "batchtopk": {"nonlinearity": BatchTopK(4)},
    "shared late": {"nonlinearity": BatchTopK(4), "share_from": 0.5},
    "shared and annealed": {"nonlinearity": BatchTopK(4), "k_from": 12},
    "matryoshka": {
        "nonlinearity": BatchTopK(4),
        "objective": (Reconstruction(), AuxK(), Matryoshka(0.3)),
    },
    "multi": {"objective": (Reconstruction(), MultiTopK())},
    "relu": {"nonlinearity": ReLU(), "objective": (Reconstruction(), L1(0.3, ramp=0.05))},
    "free": {
        "nonlinearity": ReLU(),
        "objective": (Reconstruction(), L1(0.3)),
        "norms": "free",
        "centre": "none",
    },
    "tanh": {"nonlinearity": ReLU(), "objective": (Reconstruction(), Tanh(0.2))},
    "jumprelu": {
        "nonlinearity": JumpReLU(0.05, 0.2),
        "objective": (Reconstruction(), L0(5.0, ramp=0.3, target=5.0)),
    },
    "coefficient": {
        "nonlinearity": JumpReLU(0.05, 0.2),
        "objective": (Reconstruction(), L0(0.05, ramp=0.3), PreActivation(1e-4)),
        "norms": "free",
    },
    "gated": {
        "nonlinearity": Gated(),
        "objective": (Reconstruction(), L1(0.4), GateReconstruction()),
    },
}
"""Sensible compositions of every kind of part."""

JUMP = {
    "nonlinearity": JumpReLU(0.1, 0.5),
    "objective": (Reconstruction(), L0(5.0, target=5.0)),
}


class Recorder(Progress):
    def __init__(self):
        self.figures, self.started, self.done = [], None, 0

    def start(self, stage, total, unit, done=0):
        self.started = (stage, total, unit, done)

    def advance(self, amount, **live):
        self.done += amount
        self.figures.append(live)


def small(**changes):
    return replace(SMALL, **changes)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_true_features_are_found(kind, tmp_path):
    stream, true = world(offset=0.5)
    dictionary = train(stream, small(**KINDS[kind]), tmp_path / "d")
    found = (true @ dictionary.W_dec.detach().T).max(1).values
    assert float(found.mean()) > 0.85
    figures = dictionary.manifest["figures"]
    assert figures["fvu"] < 0.2
    assert 2 < figures["l0"] < 30
    with torch.no_grad():
        error = (dictionary(stream.x) - stream.x).square().sum()
        total = (stream.x - stream.x.mean(0)).square().sum()
    assert float(error / total) == pytest.approx(figures["fvu"], rel=0.35)
    norms = dictionary.W_dec.detach().norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(96), atol=1e-6, rtol=0)
    active = (dictionary.encode(stream.x).values > 0).sum() / stream.rows
    assert float(active) == pytest.approx(figures["l0"], rel=0.15)


@pytest.mark.parametrize("kind", ["topk", "batchtopk", "relu", "jumprelu", "gated"])
def test_a_tiny_batch_is_learnt_by_heart(kind, tmp_path):
    stream = MemoryStream(torch.randn(8, 16, generator=torch.Generator().manual_seed(0)))
    made = (
        KINDS[kind]
        if kind in ("jumprelu", "gated")
        else {**KINDS[kind], "objective": (Reconstruction(),)}
    )
    made = {
        **made,
        "objective": tuple(
            replace(t, weight=0.0) if t.name in ("l1", "l0") else t for t in made["objective"]
        ),
    }
    config = small(**made, batch=64, passes=8 * 400)
    config = replace(config, features=64, learning_rate=1e-2)
    if hasattr(config.nonlinearity, "k"):
        config = replace(config, nonlinearity=replace(config.nonlinearity, k=8))
    assert train(stream, config, tmp_path / "d").manifest["figures"]["fvu"] < 0.01


def test_k_goes_evenly_from_its_first_value_to_its_last():
    config = small(nonlinearity=TopK(4), k_from=12, k_share=0.5)
    ks = [config.nonlinearity_at(step, 100).k for step in range(100)]
    assert (ks[0], ks[25], ks[49], ks[50], ks[99]) == (12, 8, 4, 4, 4)
    assert ks == sorted(ks, reverse=True)
    with pytest.raises(UsageError, match="relu has no k to change"):
        small(nonlinearity=ReLU(), k_from=12)


def test_rows_keep_their_own_k_until_they_share_it():
    config = small(nonlinearity=Refined(BatchTopK(4, memory=0.9)), k_from=12, share_from=0.8)
    kinds = [config.nonlinearity_at(step, 100) for step in range(100)]
    assert kinds[0] == Refined(TopK(12))
    assert kinds[50] == kinds[79] == Refined(TopK(4))
    assert kinds[80] == kinds[99] == config.nonlinearity
    assert small(nonlinearity=BatchTopK(4), share_from=1.0).nonlinearity_at(1, 2) == BatchTopK(4)


def test_a_budget_shared_late_has_the_threshold_of_steps_that_share_it(tmp_path):
    stream, _ = world()
    config = small(nonlinearity=BatchTopK(4), share_from=0.8)
    dictionary = train(stream, config, tmp_path / "d")
    steps = stream.steps(config.batch, config.passes)
    assert float(dictionary.encoder().extra["batches"]) == steps - int(0.8 * steps)
    active = (dictionary.encode(stream.x).values > 0).sum() / stream.rows
    assert float(active) == pytest.approx(4, rel=0.25)


def test_thresholds_follow_a_k_that_moves_to_the_end(tmp_path):
    stream, _ = world()
    config = small(nonlinearity=BatchTopK(4), k_from=12, k_share=1.0)
    dictionary = train(stream, config, tmp_path / "d")
    active = (dictionary.encode(stream.x).values > 0).sum() / stream.rows
    assert float(active) == pytest.approx(4, rel=0.25)


@pytest.mark.parametrize("centre", ["tied", "none"])
@pytest.mark.parametrize(("active", "share"), [(6, 6 / 60), (600, 1 / 2)])
def test_features_begin_active_on_as_many_rows_as_asked(active, share, centre):
    stream, _ = world(offset=0.7)
    changes = {"features": 60, "first_active": active, "centre": centre}
    trainer = Trainer(stream, small(**JUMP, **changes), stream.sites, stream.sites)
    x, _ = trainer.split(stream.sample(SAMPLE_ROWS)[:FACTOR_ROWS])
    fired = (trainer.dictionary.activate(x).values > 0).sum(0)
    # the row that the bias was set by lies on the threshold, where rounding decides
    assert (fired - round(share * len(x))).abs().max() <= 1


def test_uniform_rows_are_small_and_the_encoder_is_the_decoder_scaled():
    stream, _ = world(width=24)
    changes = {"features": 60, "first_active": 6, "initialisation": "uniform", "norms": "free"}
    dictionary = Trainer(stream, small(**JUMP, **changes), stream.sites, stream.sites).dictionary
    entries = 24 * dictionary.W_dec.detach().flatten()
    assert 0.99 < float(entries.abs().max()) <= 1
    assert float(entries.square().mean()) == pytest.approx(1 / 3, rel=0.1)
    torch.testing.assert_close(dictionary.W_enc, dictionary.W_dec * (24 / 60))


def test_a_transcoder_learns_a_map_and_its_skip_the_linear_part(tmp_path):
    """Targets are a rotation of the true features' directions, plus a linear map of the input."""
    stream, _ = world()
    generator = torch.Generator().manual_seed(3)
    turn = torch.linalg.qr(torch.randn(24, 24, generator=generator)).Q
    bent = (stream.x @ turn.T).relu() + stream.x @ (0.8 * turn)
    both = MemoryStream(torch.cat([stream.x, bent], 1), ("in", "out"), (24, 24))
    fvu = {}
    for skip in (False, True):
        dictionary = train(
            both, small(skip=skip), tmp_path / f"{skip}", reads=("in",), writes=("out",)
        )
        left = (dictionary(stream.x).detach() - bent).square().sum()
        fvu[skip] = float(left / (bent - bent.mean(0)).square().sum())
        assert dictionary.config.centre == "none"
    assert fvu[True] < fvu[False] < 0.5
    assert fvu[True] < 0.25


@pytest.mark.parametrize("kind", ["relu", "jumprelu", "gated", "batchtopk"])
@pytest.mark.parametrize("seed", range(2))
def test_transcoders_of_every_kind_learn_from_random_rows(kind, seed, tmp_path):
    stream, _ = world()
    turn = torch.linalg.qr(torch.randn(24, 24, generator=torch.Generator().manual_seed(3))).Q
    both = MemoryStream(torch.cat([stream.x + 2, stream.x @ turn.T], 1), ("in", "out"), (24, 24))
    config = small(**KINDS[kind], seed=seed, passes=5)
    dictionary = train(both, config, tmp_path / "d", reads=("in",), writes=("out",))
    assert dictionary.manifest["figures"]["fvu"] < 0.5


def test_one_activation_a_step_trains(tmp_path):
    stream, _ = world(rows=400)
    figures = train(stream, small(batch=1, passes=2), tmp_path / "d").manifest["figures"]
    assert figures["fvu"] < 1


def test_a_pass_that_fills_no_batch_is_refused(tmp_path):
    stream, _ = world(rows=100)
    with pytest.raises(UsageError, match="5 passes over 100 rows do not fill one batch"):
        train(stream, small(batch=1000), tmp_path / "d")


def test_a_crosscoder_finds_directions_at_both_sites(tmp_path):
    stream, true = world()
    turn = torch.linalg.qr(torch.randn(24, 24, generator=torch.Generator().manual_seed(3))).Q
    both = MemoryStream(torch.cat([stream.x, stream.x @ turn.T], 1), ("in", "out"), (24, 24))
    dictionary = train(both, small(), tmp_path / "d")
    assert dictionary.config.writes == ("in", "out")
    wanted = torch.cat([true, true @ turn.T], 1) / 2**0.5
    assert float((wanted @ dictionary.W_dec.detach().T).max(1).values.mean()) > 0.9


def test_sites_may_come_in_any_order_and_others_are_refused(tmp_path):
    x = torch.randn(600, 12, generator=torch.Generator().manual_seed(0))
    one = MemoryStream(x, ("a", "b"), (5, 7))
    other = MemoryStream(torch.cat([x[:, 5:], x[:, :5]], 1), ("b", "a"), (7, 5))
    config = small(passes=1)
    first = train(one, config, tmp_path / "1", reads=("a",), writes=("b",))
    second = train(other, config, tmp_path / "2", reads=("a",), writes=("b",))
    assert torch.equal(first.W_dec, second.W_dec)
    with pytest.raises(UsageError, match=r"site 'c' is not in the stream, which has \('a', 'b'\)"):
        train(one, config, tmp_path / "3", reads=("c",))


def test_the_model_can_be_part_of_the_objective(tmp_path):
    """A live stream whose 'model' cares for the first half of the width alone."""
    stream, _ = world()

    @dataclass(frozen=True)
    class Live(MemoryStream):
        last: list = field(default_factory=list)

        def batches(self, batch, passes, seed, start=0):
            for rows in super().batches(batch, passes, seed, start):
                self.last[:] = [rows]
                yield rows

        def divergence(self, rebuilt, site):
            assert site == "activations"
            return (self.last[0] - rebuilt)[:, :12].square().sum(1).mean()

    live = Live(stream.x)
    config = small(objective=(Divergence(40.0),))
    dictionary = train(live, config, tmp_path / "d")
    left = (dictionary(stream.x).detach() - stream.x).square().sum(0)
    share = left / (stream.x - stream.x.mean(0)).square().sum(0)
    assert float(share[:12].mean()) < 0.5 * float(share[12:].mean())
    with pytest.raises(UsageError, match="the kl term needs a live model"):
        train(stream, config, tmp_path / "e")


@pytest.mark.parametrize("optimiser", ["adam", "adafactor"])
def test_gradients_left_as_products_step_as_gradients_added_up(optimiser):
    """A clip that never clips makes every gradient whole; AuxK adds to some of either sort."""
    ended = []
    for clip in (0.0, 1e12):
        stream, _ = world(rows=2000)
        config = small(optimiser=optimiser, objective=(Reconstruction(), AuxK()), dead_tokens=200)
        trainer = Trainer(stream, replace(config, clip=clip), stream.sites, stream.sites)
        for rows in itertools.islice(stream.batches(config.batch, 1, 0), 6):
            trainer.advance(rows)
        assert (trainer.silent >= trainer.dead_after).any()
        ended.append(trainer.dictionary)
    for ours, whole in zip(*(d.parameters() for d in ended), strict=True):
        torch.testing.assert_close(ours, whole, atol=1e-4, rtol=1e-3)


def test_resampling_points_dead_features_at_what_is_rebuilt_badly():
    """By the paper's steps, on a dictionary that rebuilds only the first of two directions."""
    config = small(features=6, nonlinearity=TopK(1), batch=100, passes=1)
    x = torch.eye(8)[:2].repeat(500, 1)
    trainer = Trainer(MemoryStream(x), config, ("activations",), ("activations",))
    dictionary = trainer.dictionary
    with torch.no_grad():
        dictionary.b_dec.zero_()
        dictionary.W_enc.copy_(3 * torch.eye(8)[[0, 2, 3, 4, 5, 6]])
        dictionary.W_dec.copy_(torch.eye(8)[[0, 2, 3, 4, 5, 6]])
        dictionary.W_enc[0] /= 3
        dictionary.b_enc.fill_(-0.1)
        for moment in trainer.optimiser.moments.values():
            moment.fill_(7.0)
    dead = torch.tensor([2, 5])
    rule = Resampling(rows=1000, encoder_norm=0.2)
    generator = torch.Generator().manual_seed(0)
    resample(
        dictionary,
        trainer.optimiser.forget,
        dead,
        lambda: iter([(x[:300], x[:300]), (x[300:], x[300:])]),
        rule,
        generator,
    )
    # the second direction's squared error is 1, the first's .01, so odds are 10,000 to 1
    torch.testing.assert_close(dictionary.W_dec[dead].detach(), torch.eye(8)[[1, 1]])
    living_norm = (1 + 3 + 3 + 3) / 4
    torch.testing.assert_close(
        dictionary.W_enc[dead].detach(), 0.2 * living_norm * torch.eye(8)[[1, 1]]
    )
    assert dictionary.b_enc.tolist() == pytest.approx([-0.1, -0.1, 0, -0.1, -0.1, 0])
    for name, moment in trainer.optimiser.moments.items():
        if "b_dec" in name:
            assert (moment == 7).all()
        else:
            assert not moment[dead].any()
            assert (moment[[0, 1, 3, 4]] == 7).all()


def test_resampling_in_training_brings_features_back(tmp_path):
    filled, _ = world()
    stream = MemoryStream(torch.nn.functional.pad(filled.x, (0, 8)))
    ended = {}
    for resampling in (None, Resampling(every=80, times=2, silent=20, rows=4000)):
        config = small(
            nonlinearity=ReLU(),
            objective=(Reconstruction(), L1(0.3)),
            resampling=resampling,
            dead_tokens=3000,
        )
        trainer = Trainer(stream, config, ("activations",), ("activations",))
        with torch.no_grad():
            trainer.dictionary.b_enc[48:] = -30
        for rows in stream.batches(config.batch, config.passes, 0):
            trainer.advance(rows)
        ended[resampling is None] = trainer.figures()
    assert ended[True]["dead"] >= 0.5
    assert ended[False]["dead"] < 0.3


def test_progress_counts_activations_and_shows_live_figures(tmp_path):
    stream, _ = world(rows=2000)
    progress = Recorder()
    train(stream, small(passes=2), tmp_path / "d", progress=progress)
    assert progress.started == ("train", 15 * 256, "activations", 0)
    assert progress.done == 15 * 256
    assert set(progress.figures[0]) == {"fvu", "l0", "dead"}
    assert progress.figures[-1]["fvu"] < progress.figures[0]["fvu"]


def test_features_are_dead_after_so_many_activations_without_firing(tmp_path):
    """With one feature active at a time and two directions in the data, most of 40 fall silent."""
    x = torch.eye(8)[:2].repeat(500, 1)
    config = small(
        features=40,
        nonlinearity=TopK(1),
        objective=(Reconstruction(),),
        batch=100,
        passes=1,
        dead_tokens=600,
    )
    progress = Recorder()
    train(MemoryStream(x), config, tmp_path / "d", progress=progress)
    dead = [figures["dead"] for figures in progress.figures]
    assert dead[:5] == [0.0] * 5
    assert dead[-1] >= 36 / 40


def test_auxk_revives_dead_features(tmp_path, monkeypatch):
    """Half of the first directions point where there are no data, and so never win a place."""
    filled, _ = world()
    stream = MemoryStream(torch.nn.functional.pad(filled.x, (0, 8)))
    random_rows = INITIALISATIONS["random"]

    def half_astray(features, read, written, generator):
        rows, _ = random_rows(features, read, written, generator)
        rows[features // 2 :, :24] *= 0.1
        rows = torch.nn.functional.normalize(rows, dim=1)
        return rows, rows

    monkeypatch.setitem(INITIALISATIONS, "random", half_astray)
    ended = {}
    for auxk in (0.0, 1 / 32):
        config = small(features=80, objective=(Reconstruction(), AuxK(auxk)), dead_tokens=2000)
        ended[auxk] = train(stream, config, tmp_path / f"{auxk}").manifest["figures"]
    assert ended[0.0]["dead"] > 0.45
    assert ended[1 / 32]["dead"] < 0.35
    assert ended[1 / 32]["fvu"] < 0.7 * ended[0.0]["fvu"]


def test_once_finished_the_same_call_returns_what_is_there(tmp_path):
    stream, _ = world(rows=2000)
    first = train(stream, small(passes=1), tmp_path / "d", made_from={"model": "a"})
    written = (tmp_path / "d/manifest.json").stat().st_mtime_ns
    again = train(stream, small(passes=1), tmp_path / "d", made_from={"model": "a"})
    assert (tmp_path / "d/manifest.json").stat().st_mtime_ns == written
    assert torch.equal(first.W_enc, again.W_enc)
    assert again.manifest == first.manifest
    assert again.manifest["made_from"] == {"model": "a"}


@pytest.mark.parametrize(
    ("changes", "made_from", "said"),
    [
        ({"seed": 5}, {"model": "a"}, "seed=0, now seed=5"),
        (
            {"nonlinearity": TopK(3)},
            {"model": "a"},
            "nonlinearity=.*'k': 4.*, now nonlinearity=.*'k': 3",
        ),
        ({}, {"model": "b"}, "made_from="),
    ],
)
def test_a_directory_of_another_run_is_refused(changes, made_from, said, tmp_path):
    stream, _ = world(rows=2000)
    train(stream, small(passes=1), tmp_path, made_from={"model": "a"})
    with pytest.raises(SememeError, match=said):
        train(stream, small(passes=1, **changes), tmp_path, made_from=made_from)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"features": 0}, "features is 0; expected 1 or more"),
        ({"nonlinearity": TopK(0)}, "k is 0"),
        ({"passes": -1}, "passes is -1"),
        ({"batch": 0}, "batch is 0"),
        ({"nonlinearity": TopK(97)}, "k is 97; expected 1 to 96, the number of features"),
        ({"k_from": 97}, "k_from is 97; expected 1 to 96"),
        ({"share_from": 0.8}, "share_from is 0.8, but rows of topk share no budget"),
        ({"nonlinearity": BatchTopK(4), "share_from": 1.5}, "share_from is 1.5"),
        ({"nonlinearity": BatchTopK(4), "batch": 15}, "batch is 15, but batchtopk shares"),
        ({"norms": "free"}, "norms is 'free', but topk chooses features by their values"),
        ({"norms": "one"}, "norms is 'one'; expected one of unit, free"),
        ({"objective": (AuxK(),)}, "without reconstruction or kl there is nothing to learn"),
        ({"initialisation": "ones"}, "initialisation is 'ones'"),
        ({"learning_rate": -1e-3}, "learning_rate is -0.001"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"objective": (Reconstruction(), L1(float("nan")))}, "l1 weight is nan"),
        ({"objective": (Reconstruction(), L1(-1.0))}, "l1 weight is -1.0"),
        ({"objective": (Reconstruction(0.0), AuxK())}, "there is nothing to learn"),
        ({"nonlinearity": Gated(), "objective": (Reconstruction(),)}, "nothing teaches the gate"),
        ({"beta1": 1.0}, "beta1 is 1.0"),
        ({"decay": 1.5}, "decay is 1.5; expected 0 to 1"),
        ({"dead_tokens": 0}, "dead_tokens is 0"),
        ({"first_active": 0, **JUMP}, "first_active is 0; expected 1 or more"),
        ({"first_active": 8}, "first_active is 8, but topk sets the number of active features"),
        ({"initialisation": "uniform", **JUMP}, "norms is 'unit': expected 'free'"),
    ],
)
def test_impossible_settings_are_refused_naming_argument_and_value(changes, said):
    with pytest.raises(UsageError, match=said):
        small(**changes)


class Scaled(MemoryStream):
    """Rows whose scale is known from before."""

    @property
    def scales(self):
        return (1.0,)


class Empty(Scaled):
    """A stream that lost its rows."""

    @property
    def rows(self):
        return 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_activations_that_are_not_finite_are_refused_saying_where(bad, tmp_path):
    stream, _ = world(rows=2000)
    stream.x[1500, 7] = bad
    with pytest.raises(SememeError, match=rf"hold {bad} \(row \d+ of the sample.*dimension 7"):
        train(stream, small(), tmp_path)
    later = Scaled(stream.x)
    object.__setattr__(later, "sample", lambda rows: stream.x[:1000])
    with pytest.raises(SememeError, match=r"of batch \d+, dimension 7"):
        train(later, small(), tmp_path)
    assert not (tmp_path / "manifest.json").exists()


def test_activations_that_are_all_alike_are_refused(tmp_path):
    with pytest.raises(SememeError, match="all 500 sampled activations at activations are the"):
        train(MemoryStream(torch.ones(500, 8)), small(), tmp_path)


def test_no_activations_are_refused(tmp_path):
    with pytest.raises(UsageError, match="0 rows"):
        train(Empty(torch.ones(1, 8)), small(), tmp_path)


def test_training_that_diverges_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    stream, _ = world(rows=4000)
    config = small(learning_rate=3.0, warm_up=1.0, checkpoint_every=2, passes=50)
    with pytest.raises(SememeError, match=r"diverged at step \d+.*Lower learning_rate \(now 3\)"):
        train(stream, config, tmp_path)
    assert list(tmp_path.glob("checkpoint-*.safetensors"))
    assert not (tmp_path / "manifest.json").exists()


def test_the_dictionary_on_disk_is_the_one_returned(tmp_path):
    stream, _ = world(rows=2000)
    returned = train(stream, small(passes=1), tmp_path)
    loaded = Dictionary.load(tmp_path)
    assert loaded.manifest == returned.manifest
    assert loaded.read_scale.tolist() == pytest.approx([*stream.scales] * 24)
    assert loaded.config.reads == ("activations",)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        ".lock",
        "config.json",
        "dictionary.safetensors",
        "history.jsonl",
        "manifest.json",
    ]


def test_schedules_rise_from_and_fall_towards_zero():
    assert [rise(s, 100, 0.05) for s in (0, 3, 4, 50)] == [0.2, 0.8, 1, 1]
    assert [fall(s, 100, 0.2) for s in (0, 80, 90, 99)] == [1, 1, 0.5, 0.05]
    assert rise(0, 100, 0.0) == fall(99, 100, 0.0) == 1
