"""Load a language model by the name of a package, a local directory, or a hub id."""

import difflib
import re
from pathlib import Path
from typing import Literal

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from sememe.artefacts import fingerprint, read_json
from sememe.errors import SememeError, UsageError
from sememe.models.checksums import cached_checksum
from sememe.models.conversion import packaged_directory
from sememe.models.language_model import LanguageModel
from sememe.models.packaged import PACKAGED, require_terms
from sememe.models.quiet import quiet
from sememe.models.tokenizer import Tokenizer
from sememe.processor import fast_bf16
from sememe.progress import Progress

__all__ = ["LanguageModel", "load_model"]

_UNSTABLE = ("transformers_version", "_name_or_path", "dtype", "torch_dtype")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def load_model(
    name: str,
    *,
    dtype: Literal["auto", "fp32", "bf16"] = "auto",
    accept_terms: bool = False,
    progress: Progress | None = None,
    device: str = "cpu",
) -> LanguageModel:
    """Load model ``name``: a packaged one, a directory, or a hub id such as ``org/name``.

    ``auto`` computes in bf16 on a GPU and on processors that are made for it, otherwise in fp32.
    Code that comes with a model is never run, and weights are read from safetensors only.

    Raises UsageError for an unknown name and for terms not accepted, SememeError when the model
    cannot be fetched or read.
    """
    progress = progress or Progress()
    place = torch.device(device)
    if name in PACKAGED:
        require_terms(name, accepted=accept_terms)
        directory = packaged_directory(name, progress)
    else:
        directory = _directory(name, progress)
    module = _load(directory, _number_type(dtype, place))
    vocabulary = int(module.config.get_text_config().vocab_size)
    return LanguageModel(
        name
        if name in PACKAGED or not Path(name).expanduser().is_dir()
        else str(directory.resolve()),
        module.to(place),
        load_tokenizer(directory, vocabulary=vocabulary),
        hash=model_hash(directory),
    )


def load_tokenizer(directory: Path, *, vocabulary: int = 0) -> Tokenizer:
    """Return the tokenizer of a model directory; SememeError when it has none that is fast."""
    if (directory / "tokenizer.json").is_file():
        return Tokenizer.open(directory, vocabulary=vocabulary)
    try:
        with quiet():
            slow = AutoTokenizer.from_pretrained(
                str(directory), trust_remote_code=False, local_files_only=True
            )
        return Tokenizer(slow.backend_tokenizer, vocabulary=vocabulary)
    except (OSError, ValueError, AttributeError, ImportError) as error:
        raise SememeError(
            f"{directory} has no tokenizer.json, and none can be made from its other files "
            f"({_first_line(error)}): save the tokenizer beside the model"
        ) from None


def model_hash(directory: Path) -> str:
    """Return the xxh3 of a model directory's weights and configuration."""
    config = {
        key: value
        for key, value in read_json(directory / "config.json").items()
        if key not in _UNSTABLE
    }
    weights = {path.name: cached_checksum(path) for path in _weights(directory)}
    return fingerprint({"config": config, "weights": weights})


def _load(directory: Path, number: torch.dtype) -> PreTrainedModel:
    try:
        with quiet():
            module, told = AutoModelForCausalLM.from_pretrained(
                str(directory),
                dtype=number,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise SememeError(
            f"transformers cannot load {directory} as a causal language model: {_first_line(error)}"
        ) from error
    if lacking := sorted(told["missing_keys"]):
        raise SememeError(
            f"{directory} lacks weights that its config.json asks for, {lacking[0]} first of "
            f"{len(lacking)}: it is not a whole causal language model"
        )
    loaded: PreTrainedModel = module
    return loaded


def _directory(name: str, progress: Progress) -> Path:
    path = Path(name).expanduser()
    if name and path.is_dir():
        if not (path / "config.json").is_file():
            raise UsageError(f"model {name!r}: the directory has no config.json, so it is no model")
    elif _HUB_ID.fullmatch(name):
        path = _from_hub(name, progress)
    else:
        close = difflib.get_close_matches(name.lower(), PACKAGED, n=1, cutoff=0.5)
        raise UsageError(
            f"unknown model {name!r}: "
            + (f"did you mean {close[0]}? " if close else "")
            + f"Packaged models are {', '.join(PACKAGED)}; otherwise give a model directory, or a "
            "hub id such as org/name"
        )
    if not _weights(path):
        others = sorted(item.name for item in [*path.glob("*.bin"), *path.glob("*.pt*")])
        raise SememeError(
            f"model {name!r} has no .safetensors weights"
            + (
                f", only {', '.join(others[:3])}, which can run code when they are read: convert "
                "them with save_pretrained"
                if others
                else ""
            )
        )
    return path


def _from_hub(name: str, progress: Progress) -> Path:
    progress.say(f"looking up {name} on the model hub")
    try:
        with quiet():
            return Path(
                snapshot_download(
                    name,
                    allow_patterns=["*.safetensors", "*.json", "*.model", "*.txt"],
                    ignore_patterns=["*/*", "consolidated*"],
                )
            )
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise SememeError(
            f"cannot fetch {name!r} from the model hub ({_first_line(error)}): check the name, the "
            f"network and your access to it, or give a directory; {' and '.join(PACKAGED)} come "
            "without the hub"
        ) from None


def _weights(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.safetensors"))


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _number_type(dtype: str, device: torch.device) -> torch.dtype:
    if dtype == "auto":
        return torch.bfloat16 if device.type != "cpu" or fast_bf16() else torch.float32
    return torch.bfloat16 if dtype == "bf16" else torch.float32
