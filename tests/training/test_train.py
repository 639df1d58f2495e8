"""Training finds true features, keeps its rules at every step, and refuses what cannot work."""

import dataclasses

import pytest
import torch

from sememe.dictionaries import Dictionary
from sememe.dictionaries.initialisation import INITIALISATIONS
from sememe.errors import SememeError, UsageError
from sememe.progress import Progress
from sememe.training import TrainConfig, train
from sememe.training.kinds import KINDS
from sememe.training.schedules import fall, rise
from tests.training.worlds import MemoryStream, world

SMALL = TrainConfig(
    features=96,
    k=4,
    batch=256,
    passes=5,
    l1=0.3,
    learning_rate=4e-3,
    initialisation="random",
)


class Recorder(Progress):
    def __init__(self):
        self.figures, self.started, self.done = [], None, 0

    def start(self, stage, total, unit, done=0):
        self.started = (stage, total, unit, done)

    def advance(self, amount, **live):
        self.done += amount
        self.figures.append(live)


def small(**changes):
    return dataclasses.replace(SMALL, **changes)


@pytest.mark.parametrize(
    ("kind", "initialisation"), [*((kind, "random") for kind in sorted(KINDS)), ("topk", "data")]
)
def test_true_features_are_found(kind, initialisation, tmp_path):
    stream, true = world(offset=0.5)
    config = small(kind=kind, initialisation=initialisation)
    dictionary = train(stream, config, tmp_path / "d", site="layers.1.resid")
    found = (true @ dictionary.W_dec.detach().T).max(1).values
    assert float(found.mean()) > 0.95
    figures = dictionary.manifest["figures"]
    assert figures["fvu"] < 0.15
    assert 2 < figures["l0"] < 30
    with torch.no_grad():
        error = (dictionary(stream.x) - stream.x).square().sum()
        total = (stream.x - stream.x.mean(0)).square().sum()
    assert float(error / total) == pytest.approx(figures["fvu"], rel=0.3)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_tiny_batch_is_learnt_by_heart(kind, tmp_path):
    stream = MemoryStream(torch.randn(8, 16, generator=torch.Generator().manual_seed(0)))
    config = small(
        kind=kind, features=64, k=8, l1=0.0, batch=64, passes=8 * 400, learning_rate=1e-2
    )
    figures = train(stream, config, tmp_path / "d", site="x").manifest["figures"]
    assert figures["fvu"] < 0.01


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_decoder_rows_have_norm_one_after_training(kind, tmp_path):
    stream, _ = world(rows=2000)
    dictionary = train(stream, small(kind=kind, passes=2), tmp_path / "d", site="x")
    norms = dictionary.W_dec.detach().norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(96), atol=1e-6, rtol=0)


def test_progress_counts_activations_and_shows_live_figures(tmp_path):
    stream, _ = world(rows=2000)
    progress = Recorder()
    train(stream, small(passes=2), tmp_path / "d", site="x", progress=progress)
    assert progress.started == ("train", 15 * 256, "activations", 0)
    assert progress.done == 15 * 256
    assert set(progress.figures[0]) == {"fvu", "l0", "dead"}
    assert progress.figures[-1]["fvu"] < progress.figures[0]["fvu"]


def test_features_are_dead_after_so_many_activations_without_firing(tmp_path):
    """With one feature active at a time and two directions in the data, most of 40 fall silent."""
    x = torch.eye(8)[:2].repeat(500, 1)
    config = small(features=40, k=1, batch=100, passes=1, auxk=0.0, dead_tokens=600)
    progress = Recorder()
    train(MemoryStream(x), config, tmp_path / "d", site="x", progress=progress)
    dead = [figures["dead"] for figures in progress.figures]
    assert dead[:5] == [0.0] * 5
    assert dead[-1] >= 36 / 40


