"""What a job is said to take, against what it took; and that asking changes nothing."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sememe import cli, job, planner, requirements
from sememe.activations.rules import HarvestConfig
from sememe.activations.store import Activations
from sememe.dictionaries import ReLU
from sememe.dictionaries.objectives import L1, Reconstruction
from sememe.errors import SememeError
from sememe.job import map_model
from sememe.models.load import LanguageModel
from sememe.planner import shown_time
from sememe.probe import SCRATCH, RandomCorpus, probe
from sememe.progress import Progress
from sememe.requirements import Work, check_fits, needs, totals
from sememe.run import Run
from sememe.training import recipes
from sememe.training.checkpoints import KEPT
from sememe.training.config import TrainConfig
from sememe.training.recipes import RECIPES
from tests.prose import prose, small_job
from tests.test_job import contents

SITE = "layers.1.resid"


def size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


@pytest.fixture
def work(tiny_llama: LanguageModel, tiny_directory: Path) -> Work:
    config = small_job(tiny_directory, Path())
    return Work(tiny_llama, SITE, config.tokens, config.harvest, config.train)


class Told(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


def test_the_disk_that_is_said_is_what_a_run_leaves(work: Work, small_run: Path) -> None:
    needed, run = needs(work), Run(small_run)
    stores = size(run.activations) + size(run.held_out)
    assert needed["harvest"].disk == pytest.approx(stores, rel=0.25)
    assert needed["train"].disk == pytest.approx(size(run.dictionary), rel=0.25)


def test_the_default_job_takes_what_was_measured(smollm2: LanguageModel) -> None:
    """Sizes that ``du`` gave for runs/demo of `sememe map smollm2-135m`, in bytes."""
    needed = needs(Work(smollm2, "layers.14.resid", 1_000_000, HarvestConfig(), TrainConfig()))
    assert needed["corpus"].disk == pytest.approx(4.1e6, rel=0.25)
    assert needed["harvest"].disk == pytest.approx(1.16e9, rel=0.1)
    assert needed["train"].disk == pytest.approx(42.6e6, rel=0.1)
    assert needed["describe"].disk == pytest.approx(85e6, rel=0.25)


def test_what_is_on_the_disk_at_once_is_counted_and_what_was_removed_is_not(work: Work) -> None:
    long = replace(work, train=replace(work.train, checkpoint_every=1))
    kept, needed = needs(work), needs(long)
    weights = 4 * work.train.features * (2 * 32 + 2)
    assert needed["train"].scratch == (KEPT + 1) * 2 * weights  # and their second moments
    with_momentum = needs(replace(long, train=replace(long.train, beta1=0.9)))
    assert with_momentum["train"].scratch == (KEPT + 1) * 3 * weights
    before = sum(kept[stage].disk for stage in ("corpus", "harvest", "train"))
    codes = before + needed["describe"].disk + needed["describe"].scratch
    assert totals(needed).disk == max(before + needed["train"].scratch, codes)


def test_more_of_anything_takes_more(work: Work) -> None:
    work = replace(work, train=replace(work.train, batch=2048))
    dense = replace(work.train, nonlinearity=ReLU(), objective=(Reconstruction(), L1(1.0)))
    least = needs(work)
    for more, stage in (
        (replace(work, harvest=replace(work.harvest, shard_rows=8000)), "harvest"),
        (replace(work, harvest=replace(work.harvest, dtype="fp32")), "harvest"),
        (replace(work, train=replace(work.train, features=4096)), "train"),
        (replace(work, train=replace(work.train, batch=4096)), "train"),
        (replace(work, train=dense), "train"),
        (replace(work, train=replace(work.train, features=4096)), "describe"),
    ):
        assert needs(more)[stage].memory > least[stage].memory


def test_a_job_that_does_not_fit_is_refused_with_the_numbers_before_anything_is_written(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    huge = needs(replace(work, tokens=100_000_000))
    monkeypatch.setattr(requirements, "disk_free", lambda place: 1_000_000_000)
    with pytest.raises(SememeError, match=r"needs 1\d\.\d\d GB of disk, 1\.00 GB are free"):
        check_fits(out, huge)
    monkeypatch.setattr(requirements, "disk_free", lambda place: 10**15)
    monkeypatch.setattr(requirements, "memory_free", lambda: 300_000_000)
    monkeypatch.setattr(requirements, "memory_used", lambda: 0)
    wide = needs(replace(work, train=replace(work.train, features=1_000_000)))
    with pytest.raises(SememeError, match=r"needs \d+\.\d\d GB of memory, 300 MB are available"):
        check_fits(out, wide)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_already_needs_no_disk(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = needs(work)
    monkeypatch.setattr(requirements, "disk_free", lambda place: totals(needed).disk // 2)
    with pytest.raises(SememeError, match="of disk"):
        check_fits(tmp_path, needed)
    (tmp_path / "shard").write_bytes(b"0" * (totals(needed).disk // 2 + 9))
    check_fits(tmp_path, needed)


def test_the_map_refuses_before_it_writes(
    tiny_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requirements, "disk_free", lambda place: 1000)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("The sea was calm.")
    with pytest.raises(SememeError, match="of disk"):
        map_model(small_job(tiny_directory, tmp_path / "text"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_single_stages_refuse_before_they_write_but_show_what_is_done(
    tiny_directory: Path, small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, out = Run(small_run), str(tmp_path / "out")
    commands = [
        ["harvest", str(tiny_directory), "--corpus", str(run.corpus), "--sites", "layers.0.resid"],
        ["train", str(run.activations), "--features", "64", "--k", "4"],
    ]
    monkeypatch.setattr(requirements, "memory_free", lambda: 0)
    monkeypatch.setattr(requirements, "memory_used", lambda: 0)
    for command in commands:
        with pytest.raises(SystemExit) as caught:
            cli.main([*command, "--out", out, *(["--context", "64"] * (command[0] == "harvest"))])
        assert caught.value.code == 1
    assert not (tmp_path / "out").exists()
    done = small_job(tiny_directory, small_run.parent / "text")
    assert map_model(done, small_run)["features"] == 128


def test_the_probe_leaves_nothing_and_covers_every_stage(work: Work, tmp_path: Path) -> None:
    seconds = probe(work, tmp_path / "not" / "there")
    assert list(seconds) == ["corpus", "harvest", "train", "evaluate", "describe"]
    assert min(seconds.values()) > 0
    assert list(tmp_path.iterdir()) == []


def test_folders_of_killed_probes_are_removed_and_those_of_living_ones_stay(
    work: Work, tmp_path: Path
) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    stale, old, living = (
        tmp_path / f"{SCRATCH}{name}" for name in (f"{gone.pid}-x", "a1b2", f"{os.getpid()}-x")
    )
    for folder in (stale, old, living):
        folder.mkdir()
        (folder / "shard").write_text("0")
    probe(work, tmp_path / "run")
    assert list(tmp_path.iterdir()) == [living]


def test_single_stages_say_what_they_take_before_they_begin(
    tiny_directory: Path,
    small_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = Run(small_run)
    stored = Activations.open(run.activations)
    tokens = stored.rows + sum(stored.manifest["left_out"].values())
    harvesting = [
        *("harvest", str(tiny_directory), "--corpus", str(run.corpus), "--sites", SITE),
        *("--context", "64"),
    ]
    dials = ["--features", "64", "--k", "4", "--passes", "1", "--batch", "512"]
    training = ["train", str(run.activations), *dials]
    live = [
        *("train", "--live", str(tiny_directory), "--corpus", str(run.corpus), "--reads", SITE),
        *("--context", "64", "--buffer", "2000", *dials),
    ]
    for command, what, worth in (
        (harvesting, f"harvesting {tokens:,} tokens", 0),
        (training, f"training on {stored.rows:,} activations", 0),
        (live, f"training on {tokens:,} activations", 1),
        (training, f"training on {stored.rows:,} activations", 10**9),
    ):
        monkeypatch.setattr(planner, "WORTH_A_PROBE", worth)
        out = tmp_path / f"{command[0]}-{worth}"
        cli.main([*command, "--out", str(out)])
        lines = capsys.readouterr().err.splitlines()
        (said,) = (number for number, line in enumerate(lines) if line.startswith(what))
        pattern = r" takes \d+ MB of disk, [\d.]+ .B of memory" + r" and about \d+ s" * (worth < 2)
        assert re.fullmatch(what + pattern, lines[said])
        assert any(line.startswith(command[0]) for line in lines[said + 1 :])
        cli.main([*command, "--out", str(out)])
        assert "takes" not in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "harvest-0",
        "train-0",
        "train-1",
        "train-1000000000",
    ]


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_every_recipe_can_be_probed(recipe: str, work: Work, tmp_path: Path) -> None:
    train = replace(recipes.make(recipe, features=128), batch=256)
    assert probe(replace(work, train=train), tmp_path)["train"] > 0


def test_a_probe_that_fails_does_not_end_the_job(
    tiny_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise SememeError("no luck")

    monkeypatch.setattr(job, "WORTH_A_PROBE", 0)
    monkeypatch.setattr(job, "probe", failing)
    told = Told()
    map_model(small_job(tiny_directory, prose(tmp_path / "text")), tmp_path / "run", progress=told)
    assert "how long this will take could not be measured: no luck" in told.lines


def test_a_folder_that_cannot_be_written_is_named(work: Work, tmp_path: Path) -> None:
    with pytest.raises(SememeError, match=r"^cannot write /proc"):
        probe(work, Path("/proc/run"))


def test_the_probe_changes_no_byte_of_the_run_and_says_the_time(
    tiny_directory: Path, small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "WORTH_A_PROBE", 0)
    told, out = Told(), tmp_path / "run"
    map_model(small_job(tiny_directory, small_run.parent / "text"), out, progress=told)
    assert contents(out) == contents(small_run)
    (line,) = [line for line in told.lines if line.startswith("this will take about")]
    assert "harvest" in line
    map_model(small_job(tiny_directory, small_run.parent / "text"), out, progress=told)
    assert sum(line.startswith("this will take") for line in told.lines) == 1


def test_random_text_has_the_lengths_of_the_default_text(tiny_llama: LanguageModel) -> None:
    corpus = RandomCorpus(tiny_llama, 100_000, 4, 255)
    training, held_out = corpus.windows(255, False).length, corpus.windows(255, True).length
    assert training.sum() == pytest.approx(100_000, abs=1183)
    assert held_out.tolist() == [255] * 4
    # of runs/demo: 65% of the tokens in full windows, 140 tokens a window
    assert training[training == 255].sum() / training.sum() == pytest.approx(0.65, abs=0.1)
    assert training.mean() == pytest.approx(140, rel=0.1)
    ids = corpus.tokens(0, len(corpus))
    assert not np.isin(ids, list(tiny_llama.tokenizer.special)).any()


def test_the_command_prints_figures_and_makes_nothing(
    tiny_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["plan", str(tiny_directory), "--tokens", "5000", "--features", "64", "--k", "4"]
    cli.main([*words, "--context", "64", "--out", str(tmp_path / "run"), "--json"])
    figures = json.loads(capsys.readouterr().out)
    assert figures["tokens"] == 5000
    assert figures["disk_bytes"] < figures["disk_free_bytes"]
    assert figures["memory_bytes"] < figures["memory_free_bytes"]
    assert figures["total_seconds"] == pytest.approx(sum(figures["seconds"].values()), abs=0.5)
    assert list(tmp_path.iterdir()) == []


def test_time_is_said_as_people_say_it() -> None:
    assert [shown_time(s) for s in (0.4, 59.6, 61.0, 4000.0)] == [
        "0 s",
        "1 min 0 s",
        "1 min 1 s",
        "1 h 6 min",
    ]
