"""Dictionaries of other packages: codes and reconstructions are what those packages give."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sememe.cli import main
from sememe.dictionaries import Dictionary, TopK
from sememe.dictionaries.foreign import read_foreign
from sememe.dictionaries.foreign.saelens import WEIGHTS
from sememe.errors import SememeError, UsageError
from tests.dictionaries.foreign.peers import CASES, EXPECTED, FEATURES, build

RECORDED = Path(__file__).parent / "recorded"
ALL = [(package, kind) for package, (_, kinds) in CASES.items() for kind in kinds]


def sites(kind: str) -> tuple[str, ...]:
    return ("layers.1.mlp.in", "layers.1.mlp.out") if "transcoder" in kind else ("layers.1.resid",)


def agree(dictionary: Dictionary, expected: dict[str, Tensor]) -> None:
    """Hold a dictionary to its package's outputs: 1e-5 of the largest number, as fp32 has it."""
    x, norms = expected["x"], dictionary.directions().norm(dim=1)
    with torch.no_grad():
        code = dictionary.encode(x)
        dense = torch.zeros(len(x), FEATURES).scatter_add(1, code.indices.long(), code.values)
        unscaled = norms / dictionary.write_scale[0]
        assert (dense > 0).equal(expected["code"] > 0)
        close(dense * unscaled, expected["code"] * expected["norms"])
        close(dictionary(x), expected["rebuilt"])
    if dictionary.config.nonlinearity.rescalable:
        close(norms, torch.ones(FEATURES))


def close(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


@pytest.mark.parametrize(("package", "kind"), ALL)
def test_what_is_recorded_is_reproduced(package: str, kind: str) -> None:
    directory = RECORDED / package / kind
    expected = load_file(directory / EXPECTED)
    active = (expected["code"] > 0).float().mean()
    assert 0.05 < active < 0.9  # neither nothing nor everything: a threshold that fails would show
    agree(read_foreign(directory, sites=sites(kind)).dictionary, expected)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("package", "kind"), ALL)
def test_the_package_itself_gives_the_same(package: str, kind: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install 'sememe[peers]'")
    expected = build(package, kind, tmp_path)
    agree(read_foreign(tmp_path, sites=sites(kind)).dictionary, expected)


@pytest.mark.parametrize(("package", "kind"), ALL)
def test_saving_keeps_every_bit(package: str, kind: str, tmp_path: Path) -> None:
    found = read_foreign(RECORDED / package / kind, sites=sites(kind))
    found.dictionary.save(tmp_path / "out", made_from={"files": found.files})
    loaded = Dictionary.load(tmp_path / "out")
    x = load_file(RECORDED / package / kind / EXPECTED)["x"]
    with torch.no_grad():
        assert loaded(x).equal(found.dictionary(x))


def test_sites_are_what_the_hooks_say() -> None:
    by_case = {
        "sae_lens/standard": "layers.3.resid",
        "sae_lens/before-6": "layers.2.resid",
        "dictionary_learning/AutoEncoder": "layers.3.resid",
    }
    for case, site in by_case.items():
        assert read_foreign(RECORDED / case).dictionary.site == site


@pytest.mark.parametrize(
    ("name", "reads", "writes"),
    [
        ("layers.5.mlp", "layers.5.mlp.in", "layers.5.mlp.out"),
        ("h.2.attn", "layers.2.attn.in", "layers.2.attn.out"),
        ("gpt_neox.layers.4.attention", "layers.4.attn.in", "layers.4.attn.out"),
    ],
)
def test_a_hookpoint_is_the_folder(name: str, reads: str, writes: str, tmp_path: Path) -> None:
    shutil.copytree(RECORDED / "sparsify" / "transcoder", tmp_path / name)
    config = read_foreign(tmp_path / name).dictionary.config
    # a transcoder of this package is as wide as what it reads
    assert (config.reads, config.writes) == ((reads,), (writes,))
    with pytest.raises(UsageError, match=name):
        read_foreign(tmp_path)


def test_top_k_with_free_norms_keeps_them() -> None:
    dictionary = read_foreign(RECORDED / "sae_lens" / "topk").dictionary
    assert isinstance(dictionary.config.nonlinearity, TopK)
    assert float(dictionary.directions().norm(dim=1).std()) > 0.1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"normalize_activations": "layer_norm"}, "by its own norm"),
        ({"normalize_activations": "constant_norm_rescale"}, "by its own norm"),
        ({"normalize_activations": "covariance_whitening"}, "inference model"),
        ({"normalize_activations": "expected_average_only_in"}, "--scale"),
        ({"architecture": "temporal"}, "temporal"),
        ({"architecture": "abstopk"}, "abstopk"),
        ({"activation_fn": "tanh-relu"}, "tanh-relu"),
        ({"finetuning_scaling_factor": True}, "fold it"),
        ({"architecture": "jumprelu"}, "lacks the tensor threshold"),
        ({"architecture": "topk"}, "k in the config is None"),
    ],
)
def test_what_cannot_be_is_refused(change: dict, reason: str, tmp_path: Path) -> None:
    shutil.copytree(RECORDED / "sae_lens" / "standard", tmp_path / "one")
    path = tmp_path / "one" / "cfg.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(SememeError, match=reason):
        read_foreign(tmp_path / "one")