def test_auxk_revives_dead_features(tmp_path, monkeypatch):
    """Half of the first directions point where there are no data, and so never win a place."""
    filled, _ = world()
    stream = MemoryStream(torch.nn.functional.pad(filled.x, (0, 8)), filled.scale)
    random_rows = INITIALISATIONS["random"]

    def half_astray(features, sample, generator):
        rows = random_rows(features, sample, generator)
        rows[features // 2 :, :24] *= 0.1
        return torch.nn.functional.normalize(rows, dim=1)

    monkeypatch.setitem(INITIALISATIONS, "random", half_astray)
    ended = {}
    for auxk in (0.0, 1 / 32):
        config = small(features=80, auxk=auxk, dead_tokens=2000, initialisation="random")
        ended[auxk] = train(stream, config, tmp_path / f"{auxk}", site="x").manifest["figures"]
    assert ended[0.0]["dead"] == 0.5
    assert ended[1 / 32]["dead"] < 0.3
    assert ended[1 / 32]["fvu"] < 0.7 * ended[0.0]["fvu"]


def test_once_finished_the_same_call_returns_what_is_there(tmp_path):
    stream, _ = world(rows=2000)
    first = train(stream, small(passes=1), tmp_path / "d", site="x", made_from={"model": "a"})
    written = (tmp_path / "d/manifest.json").stat().st_mtime_ns
    again = train(stream, small(passes=1), tmp_path / "d", site="x", made_from={"model": "a"})
    assert (tmp_path / "d/manifest.json").stat().st_mtime_ns == written
    assert torch.equal(first.W_enc, again.W_enc)
    assert again.manifest == first.manifest
    assert again.manifest["made_from"] == {"model": "a"}


@pytest.mark.parametrize(
    ("changes", "made_from", "said"),
    [
        ({"seed": 5}, {"model": "a"}, "seed=0, now seed=5"),
        ({"k": 3}, {"model": "a"}, "k=4, now k=3"),
        ({}, {"model": "b"}, "made_from="),
    ],
)
def test_a_directory_of_another_run_is_refused(changes, made_from, said, tmp_path):
    stream, _ = world(rows=2000)
    train(stream, small(passes=1), tmp_path, site="x", made_from={"model": "a"})
    with pytest.raises(SememeError, match=said):
        train(stream, small(passes=1, **changes), tmp_path, site="x", made_from=made_from)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"features": 0}, "features is 0; expected 1 or more"),
        ({"k": 0}, "k is 0"),
        ({"passes": -1}, "passes is -1"),
        ({"batch": 0}, "batch is 0"),
        ({"k": 97}, "k is 97, larger than features, which is 96"),
        ({"kind": "gelu"}, "kind is 'gelu'; expected one of topk, relu"),
        ({"initialisation": "ones"}, "initialisation is 'ones'"),
        ({"learning_rate": -1e-3}, "learning_rate is -0.001"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"l1": float("nan")}, "l1 is nan"),
        ({"l1": -1.0}, "l1 is -1.0"),
        ({"decay": 1.5}, "decay is 1.5; expected 0 to 1"),
        ({"dead_tokens": 0}, "dead_tokens is 0"),
    ],
)
def test_impossible_settings_are_refused_naming_argument_and_value(changes, said):
    with pytest.raises(UsageError, match=said):
        small(**changes)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_activations_that_are_not_finite_are_refused_saying_where(bad, tmp_path):
    stream, _ = world(rows=2000)
    stream.x[1500, 7] = bad
    with pytest.raises(SememeError, match=rf"hold {bad} \(row 1500 of the sample.*dimension 7"):
        train(stream, small(), tmp_path, site="x")
    later = MemoryStream(stream.x, stream.scale)
    object.__setattr__(later, "sample", lambda rows: stream.x[:1000])
    with pytest.raises(SememeError, match=r"of batch \d+, dimension 7"):
        train(later, small(), tmp_path, site="x")
    assert not (tmp_path / "manifest.json").exists()


def test_activations_that_are_all_alike_are_refused(tmp_path):
    with pytest.raises(SememeError, match="all 500 sampled activations at here are the same"):
        train(MemoryStream(torch.ones(500, 8)), small(), tmp_path, site="here")


def test_no_activations_are_refused(tmp_path):
    with pytest.raises(UsageError, match="0 rows"):
        train(MemoryStream(torch.ones(0, 8)), small(), tmp_path, site="x")


def test_training_that_diverges_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    stream, _ = world(rows=4000)
    config = small(learning_rate=3.0, warm_up=1.0, checkpoint_every=2, passes=50)
    with pytest.raises(SememeError, match=r"diverged at step \d+.*Lower learning_rate \(now 3\)"):
        train(stream, config, tmp_path, site="x")
    assert list(tmp_path.glob("checkpoint-*.safetensors"))
    assert not (tmp_path / "manifest.json").exists()


def test_the_dictionary_on_disk_is_the_one_returned(tmp_path):
    stream, _ = world(rows=2000)
    returned = train(stream, small(passes=1), tmp_path, site="layers.2.resid")
    loaded = Dictionary.load(tmp_path)
    assert loaded.manifest == returned.manifest
    assert float(loaded.scale) == pytest.approx(stream.scale)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        ".lock",
        "config.json",
        "dictionary.safetensors",
        "manifest.json",
    ]


def test_schedules_rise_from_and_fall_towards_zero():
    assert [rise(s, 100, 0.05) for s in (0, 3, 4, 50)] == [0.2, 0.8, 1, 1]
    assert [fall(s, 100, 0.2) for s in (0, 80, 90, 99)] == [1, 1, 0.5, 0.05]
    assert rise(0, 100, 0.0) == fall(99, 100, 0.0) == 1
