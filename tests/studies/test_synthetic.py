"""A study ends with a row a recipe, goes on where it was, and aims penalties at an L0."""

import dataclasses
import json
import math
import statistics

import pytest

from sememe import cli
from sememe.errors import SememeError, UsageError
from sememe.evaluation import worlds
from sememe.progress import Progress
from sememe.studies import synthetic
from sememe.studies.synthetic import SyntheticConfig, search, study, summary

SMALL = SyntheticConfig(
    world="independent", samples=5120, batch=128, learning_rate=5e-3, evaluated=512
)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """Make the independent world small enough for a test."""
    monkeypatch.setitem(
        worlds.WORLDS,
        "independent",
        lambda **settings: worlds.independent(32, 16, active=2.0, **settings),
    )
    monkeypatch.setitem(synthetic.LATENTS, "independent", 32)


class Heard(Progress):
    def __init__(self):
        self.said, self.advanced = [], 0

    def advance(self, amount, **live):
        self.advanced += amount

    def say(self, message):
        self.said.append(message)


def test_every_recipe_has_a_row_with_mean_and_interval(tmp_path):
    rows = study(SMALL, ["topk", "batchtopk"], 3, tmp_path)
    assert [row["recipe"] for row in rows] == ["topk", "batchtopk"]
    for row in rows:
        assert row["seeds"] == 3
        assert {"f1", "mcc", "fvu", "l0", "f1_95"} <= set(row)
        assert row["l0"] == pytest.approx(2, abs=1)
    runs = [json.loads((tmp_path / f"topk-{seed}.json").read_text()) for seed in range(3)]
    values = [run["f1"] for run in runs]
    assert rows[0]["f1"] == pytest.approx(sum(values) / 3)
    # 4.303 is the 97.5% quantile of Student's t with two degrees of freedom
    half = 4.302653 * statistics.stdev(values) / math.sqrt(3)
    assert rows[0]["f1_95"] == pytest.approx(half, rel=1e-5)


def test_a_study_goes_on_where_it_was(tmp_path):
    first = study(SMALL, ["topk"], 1, tmp_path)
    kept = (tmp_path / "topk-0.json").stat().st_mtime_ns
    heard = Heard()
    more = study(SMALL, ["topk"], 2, tmp_path, heard)
    assert (tmp_path / "topk-0.json").stat().st_mtime_ns == kept
    assert heard.said == ["training topk, seed 1"]
    assert more[0]["seeds"] == 2
    (tmp_path / "topk-0.json").unlink()
    again = study(SMALL, ["topk"], 1, tmp_path)
    drop = "us_per_sample"
    assert {n: v for n, v in again[0].items() if drop not in n} == {
        n: v for n, v in first[0].items() if drop not in n
    }


def test_another_study_in_the_same_directory_is_refused(tmp_path):
    study(SMALL, ["topk"], 1, tmp_path)
    other = dataclasses.replace(SMALL, world="toy")
    with pytest.raises(SememeError, match="world='independent', now world='toy'"):
        study(other, ["topk"], 1, tmp_path)


def test_a_penalty_is_searched_for_and_kept(tmp_path):
    heard = Heard()
    rows = study(SMALL, ["april_update"], 1, tmp_path, heard)
    kept = json.loads((tmp_path / "april_update-penalty.json").read_text())
    assert kept["tried"] == sum(line.startswith("searching") for line in heard.said)
    assert kept["l0"] < 8, "the default penalty of 5 gives more"
    assert rows[0]["l0"] == pytest.approx(kept["l0"], rel=1), "another world, a short run"


@pytest.mark.parametrize("power", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("first", [0.01, 1.0, 50.0])
def test_the_search_finds_the_penalty_of_a_power_law(power, first):
    tried = []

    def l0_of(penalty):
        tried.append(penalty)
        return 8 * penalty**-power

    found = search(l0_of, first, 8.0)
    assert len(tried) == found["tried"] <= synthetic.SEARCHES
    assert abs(math.log(found["l0"] / 8)) <= abs(math.log(8 * first**-power / 8)) / 2 + 0.06


def test_one_seed_has_no_interval():
    assert summary([{"f1": 0.5}]) == {"seeds": 1, "f1": 0.5, "f1_95": None}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"world": "mars"}, "world is 'mars'; expected one of small"),
        ({"samples": 0}, "samples is 0"),
        ({"l0": 4000}, "l0 is 4000"),
    ],
)
def test_impossible_studies_are_refused(settings, said):
    with pytest.raises(UsageError, match=said):
        SyntheticConfig(**settings)


def test_unknown_recipes_devices_and_no_seeds_are_refused_before_anything_is_written(tmp_path):
    for names, seeds, device, said in (
        (["tpok"], 1, "cpu", "recipe is 'tpok'"),
        (["topk"], 0, "cpu", "seeds is 0"),
        (["topk"], 1, "cuda:99", "device is 'cuda:99', but torch"),
    ):
        with pytest.raises(UsageError, match=said):
            study(SMALL, names, seeds, tmp_path / "s", device=device)
    assert not (tmp_path / "s").exists()


def test_resampling_is_scaled_to_the_run(tmp_path, monkeypatch):
    """The paper's shares of its 1,000,000 steps: at 2.5, 5, 7.5 and 10%, of 640 steps here."""
    ruled = []

    def spy(dictionary, forget, dead, batches, rule, generator):
        ruled.append(rule)

    monkeypatch.setattr("sememe.training.trainer.resample", spy)
    config = dataclasses.replace(SMALL, samples=640 * 16, batch=16)
    monkeypatch.setattr(synthetic, "SEARCHES", 1)
    study(config, ["towards_monosemanticity"], 1, tmp_path)
    assert len(ruled) == 4 * 2  # the search's run and the one that counts
    assert (ruled[0].every, ruled[0].silent, ruled[0].rows) == (16, 8, synthetic.INPUTS)


def test_the_command_prints_rows_or_a_table(tmp_path, capsys):
    words = ["study", "synthetic", "--world", "independent", "--recipes", "topk", "--seeds", "2"]
    words += ["--samples", "2560", "--batch", "128", "--l0", "2", "--out", str(tmp_path / "s")]
    words += ["--device", "cpu"]
    cli.main([*words, "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert printed["world"] == "independent"
    assert [row["recipe"] for row in printed["rows"]] == ["topk"]
    cli.main(words)
    table = capsys.readouterr().out
    assert "mcc" in table
    assert "±" in table
