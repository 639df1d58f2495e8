import json
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from sememe import cli, commands
from sememe.activations.live import LiveStream
from sememe.activations.rules import HarvestConfig
from sememe.atlas.store import Atlas
from sememe.corpora.corpus import Corpus
from sememe.dictionaries.objectives import Divergence
from sememe.models.load import LanguageModel
from sememe.training import TrainConfig, recipes, train
from sememe.training.recipes import RECIPES
from tests.prose import prose

LIVE, SITE = ["--live", "TINY", "--corpus", "CORPUS"], "layers.0.resid"


def failed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Return the exit status and standard error of a command that must fail, in one line."""
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    output = capsys.readouterr()
    assert output.out == ""
    told = [line for line in output.err.splitlines() if line.startswith("sememe: ")]
    assert len(told) == 1, output.err
    assert isinstance(caught.value.code, int)
    return caught.value.code, told[0]


def test_help_needs_neither_torch_nor_transformers() -> None:
    code = (
        "import sys\n"
        "from sememe import cli\n"
        "try:\n    cli.main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'torch', 'transformers', 'numba', 'numpy', 'starlette'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in commands.COMMANDS:
        assert command in done.stdout


def test_training_dials_default_to_the_trainers_own() -> None:
    assert commands.Map(model="m").training() == TrainConfig()


def test_every_recipe_can_be_chosen() -> None:
    assert get_args(commands.Recipe) == tuple(RECIPES)
    for name in RECIPES:
        made = commands.Map(model="m", recipe=name, features=99, seed=5, batch=77).training()
        assert made == replace(recipes.make(name, features=99), seed=5, batch=77)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["map", "smollm3"], "smollm3"),
        (["map", "TINY", "--k", "50000"], "k is 50000; expected 1 to 9216, the number of features"),
        (["map", "TINY", "--features", "0"], "features is 0"),
        (["map", "TINY", "--passes", "0"], "passes is 0"),
        (["map", "TINY", "--tokens", "0"], "tokens=0"),
        (["map", "TINY", "--site", "layers.99.resid"], "layers.99.resid"),
        (["map", "TINY", "--site", "layers.0.router"], "layers.0.router"),
        (["map", "TINY", "--text", "moby-dock"], "moby-dock"),
        (["map", "TINY", "--context", "100000"], "context 100000"),
        (["map", "gemma3-270m"], "--accept-terms"),
        (["map", "TINY", "--device", "cuda:99"], "device is 'cuda:99', but torch"),
        (["plan", "TINY", "--device", "gpu"], "device is 'gpu'; expected cpu, cuda or cuda:N"),
        (["corpus"], "--out DIR is needed"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(
    arguments: list[str],
    named: str,
    tiny_directory: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [str(tiny_directory) if word == "TINY" else word for word in arguments]
    if words[0] in ("map", "plan"):
        words += ["--out", str(tmp_path / "run")]
        words += [] if "--context" in words else ["--context", "64"]
    status, line = failed(words, capsys)
    assert status == 2
    assert named in line


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "a store's directory, or --live MODEL"),
        (["STORE", "--live", "TINY"], "were given: choose"),
        (["STORE", "--buffer", "9000"], "--buffer is for --live MODEL"),
        (["STORE", "--kl", "2"], "--kl is for --live MODEL"),
        (["STORE", "--kl", "0"], "--kl is 0.0; expected a positive number"),
        (["STORE", "--kl", "nan"], "--kl is nan; expected a positive number"),
        (["STORE", "--device", "tpu"], "device is 'tpu'; expected cpu, cuda or cuda:N"),
        (["STORE", "--device", "mps"], "device is 'mps'; expected cpu, cuda or cuda:N"),
        (["STORE", "--device", "cuda:99"], "device is 'cuda:99', but torch"),
        (["--live", "TINY", "--reads", "layers.0.resid"], "--live needs --corpus DIR"),
        (["--live", "TINY", "--corpus", "CORPUS"], "and --reads SITE"),
        (["--live", "TINY", "--corpus", "CORPUS", "--reads", "layers.9.resid"], "layers.9.resid"),
        (
            ["--live", "TINY", "--corpus", "CORPUS", "--reads", "layers.0.resid", "--buffer", "9"],
            "buffer is 9; expected",
        ),
        ([*LIVE, "--reads", SITE, "--kl", "2", "--buffer", "9000"], "--buffer mixes single tokens"),
        ([*LIVE, "--reads", SITE, "--kl", "2", "--batch", "9"], "batch 9 holds no window of 63"),
        ([*LIVE, "--reads", SITE, "layers.1.resid", "--kl", "2"], "from one site, not several"),
        ([*LIVE, "--reads", "logits.random.8", "--kl", "2"], "read but not replaced"),
    ],
)
def test_what_to_train_on_is_a_store_or_a_live_model(
    arguments: list[str],
    named: str,
    tiny_directory: Path,
    small_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {
        "TINY": str(tiny_directory),
        "STORE": str(small_run / "activations"),
        "CORPUS": str(small_run / "corpus"),
    }
    words = [places.get(word, word) for word in arguments]
    words += ["--context", "64"] if "--corpus" in words else []
    status, line = failed(["train", *words, "--out", str(tmp_path / "d")], capsys)
    assert status == 2
    assert named in line


def test_a_dictionary_is_trained_while_the_model_reads(
    tiny_directory: Path, small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "live"
    words = ["train", "--live", str(tiny_directory), "--corpus", str(small_run / "corpus")]
    words += ["--context", "64", "--reads", "layers.1.resid", "--buffer", "2000", "--batch", "256"]
    words += ["--features", "64", "--k", "4", "--passes", "2", "--out", str(out), "--json"]
    cli.main(words)
    assert 0 < json.loads(capsys.readouterr().out)["fvu"] < 1
    made = json.loads((out / "manifest.json").read_text())["made_from"]
    stored = json.loads((small_run / "dictionary/manifest.json").read_text())["made_from"]
    for name in ("model", "model_name", "tokenizer", "corpus", "context"):
        assert made[name] == stored[name]
    assert made["rules"]["special"] == stored["rules"]["special"]


def test_a_run_without_a_store_is_described_by_the_live_model(
    small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    for part in ("corpus", "dictionary"):
        shutil.copytree(small_run / part, run / part)
    cli.main(["describe", str(run), "--live", "--part", "1/1", "--json"])
    assert json.loads(capsys.readouterr().out)["shards"] == 1
    cli.main(["describe", str(run), "--live", "--json"])
    figures = json.loads(capsys.readouterr().out)
    stored = Atlas.open(small_run / "atlas")
    assert figures["tokens"] == stored.manifest["tokens"]
    assert figures["l0"] == stored.manifest["l0"]
    for name in ("features.sqlite", "columns.safetensors"):
        assert (run / "atlas" / name).read_bytes() == (small_run / "atlas" / name).read_bytes()


def test_training_end_to_end_is_the_kl_term_on_a_live_stream(
    tiny_directory: Path,
    tiny_llama: LanguageModel,
    small_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["train", "--live", str(tiny_directory), "--corpus", str(small_run / "corpus")]
    words += ["--context", "64", "--reads", SITE, "--batch", "256", "--model-dtype", "fp32"]
    words += ["--features", "64", "--k", "4", "--passes", "1", "--device", "cpu", "--json"]
    cli.main([*words, "--kl", "30", "--out", str(tmp_path / "command")])
    assert 0 < json.loads(capsys.readouterr().out)["fvu"] < 1
    stream = LiveStream(
        tiny_llama, Corpus.open(small_run / "corpus"), (SITE,), HarvestConfig(context=64)
    )
    config = recipes.topk(features=64, k=4, passes=1)
    objective = (*config.objective, Divergence(30.0))
    train(stream, replace(config, batch=256, objective=objective), tmp_path / "function")
    for name in ("dictionary.safetensors", "manifest.json"):
        command, function = (tmp_path / way / name for way in ("command", "function"))
        assert command.read_bytes() == function.read_bytes()


def test_a_wrong_argument_leaves_nothing_that_a_right_one_trips_over(
    tiny_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ["map", str(tiny_directory), "--out", str(out)]
    failed([*words, "--site", "layers.99.resid"], capsys)
    failed([*words, "--context", "100000"], capsys)
    assert not out.exists()
    words += ["--context", "32"]
    failed([*words, "--text", "moby-dock"], capsys)
    failed([*words, "--k", "0"], capsys)
    (tmp_path / "binary.txt").write_bytes(b"a\0b")
    failed([*words, "--text", str(tmp_path / "binary.txt")], capsys)
    text = prose(tmp_path / "text", documents=40)
    right = [*words, "--text", str(text), "--tokens", "3000", "--features", "64", "--k", "4"]
    failed([*right, "--context", "100000"], capsys)
    assert (
        "do not fill one batch"
        in failed([*right, "--context", "32", "--batch", "90000"], capsys)[1]
    )
    cli.main([*right, "--batch", "128", "--context", "32", "--json"])
    assert json.loads(capsys.readouterr().out)["features"] == 64


@pytest.mark.parametrize("command", ["evaluate", "describe", "serve"])
def test_a_directory_that_is_no_run_fails_with_status_1(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, line = failed([command, str(tmp_path / "nowhere")], capsys)
    assert status == 1
    assert "nowhere" in line


def test_sites_lists_names_and_widths(
    tiny_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["sites", str(tiny_directory), "--json"])
    told = json.loads(capsys.readouterr().out)
    sites = {row["site"]: row["width"] for row in told["sites"]}
    assert sites["layers.2.resid"] == 32
    assert sites["layers.0.mlp.hidden"] == 96
    assert sites["logits"] == 512
    assert {"site": "layers.N.attn.head.H", "width": "8, H from 0 to 3"} in told["parts"]
    cli.main(["sites", str(tiny_directory)])
    assert "layers.N.attn.head.H" in capsys.readouterr().out


def test_every_source_is_listed_with_its_licence(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["corpus", "--list", "--json"])
    rows = json.loads(capsys.readouterr().out)["sources"]
    assert len(rows) > 15
    assert all(row["licence"] for row in rows)
    assert any(row["synthetic"] for row in rows)


def test_a_port_in_use_is_one_line(small_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, line = failed(["serve", str(small_run), "--port", str(port)], capsys)
    assert status == 1
    assert re.search(rf"127\.0\.0\.1:{port} .*--port", line)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["--version"])
    assert capsys.readouterr().out == "sememe 0.1.0\n"
