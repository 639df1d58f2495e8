"""Write a store: what a shard's header says of it, and the manifest that adds the headers up."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open

from sememe.activations.rules import TokenRules
from sememe.activations.store import Activations
from sememe.artefacts import write_manifest
from sememe.errors import SememeError


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f"shard-{number:05d}.safetensors"


def shard_bytes(tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> bytes:
    """Return a shard as safetensors bytes.

    ``facts`` go into its header: ``rows``, the sum of ``squares`` of each site, how many rows were
    ``left_out`` by reason, and what else its writer wants to find again.
    """
    # one key: safetensors writes several in random order, and bytes must not depend on chance
    return safetensors.torch.save(dict(tensors), {"sememe": json.dumps(facts)})


def shard_facts(path: Path) -> dict[str, Any]:
    """Return what the header of a shard says; SememeError if it cannot be read."""
    try:
        with safe_open(path, framework="pt") as shard:
            return dict(json.loads(shard.metadata()["sememe"]))
    except SafetensorError as error:
        raise SememeError(
            f"{path} is damaged ({error}): delete it and run the same command again"
        ) from error


def checked_square(
    activation: Float[torch.Tensor, "rows width"],
    norms: Float[torch.Tensor, " rows"],
    dtype: torch.dtype,
    site: str,
) -> float:
    """Return the sum of squares of activations, given their rows' norms.

    SememeError unless they are finite, in the ``dtype`` of the store too.
    """
    square = float(norms.double().square().sum())
    if not np.isfinite(square):
        square = float(activation.double().square().sum())
    if not np.isfinite(square):
        raise SememeError(
            f"the model computes NaN or infinity at {site}: try --model-dtype fp32, or leave out "
            "the text that causes it"
        )
    limit = torch.finfo(dtype).max
    if len(norms) and float(norms.max()) > limit and float(activation.abs().max()) > limit:
        raise SememeError(
            f"an activation of {float(activation.abs().max()):g} at {site} is too large for "
            f"{dtype}: store with --dtype bf16 or fp32"
        )
    return square


def finish_store(
    out: Path,
    names: Sequence[str],
    widths: Mapping[str, int],
    *,
    config: Mapping[str, object],
    made_from: Mapping[str, object],
    rules: TokenRules,
) -> Activations:
    """Add up the headers of the shards ``names`` and write the manifest.

    ``widths`` are those of the sites. SememeError when there are no rows, or only zeros at a site.
    """
    shards: list[dict[str, Any]] = []
    squares = dict.fromkeys(widths, 0.0)
    left_out: Counter[str] = Counter()
    for name in names:
        header = shard_facts(out / name)
        shards.append({"file": name, "rows": header["rows"]})
        for site in widths:
            squares[site] += header["squares"][site]
        for reason, count in header["left_out"].items():
            left_out[reason] += count
    rows = sum(shard["rows"] for shard in shards)
    if not rows:
        raise SememeError("no tokens are left after the token rules; use other text")
    facts = {}
    for site, width in widths.items():
        mean_square = squares[site] / rows
        if mean_square == 0.0:
            raise SememeError(f"every activation at {site} is zero: nothing can be learned there")
        facts[site] = {
            "width": width,
            "scale": float((width / mean_square) ** 0.5),
            "norm_limit": rules.norm_limits.get(site),
        }
    write_manifest(
        out,
        "activations",
        config=config,
        made_from=made_from,
        files=names,
        rows=rows,
        left_out=dict(left_out),
        shards=shards,
        sites=facts,
        rules=rules._asdict(),
    )
    return Activations.open(out, verify=False)