def test_tensors_that_nothing_asks_for_are_refused(tmp_path: Path) -> None:
    shutil.copytree(RECORDED / "sae_lens" / "standard", tmp_path / "one")
    path = tmp_path / "one" / "sae_weights.safetensors"
    save_file({**load_file(path), "scaling_factor": torch.ones(FEATURES)}, path)
    with pytest.raises(SememeError, match="scaling_factor"):
        read_foreign(tmp_path / "one")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"activation": "groupmax"}, "groupmax"),
        ({"signed": True}, "negative"),
        ({"transcode": False}, "passes the input through"),
    ],
)
def test_sparsify_is_refused_too(change: dict, reason: str, tmp_path: Path) -> None:
    shutil.copytree(RECORDED / "sparsify" / "skip-transcoder", tmp_path / "layers.1.mlp")
    path = tmp_path / "layers.1.mlp" / "cfg.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(SememeError, match=reason):
        read_foreign(tmp_path / "layers.1.mlp")


def test_a_pickle_is_refused_with_a_way_out(tmp_path: Path) -> None:
    source = RECORDED / "dictionary_learning" / "GatedAutoEncoder"
    state = load_file(source / "ae.safetensors")
    torch.save(state, tmp_path / "ae.pt")
    shutil.copy(source / "config.json", tmp_path)
    with pytest.raises(SememeError, match="pickle") as refused:
        read_foreign(tmp_path)
    advice = str(refused.value).partition("where you made it: ")[2]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        exec(advice, {})
    agree(read_foreign(tmp_path).dictionary, load_file(source / EXPECTED))


def test_a_scale_is_given_where_the_files_have_none(tmp_path: Path) -> None:
    source = RECORDED / "sae_lens" / "scaled"
    for name in ("cfg.json", "sae_weights.safetensors"):
        shutil.copy(source / name, tmp_path)
    agree(read_foreign(tmp_path, scale=0.25).dictionary, load_file(source / EXPECTED))
    with pytest.raises(UsageError, match=r"scale is 0\.5, but the files say 0\.25"):
        read_foreign(source, scale=0.5)


def test_the_command_writes_provenance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = RECORDED / "sae_lens" / "jumprelu", tmp_path / "dictionary"
    for _ in range(2):  # the second time it is done
        main(["import", str(source), "--out", str(out), "--json"])
        told = json.loads(capsys.readouterr().out)
        assert told["format"] == "saelens"
        assert told["site"] == "layers.3.resid"
    made_from = Dictionary.load(out).manifest["made_from"]
    assert made_from["format"] == "saelens"
    assert set(made_from["files"]) == {"cfg.json", "sae_weights.safetensors"}
    with pytest.raises(SystemExit):
        main(["import", str(RECORDED / "sae_lens" / "gated"), "--out", str(out)])
    assert "another dictionary" in capsys.readouterr().err


def test_the_whole_way_from_foreign_files_to_an_atlas(
    small_run: Path, tiny_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, theirs = tmp_path / "run", tmp_path / "theirs"
    for part in ("corpus", "activations", "activations-held-out"):
        shutil.copytree(small_run / part, run / part)
    ours = Dictionary.load(small_run / "dictionary")
    folded = ours.fold()
    theirs.mkdir()
    weights = {"W_enc": folded.W_enc.T.contiguous(), "W_dec": folded.W_dec}
    save_file({**weights, "b_enc": folded.b_enc, "b_dec": folded.b_dec}, theirs / WEIGHTS)
    config = {"d_in": ours.config.width, "d_sae": ours.config.features, "architecture": "topk"}
    config |= {"k": ours.config.to_json()["nonlinearity"]["k"], "apply_b_dec_to_input": False}
    (theirs / "cfg.json").write_text(json.dumps({**config, "metadata": {}}))
    model, site = str(tiny_directory), ours.site
    main(
        ["import", str(theirs), "--model", model, "--site", site, "--out", str(run / "dictionary")]
    )
    capsys.readouterr()
    reports = []
    for path in (run, small_run):
        main(["evaluate", str(path), "--json"])
        reports.append(json.loads(capsys.readouterr().out))
    assert reports[0]["l0"] == reports[1]["l0"]
    for figure in ("fvu", "kl"):
        assert reports[0][figure] == pytest.approx(reports[1][figure], rel=1e-4)
    main(["describe", str(run), "--json"])
    assert json.loads(capsys.readouterr().out)["features"] == ours.config.features


def test_a_site_of_another_width_is_refused(
    tiny_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = str(RECORDED / "sae_lens" / "standard")
    words = ["--site", "layers.1.resid", "--model", str(tiny_directory), "--out", str(tmp_path)]
    with pytest.raises(SystemExit):
        main(["import", source, *words])
    assert "has width 32, but the dictionary has 8" in capsys.readouterr().err
