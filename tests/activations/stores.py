"""Write a store of given rows without a model."""

from pathlib import Path

import safetensors.torch
import torch

from sememe.activations.store import Activations
from sememe.artefacts import write_bytes, write_manifest

SITE = "layers.0.resid"


def make_store(
    path: Path,
    values: torch.Tensor,
    shard_rows: list[int],
    document: torch.Tensor | None = None,
) -> Activations:
    """Write rows cut into shards; without ``document`` each ten rows are one."""
    shards, start = [], 0
    for number, rows in enumerate(shard_rows):
        part = values[start : start + rows]
        place = torch.arange(start, start + rows)
        name = f"shard-{number:05d}.safetensors"
        tensors = {
            SITE: part.contiguous(),
            "token": place.int() % 7,
            "document": (place // 10).int() if document is None else document[place],
            "position": (place % 10).int(),
            "place": place.clone(),
        }
        write_bytes(path / name, safetensors.torch.save(tensors))
        shards.append({"file": name, "rows": rows})
        start += rows
    scale = float((values.shape[1] / values.double().square().sum(1).mean()) ** 0.5)
    write_manifest(
        path,
        "activations",
        config={},
        made_from={},
        files=[shard["file"] for shard in shards],
        rows=start,
        shards=shards,
        sites={SITE: {"width": values.shape[1], "scale": scale}},
        rules={"special": [], "norm_limits": {SITE: 1e9}, "dtype": "fp32"},
    )
    return Activations.open(path)
