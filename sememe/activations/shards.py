"""Write a store: what a shard's header says of it, and the manifest that adds the headers up."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open

from sememe.activations.quantised import dequantise, quantise, scale_name
from sememe.activations.rules import DTYPES, TokenRules, row_norms
from sememe.activations.shard_file import object_header
from sememe.activations.store import Activations
from sememe.artefacts import write_manifest
from sememe.errors import SememeError
from sememe.objects import ObjectPath, Place


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f"shard-{number:05d}.safetensors"


def shard_bytes(tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> bytes:
    """Return a shard as safetensors bytes.

    ``facts`` go into its header: ``rows``, what a :class:`Column` adds up of each site, how many
    rows were ``left_out`` by reason, and what else its writer wants to find again.
    """
    # one key: safetensors writes several in random order, and bytes must not depend on chance
    return safetensors.torch.save(dict(tensors), {"sememe": json.dumps(facts)})


def shard_facts(path: Place) -> dict[str, Any]:
    """Return what the header of a shard says; SememeError if it cannot be read."""
    if isinstance(path, ObjectPath):
        header, _ = object_header(path)
        return dict(json.loads(header["__metadata__"]["sememe"]))
    try:
        with safe_open(path, framework="pt") as shard:
            return dict(json.loads(shard.metadata()["sememe"]))
    except SafetensorError as error:
        raise SememeError(
            f"{path} is damaged ({error}): delete it and run the same command again"
        ) from error


class Column:
    """A site's rows on their way into one shard: as they are stored, and what is added up of them.

    Attributes:
        square: Sum of squares of what is stored.
        lost: Of int8 what :func:`site_facts` tells its error from: sums over rows of the squared
            error, of the error relative to the row's norm and of each number, the largest relative
            error, and the sum of squares of what was given.
    """

    def __init__(self, site: str, dtype: str) -> None:
        self.site, self.dtype = site, dtype
        self.square = 0.0
        self.lost: dict[str, Any] = {}

    def room(self, rows: int, width: int) -> dict[str, torch.Tensor]:
        """Return the tensors that take the stored rows, by their names in the shard."""
        values = torch.empty(rows, width, dtype=DTYPES[self.dtype])
        return {self.site: values} | (
            {scale_name(self.site): torch.empty(rows)} if self.dtype == "int8" else {}
        )

    def stored(
        self, activation: Float[torch.Tensor, "rows width"], norms: Float[torch.Tensor, " rows"]
    ) -> dict[str, torch.Tensor]:
        """Return rows as they are stored, given their norms; SememeError as `checked_square`."""
        dtype = DTYPES[self.dtype]
        square = checked_square(activation, norms, dtype, self.site)
        if dtype != torch.int8:
            self.square += square
            return {self.site: activation.to(dtype)}
        rows, scale = quantise(activation)
        given = activation.float()
        kept = dequantise(rows, scale)
        errors = row_norms(kept - given)
        total = given.sum(dim=0, dtype=torch.float64)
        relative = errors / norms.clamp_min(torch.finfo(torch.float32).tiny)
        self.square += float(row_norms(kept).double().square().sum())
        before = self.lost or {
            **dict.fromkeys(("error", "relative", "largest", "given"), 0.0),
            "sum": 0,
        }
        self.lost = {
            "error": before["error"] + float(errors.double().square().sum()),
            "relative": before["relative"] + float(relative.double().sum()),
            "largest": max([before["largest"], *relative.tolist()]),
            "given": before["given"] + square,
            "sum": (total + torch.tensor(before["sum"], dtype=torch.float64)).tolist(),
        }
        return {self.site: rows, scale_name(self.site): scale}


def column_facts(columns: Sequence[Column]) -> dict[str, Any]:
    """Return what the header of a shard says of its sites."""
    lost = {column.site: column.lost for column in columns if column.lost}
    squares = {column.site: column.square for column in columns}
    return {"squares": squares, **({"lost": lost} if lost else {})}


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
    limit = torch.finfo(dtype if dtype.is_floating_point else torch.float32).max
    if len(norms) and float(norms.max()) > limit and float(activation.abs().max()) > limit:
        raise SememeError(
            f"an activation of {float(activation.abs().max()):g} at {site} is too large for "
            f"{dtype}: store with --dtype bf16 or fp32"
        )
    return square


def finish_store(
    out: Place,
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
    headers = [shard_facts(out / name) for name in names]
    left_out: Counter[str] = Counter()
    for header in headers:
        left_out.update(header["left_out"])
    rows = sum(header["rows"] for header in headers)
    if not rows:
        raise SememeError("no tokens are left after the token rules; use other text")
    write_manifest(
        out,
        "activations",
        config=config,
        made_from=made_from,
        files=names,
        rows=rows,
        left_out=dict(left_out),
        shards=[
            {"file": name, "rows": header["rows"]}
            for name, header in zip(names, headers, strict=True)
        ],
        sites=site_facts(headers, widths, rules),
        rules=rules._asdict(),
    )
    return Activations.open(out, verify=False)


def site_facts(
    headers: Sequence[Mapping[str, Any]], widths: Mapping[str, int], rules: TokenRules
) -> dict[str, Any]:
    """Return what the manifest says of each site, from the headers of all shards.

    SememeError where there are only zeros at a site.
    """
    rows = sum(header["rows"] for header in headers)
    facts: dict[str, dict[str, Any]] = {}
    for site, width in widths.items():
        mean_square = sum(header["squares"][site] for header in headers) / rows
        if mean_square == 0.0:
            raise SememeError(f"every activation at {site} is zero: nothing can be learned there")
        facts[site] = {
            "width": width,
            "scale": float((width / mean_square) ** 0.5),
            "norm_limit": rules.norm_limits.get(site),
        }
        if rules.dtype == "int8":
            facts[site]["quantisation"] = _quantisation([h["lost"][site] for h in headers], rows)
    return facts


def _quantisation(lost: Sequence[Mapping[str, Any]], rows: int) -> dict[str, float]:
    """Return how far int8 is from what it was made from.

    ``fvu`` is the share of variance lost; ``error`` and ``largest_error`` are the mean and the
    largest over rows of the error's norm as a share of the row's.
    """
    error, relative, given = (sum(p[name] for p in lost) for name in ("error", "relative", "given"))
    total = np.sum([part["sum"] for part in lost], axis=0)
    variance = given - float(total @ total) / rows
    return {
        "fvu": error / variance if variance > 0 else 0.0,
        "error": relative / rows,
        "largest_error": max(part["largest"] for part in lost),
    }
