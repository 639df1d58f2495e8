"""Errors of the dictionary, pieces of the objective, and initialisation."""

import json

import pytest
import torch

from sememe.dictionaries import (
    BatchTopK,
    Code,
    Dictionary,
    DictionaryConfig,
    JumpReLU,
    ReLU,
    TopK,
)
from sememe.dictionaries.initialisation import INITIALISATIONS, geometric_median
from sememe.dictionaries.nonlinearities import from_json
from sememe.dictionaries.objectives import AuxK, Step, squared_error, unexplained, weighted_sum
from sememe.errors import SememeError, UsageError

SITE = ("layers.3.resid",)


def config(**changes):
    settings = {
        "reads": SITE,
        "writes": SITE,
        "read_widths": (4,),
        "write_widths": (4,),
        "features": 10,
        "nonlinearity": TopK(3),
        **changes,
    }
    return DictionaryConfig(**settings)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"read_widths": (0,)}, r"read_widths is \(0,\)"),
        ({"write_widths": (4, 4)}, r"write_widths is \(4, 4\)"),
        ({"features": -2}, "features is -2"),
        ({"nonlinearity": TopK(11)}, "k is 11; expected 1 to 10"),
        ({"nonlinearity": TopK(0)}, "k is 0"),
        ({"centre": "left"}, "centre is 'left'"),
        ({"writes": ("layers.4.resid",)}, "layers.4.resid.*give centre='none'"),
        ({"skip": True}, "the input would pass through"),
        (
            {
                "reads": ("a", "b"),
                "writes": ("b",),
                "read_widths": (4, 4),
                "centre": "none",
                "skip": True,
            },
            "reads and writes b",
        ),
    ],
)
def test_impossible_configs_are_refused_naming_the_value(changes, said):
    with pytest.raises(UsageError, match=said):
        config(**changes)


def test_an_unknown_kind_is_refused_naming_those_there_are():
    with pytest.raises(
        UsageError, match="'step' is unknown; expected one of topk, batchtopk, relu"
    ):
        from_json({"kind": "step"})


def test_activations_of_another_width_are_refused_with_both_widths():
    with pytest.raises(UsageError, match=r"width 5 .* width 4 .*layers\.3\.resid"):
        Dictionary(config()).encode(torch.zeros(2, 5))


def test_another_model_site_or_width_is_refused_with_both_values(tmp_path):
    Dictionary(config()).save(tmp_path, made_from={"model": "aaa"})
    dictionary = Dictionary.load(tmp_path)
    dictionary.check_fits(model_hash="aaa", site="layers.3.resid", width=4)
    for asked, said in [
        ({"model_hash": "bbb"}, "model aaa, but model bbb"),
        ({"site": "layers.9.resid"}, r"site layers\.3\.resid, but site layers\.9\.resid"),
        ({"width": 8}, "width 4, but width 8"),
    ]:
        with pytest.raises(UsageError, match=said):
            dictionary.check_fits(**asked)


def test_altered_weights_are_refused_naming_the_file(tmp_path):
    Dictionary(config()).save(tmp_path, made_from={})
    weights = tmp_path / "dictionary.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(SememeError, match=r"dictionary\.safetensors has checksum"):
        Dictionary.load(tmp_path)
    weights.write_bytes(data[:-3])
    with pytest.raises(SememeError, match="truncated"):
        Dictionary.load(tmp_path)


def test_a_config_of_another_version_is_refused_naming_the_file(tmp_path, monkeypatch):
    older = {"width": 4, "nonlinearity": {"kind": "topk", "k": 3}}
    monkeypatch.setattr(DictionaryConfig, "to_json", lambda _: older)
    Dictionary(config()).save(tmp_path, made_from={})
    with pytest.raises(SememeError, match=r"config\.json is not what this sememe writes"):
        Dictionary.load(tmp_path)


def test_an_unfinished_directory_is_refused(tmp_path):
    with pytest.raises(SememeError, match="unfinished"):
        Dictionary.load(tmp_path)


def test_config_json_is_readable(tmp_path):
    Dictionary(config(nonlinearity=ReLU())).save(tmp_path, made_from={})
    found = json.loads((tmp_path / "config.json").read_text())
    assert found["nonlinearity"] == {"kind": "relu"}
    assert found["reads"] == ["layers.3.resid"]


def test_scale_of_the_terms():
    """Inputs of mean squared norm = width: predicting zero costs the width."""
    x = torch.randn(20_000, 16, generator=torch.Generator().manual_seed(0))
    assert float(squared_error(x, torch.zeros_like(x))) == pytest.approx(16, rel=0.02)
    assert float(unexplained(x, torch.zeros_like(x))) == pytest.approx(16, rel=1e-3)
    assert float(unexplained(x, x)) == 0
    assert float(unexplained(torch.ones(5, 3), torch.zeros(5, 3))) == 0


def test_l1_weighs_values_by_decoder_norms_dense_and_sparse():
    dense = torch.tensor([[0.0, 2, 1], [3, 0, 0]])
    norms = torch.tensor([1.0, 10, 100])
    code = Code(torch.tensor([[1, 2], [0, 0]]), torch.tensor([[2.0, 1], [3, 0]]))
    assert (
        float(weighted_sum(dense, norms)) == float(weighted_sum(code, norms)) == (20 + 100 + 3) / 2
    )


