"""Checkpoints: everything that decides the next step, the last two, verified on load."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor

from sememe.artefacts import checksum, read_json, refuse_other, write_bytes, write_json
from sememe.errors import SememeError

KEPT = 2


def save_checkpoint(
    directory: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]
) -> None:
    """Write the checkpoint after ``step`` steps, its json last, and remove all but the last two."""
    weights = directory / f"checkpoint-{step:08}.safetensors"
    write_bytes(weights, save(dict(tensors)))
    write_json(weights.with_suffix(".json"), {**state, "step": step, "checksum": checksum(weights)})
    for old in _listed(directory)[:-KEPT]:
        _remove(old)


def load_checkpoint(
    directory: Path, wanted: Mapping[str, object]
) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return tensors and state of the newest whole checkpoint, None if there is none.

    A checkpoint whose file does not match its checksum is passed over for the one before. Raises
    SememeError when it was begun with another ``wanted`` (arguments and inputs), naming the values.
    """
    listed = _listed(directory)
    for path in reversed(listed):
        state = read_json(path)
        refuse_other(directory, wanted, state["run"])
        weights = path.with_suffix(".safetensors")
        if weights.exists() and checksum(weights) == state["checksum"]:
            return load_file(weights), state
    if listed:
        raise SememeError(
            f"no checkpoint in {directory} matches its checksum ({listed[-1].stem} was altered or "
            "truncated): delete the directory and train again"
        )
    return None


def remove_checkpoints(directory: Path) -> None:
    """Remove every checkpoint, whole or not."""
    for path in _listed(directory):
        _remove(path)
    for stray in directory.glob("checkpoint-*.safetensors"):
        stray.unlink(missing_ok=True)


def _listed(directory: Path) -> list[Path]:
    return sorted(directory.glob("checkpoint-*.json"))


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.with_suffix(".safetensors").unlink(missing_ok=True)
