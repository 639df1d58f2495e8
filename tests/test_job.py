"""The main job: what it leaves, and that no kill changes a byte of it."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from sememe.errors import SememeError, UsageError
from sememe.job import map_model, middle_site
from sememe.models.load import LanguageModel
from sememe.run import Run
from tests.prose import prose, small_job

STAGES = ("corpus", "harvest", "harvest held-out", "train", "evaluate", "describe")
VARIABLE = {"seconds.json"}
"""What a run may write differently each time."""

CHILD = """
import sys
from pathlib import Path
from sememe.job import map_model
from sememe.terminal import LineProgress
from tests.prose import small_job
model, text, out = map(Path, sys.argv[1:])
map_model(small_job(model, text), out, progress=LineProgress())
"""


def contents(run: Path) -> dict[str, bytes]:
    """What the job made, by path; not what serving adds beside it: notes and an index."""
    served = {*run.glob("annotations.sqlite*"), *(run / "index").rglob("*")}
    files = {path for path in run.rglob("*") if path.is_file()} - served
    return {
        str(path.relative_to(run)): path.read_bytes() for path in files if path.name not in VARIABLE
    }


def killed_in(stage: str, arguments: list[str], delay: float) -> bool:
    """Start the job, kill it ``delay`` seconds into ``stage``; False if it had ended by then."""
    command = [sys.executable, "-c", CHILD, *arguments]
    environment = {**os.environ, "JAXTYPING_DISABLE": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stderr is not None
        for line in child.stderr:
            if line.startswith(f"{stage}: ") and " of " in line:
                threading.Event().wait(delay)
                child.kill()
                break
        child.stderr.read()
    return child.returncode == -signal.SIGKILL


def test_a_half_written_file_anywhere_in_a_run_is_removed_by_the_next(
    tmp_path: Path, tiny_directory: Path, small_run: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(small_run, out)
    for artefact in (out / "atlas", out / "dictionary"):
        shutil.rmtree(artefact)
        artefact.mkdir()
    halves = [out, out / "atlas", out / "dictionary"]
    for directory in halves:
        (directory / ".seconds.json.1.partial").write_bytes(b"{")
    map_model(small_job(tiny_directory, small_run.parent / "text"), out)
    assert not [path for path in out.rglob("*") if "partial" in path.name]
    assert sorted(contents(out)) == sorted(contents(small_run))


@pytest.mark.slow
def test_kill_9_in_every_stage_changes_no_byte(
    tmp_path: Path, tiny_directory: Path, small_run: Path
) -> None:
    text = small_run.parent / "text"
    out = tmp_path / "killed"
    arguments = [str(tiny_directory), str(text), str(out)]
    killed = [killed_in(stage, arguments, 0.01 * number) for number, stage in enumerate(STAGES)]
    assert all(killed), dict(zip(STAGES, killed, strict=True))
    assert not (out / "atlas" / "manifest.json").exists()
    map_model(small_job(tiny_directory, text), out)
    expected, found = contents(small_run), contents(out)
    assert sorted(found) == sorted(expected)
    for name, data in expected.items():
        assert found[name] == data, name


def test_the_same_command_again_does_nothing_and_says_the_same(
    tiny_directory: Path, small_run: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in small_run.rglob("*.safetensors")}
    figures = map_model(small_job(tiny_directory, small_run.parent / "text"), small_run)
    assert {path: path.stat().st_mtime_ns for path in small_run.rglob("*.safetensors")} == before
    assert set(figures) >= {
        "fvu",
        "l0",
        "alive",
        "features",
        "tokens",
        "loss_recovered_zero",
        "loss_recovered_mean",
        "seconds",
        "out",
    }
    assert set(figures["seconds"]) == {
        "load",
        "corpus",
        "harvest",
        "train",
        "evaluate",
        "describe",
    }
    assert 0 < figures["fvu"] < 1
    assert figures["l0"] == pytest.approx(8, abs=0.5)
    assert figures["alive"] > 0.5


def test_no_scratch_is_left(small_run: Path) -> None:
    names = [path.name for path in small_run.rglob("*")]
    assert not [name for name in names if "partial" in name or name.startswith("checkpoint")]
    assert not (small_run / "atlas" / "codes").exists()


def test_other_arguments_in_the_same_place_are_refused(
    tmp_path: Path, tiny_directory: Path, small_run: Path
) -> None:
    other = small_job(tiny_directory, prose(tmp_path / "text", seed=1))
    with pytest.raises(SememeError, match=r"sources=.*give another --out"):
        map_model(other, small_run)


def test_a_site_that_cannot_be_evaluated_is_refused_before_any_work(
    tmp_path: Path, tiny_directory: Path
) -> None:
    job = replace(small_job(tiny_directory, tmp_path), site="logits.random.4")
    with pytest.raises(UsageError, match="can be read but not replaced"):
        map_model(job, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_altered_shard_is_named(tmp_path: Path, tiny_directory: Path, small_run: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    (run / "dictionary" / "manifest.json").unlink()
    shard = run / "activations" / "shard-00001.safetensors"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 4
    shard.write_bytes(data)
    with pytest.raises(SememeError, match=r"shard-00001\.safetensors has checksum"):
        map_model(small_job(tiny_directory, small_run.parent / "text"), run)
    assert not Run(run).dictionary.joinpath("manifest.json").exists()


def test_the_middle_layer_of_smollm2_is_14(smollm2: LanguageModel) -> None:
    assert middle_site(smollm2) == "layers.14.resid"
