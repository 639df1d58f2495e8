import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sememe.artefacts import cache_folder
from sememe.errors import SememeError, UsageError
from sememe.models.checksums import cached_checksum
from sememe.models.load import load_model, model_hash
from sememe.models.reading import read
from tests.models.tiny_families import FAMILIES
from tests.tiny import tiny_tokenizer


@pytest.fixture(autouse=True)
def own_checksums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMEME_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def copied(tiny_directory: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_directory, tmp_path / "model"))


def test_a_directory_gives_its_own_weights(tiny_directory: Path) -> None:
    model = load_model(str(tiny_directory), dtype="fp32")
    saved = load_file(tiny_directory / "model.safetensors")
    own = model.module.state_dict()
    assert set(saved) <= set(own)
    assert all(torch.equal(own[name], tensor) for name, tensor in saved.items())
    assert (model.dtype, model.context, model.vocabulary) == ("fp32", 128, 512)
    assert not model.module.training
    assert not any(parameter.requires_grad for parameter in model.module.parameters())
    assert len(model.tokenizer.bytes_of) == 512


def test_bf16_computes_in_bf16(tiny_directory: Path) -> None:
    model = load_model(str(tiny_directory), dtype="bf16")
    ids = torch.tensor([[1, 2, 3]])
    half = read(model, ids, ["layers.1.resid"])["layers.1.resid"]
    assert (model.dtype, half.dtype) == ("bf16", torch.bfloat16)
    full = load_model(str(tiny_directory), dtype="fp32")
    torch.testing.assert_close(
        half.float(), read(full, ids, ["layers.1.resid"])["layers.1.resid"], rtol=0.1, atol=0.2
    )
    assert half.float().ne(read(full, ids, ["layers.1.resid"])["layers.1.resid"]).any()
    assert model.hash == full.hash


def test_auto_is_bf16_only_where_that_is_faster(
    tiny_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    for supported, expected in ((False, "fp32"), (True, "bf16")):
        monkeypatch.setattr(
            torch.cpu, "_is_avx512_bf16_supported", lambda supported=supported: supported
        )
        assert load_model(str(tiny_directory), device="cpu").dtype == expected


def test_the_hash_is_of_weights_and_configuration(copied: Path, tiny_directory: Path) -> None:
    first = model_hash(copied)
    assert first == model_hash(tiny_directory)
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**config, "transformers_version": "0"}))
    assert model_hash(copied) == first
    (copied / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    assert model_hash(copied) != first
    (copied / "config.json").write_text(json.dumps(config))
    weights = bytearray((copied / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copied / "model.safetensors").write_bytes(bytes(weights))
    assert model_hash(copied) != first


def test_checksums_are_kept_until_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    first = cached_checksum(path)
    table = cache_folder() / "checksums.json"
    kept = json.loads(table.read_text())
    assert kept[str(path)]["xxh3"] == first
    kept[str(path)]["xxh3"] = "from the table"
    table.write_text(json.dumps(kept))
    assert cached_checksum(path) == "from the table"
    path.write_bytes(b"three")
    assert cached_checksum(path) not in (first, "from the table")
    table.write_text("not JSON")
    assert cached_checksum(path) == cached_checksum(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smollm2", "unknown model 'smollm2': did you mean smollm2-135m?"),
        ("Gemma3-270M", "did you mean gemma3-270m?"),
        ("zzz", "unknown model 'zzz': Packaged models are smollm2-135m, gemma3-270m"),
        ("/no/such/directory", "unknown model '/no/such/directory'"),
        ("", "unknown model ''"),
    ],
)
def test_an_unknown_name_says_what_there_is(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("?", r"\?")):
        load_model(name)


def test_terms_come_before_anything_is_fetched() -> None:
    with pytest.raises(UsageError) as caught:
        load_model("gemma3-270m")
    for part in ("Gemma Terms of Use", "https://ai.google.dev/gemma/terms", "--accept-terms"):
        assert part in str(caught.value)
    assert not cache_folder().exists()


def test_a_directory_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no config\.json"):
        load_model(str(tmp_path))


def test_pickled_weights_are_refused(copied: Path) -> None:
    (copied / "model.safetensors").unlink()
    (copied / "pytorch_model.bin").write_bytes(b"cos\nsystem\n")
    with pytest.raises(SememeError, match=r"only pytorch_model\.bin, which can run code"):
        load_model(str(copied))


def test_code_that_comes_with_a_model_is_not_run(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    config["model_type"] = "own-type"
    config["auto_map"] = {
        "AutoConfig": "own.OwnConfig",
        "AutoModelForCausalLM": "own.OwnModel",
    }
    (copied / "config.json").write_text(json.dumps(config))
    (copied / "own.py").write_text(f"open({str(copied / 'ran')!r}, 'w').close()\n")
    with pytest.raises(SememeError, match="transformers cannot load"):
        load_model(str(copied))
    assert not (copied / "ran").exists()


def test_damaged_and_incomplete_weights(copied: Path) -> None:
    whole = (copied / "model.safetensors").read_bytes()
    (copied / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SememeError, match="transformers cannot load"):
        load_model(str(copied))
    (copied / "model.safetensors").write_bytes(whole)
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 4}))
    with pytest.raises(SememeError, match=r"lacks weights .*model\.layers\.3"):
        load_model(str(copied))


def test_a_model_without_a_tokenizer(copied: Path) -> None:
    (copied / "tokenizer.json").unlink()
    with pytest.raises(SememeError, match=r"has no tokenizer\.json"):
        load_model(str(copied))


def test_no_hub_gives_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a process of its own, with the hub at an address where nobody listens."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    code = "from sememe.models.load import load_model; load_model('nobody/nothing')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("sememe.errors.SememeError: cannot fetch 'nobody/nothing'")
    assert "smollm2-135m and gemma3-270m come without the hub" in last


@pytest.mark.parametrize("name", list(FAMILIES))
def test_every_family_loads_from_its_directory(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    tiny_tokenizer(path)
    module = FAMILIES[name]().eval()
    module.save_pretrained(str(path))
    model = load_model(str(path), dtype="fp32", device="cpu")
    ids = torch.tensor([[1, 5, 9, 2]])
    with torch.no_grad():
        assert torch.equal(model.logits(ids), module(input_ids=ids).logits)