def auxk_step():
    torch.manual_seed(0)
    dictionary = Dictionary(config(read_widths=(8,), write_widths=(8,)))
    with torch.no_grad():
        for parameter in dictionary.parameters():
            parameter.copy_(torch.randn(parameter.shape))
        dictionary.b_enc += 3
    x = torch.randn(30, 8)
    activity = dictionary.activate(x)
    return Step.of((AuxK(),), dictionary, activity, x, x, dead=torch.tensor([2, 7]))


def test_auxk_teaches_dead_features_alone():
    step = auxk_step()
    AuxK()(step).backward()
    dictionary = step.dictionary
    alive = [i for i in range(10) if i not in (2, 7)]
    for weights in (dictionary.W_enc.grad, dictionary.W_dec.grad, dictionary.b_enc.grad[:, None]):
        assert (weights[[2, 7]] != 0).all()
        assert not weights[alive].any()
    assert dictionary.b_dec.grad is None


@torch.no_grad()
def test_auxk_on_a_budget_looks_at_some_rows_and_at_others_in_the_next_step():
    """Two entries a row where .9 are allowed for each of 30 rows: every third row."""
    step = auxk_step()
    found = [float(AuxK(budget=0.9 / 32)(step._replace(number=n))) for n in range(4)]
    for number in range(3):
        rows = slice(number, None, 3)
        part = step._replace(x=step.x[rows], target=step.target[rows], residual=step.residual[rows])
        assert found[number] == pytest.approx(float(AuxK(budget=None)(part)), rel=1e-6)
    assert found[3] == found[0]
    assert len(set(found)) == 3
    with_all = float(AuxK()(step))
    assert with_all == float(AuxK(budget=None)(step))


def test_auxk_does_not_count_the_decoder_bias_again():
    """Moving the bias and the input together leaves the dead features' task as it was."""
    step = auxk_step()
    moved = torch.full((8,), 5.0)
    with torch.no_grad():
        step.dictionary.b_dec.add_(moved)
    x = step.x + moved
    activity = step.dictionary.activate(x)
    shifted = Step.of((AuxK(),), step.dictionary, activity, x, x, dead=step.dead)
    with torch.no_grad():
        step.dictionary.b_dec.sub_(moved)
        before = float(AuxK()(step))
        step.dictionary.b_dec.add_(moved)
        assert float(AuxK()(shifted)) == pytest.approx(before, rel=1e-4)


def test_auxk_teaches_features_whose_every_score_is_negative():
    step = auxk_step()
    with torch.no_grad():
        step.dictionary.b_enc[[2, 7]] -= 50
    AuxK()(step).backward()
    assert (step.dictionary.b_enc.grad[[2, 7]] < 0).all()


def test_auxk_without_dead_features_is_zero():
    assert float(AuxK()(auxk_step()._replace(dead=torch.tensor([], dtype=torch.int64)))) == 0


@pytest.mark.parametrize("name", sorted(INITIALISATIONS))
def test_first_rows_are_distinct_and_seeded(name):
    sample = torch.randn(50, 16, generator=torch.Generator().manual_seed(1))
    make = INITIALISATIONS[name]
    rows, decoder = make(200, sample, sample, torch.Generator().manual_seed(2))
    again, _ = make(200, sample, sample, torch.Generator().manual_seed(2))
    other, _ = make(200, sample, sample, torch.Generator().manual_seed(3))
    assert torch.equal(rows, again)
    assert not torch.equal(rows, other)
    unit = torch.nn.functional.normalize(rows, dim=1)
    torch.testing.assert_close(unit, torch.nn.functional.normalize(decoder, dim=1))
    assert float((unit @ unit.T).fill_diagonal_(0).max()) < 1
    if name == "uniform":  # the widths of the paper: 1 / 16, times 16 / 200 in the encoder
        assert 0.99 / 16 < float(decoder.abs().max()) <= 1 / 16
        torch.testing.assert_close(rows, decoder * 16 / 200)
    else:
        assert decoder is rows
        torch.testing.assert_close(rows, unit)


def test_data_rows_point_at_activations_of_one_token_on_both_sides():
    read, written = 3 * torch.eye(16)[:4], 2 * torch.eye(9)[3:7]
    make = INITIALISATIONS["data"]
    encoder, decoder = make(20, read, written, torch.Generator().manual_seed(2))
    tokens = (encoder @ read.T / 3).max(1)
    assert float(tokens.values.min()) > 0.99
    assert torch.equal((decoder @ written.T / 2).argmax(1), tokens.indices)
    assert float((decoder @ written.T / 2).max(1).values.min()) > 0.99


def test_geometric_median_is_not_moved_by_far_outliers():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 6, generator=generator) + 2
    x[:20] = 1e4
    assert float((geometric_median(x) - 2).norm()) < 0.3
    assert float((x.mean(0) - 2).norm()) > 100


def test_geometric_median_minimises_the_summed_distance():
    x = torch.randn(300, 3, generator=torch.Generator().manual_seed(0)).exp()
    point = geometric_median(x)
    least = (x - point).norm(dim=1).sum()
    for direction in torch.eye(3):
        for size in (-0.05, 0.05):
            assert (x - point - size * direction).norm(dim=1).sum() > least


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        (JumpReLU, {"bandwidth": 0.0}, "bandwidth is 0.0"),
        (JumpReLU, {"threshold": -1.0}, "threshold is -1.0"),
        (BatchTopK, {"k": 3, "memory": 1.5}, "memory is 1.5; expected 0 to 1"),
    ],
)
def test_impossible_settings_of_a_kind_are_refused(kind, settings, said):
    with pytest.raises(UsageError, match=said):
        kind(**settings)
