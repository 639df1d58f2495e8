"""What describing every feature costs, beside encoding the same tokens.

Activations are made up: sums of a few rows of the dictionary, which come as unequally often as
those of real text, in documents of random tokens; or those of a run (``--run``), with its own
dictionary. Plain encoding is what nothing that describes a dictionary can do without. Seconds are
of all threads' CPU time, so that other work on the machine counts little. ``ratio_encode`` leaves
the map out, which grows with the features alone and has its own figure. Run it as
``python -m benchmarks.describe``.
"""

import os
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin would count as work

import numpy as np
import safetensors.torch
import torch

from benchmarks import command
from sememe.activations.store import Activations
from sememe.artefacts import write_bytes, write_manifest
from sememe.atlas.describe import describe
from sememe.atlas.layout import lay_out
from sememe.atlas.store import Atlas
from sememe.atlas.weights import neighbours
from sememe.corpora.corpus import Corpus
from sememe.dictionaries import TopK
from sememe.dictionaries.config import DictionaryConfig
from sememe.dictionaries.dictionary import Dictionary
from sememe.job import middle_site, open_run
from sememe.kernels import Code, decode
from sememe.models.language_model import LanguageModel
from sememe.models.load import load_model
from sememe.probe import RandomCorpus

WINDOW = 256
SHARD_ROWS = 65_536
NOISE = 0.3
TAIL = 0.7
"""Exponent of how often the n-th most frequent direction comes: n to the minus this."""


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    run: Path | None = None
    """What `sememe map` made; by default activations are made up."""
    model: str = "smollm2-135m"
    """Whose width, vocabulary and unembedding made-up activations have."""
    features: int = 9_216
    """Features of a made-up dictionary."""
    k: int = 32
    """Features on one token of it."""
    tokens: int = 1_000_000
    """Tokens of made-up activations."""
    json: bool = False
    """Print one JSON object."""


class Parts(NamedTuple):
    """What is described."""

    model: LanguageModel
    dictionary: Dictionary
    stored: Activations
    corpus: Corpus


def made_up(settings: Settings, folder: Path) -> Parts:
    """Write a store of made-up activations and return it with a dictionary of their directions."""
    model = load_model(settings.model)
    site = middle_site(model)
    width, features, k = model.width(site), settings.features, settings.k
    corpus = RandomCorpus(model, settings.tokens, 0, WINDOW)
    torch.manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(features, width), dim=1)
    chance = np.arange(1, features + 1) ** -TAIL
    ends = np.cumsum(chance / chance.sum())
    draw = np.random.default_rng(0)
    windows = corpus.windows(WINDOW, held_out=False)
    place = torch.arange(int(windows.length.sum()))
    starts = torch.from_numpy(np.repeat(windows.start, windows.length))
    document = torch.from_numpy(np.repeat(windows.document, windows.length)).int()
    shards, squares = [], 0.0
    for first in range(0, len(place), SHARD_ROWS):
        rows = slice(first, min(first + SHARD_ROWS, len(place)))
        count = rows.stop - first
        indices = np.searchsorted(ends, draw.random((count, k))).clip(max=features - 1)
        values = draw.exponential(size=(count, k)).astype(np.float32)
        code = Code(torch.from_numpy(indices.astype(np.int32)), torch.from_numpy(values))
        x = decode(code, directions) + NOISE / width**0.5 * torch.randn(count, width)
        squares += float(x.square().sum())
        tensors = {
            site: x.half(),
            "token": torch.from_numpy(corpus.tokens(first, rows.stop).astype(np.int32)),
            "document": document[rows].clone(),
            "position": (place - starts)[rows].int(),
            "place": place[rows].clone(),
        }
        name = f"shard-{len(shards):05d}.safetensors"
        write_bytes(folder / name, safetensors.torch.save(tensors))
        shards.append({"file": name, "rows": count})
    scale = (width * len(place) / squares) ** 0.5
    write_manifest(
        folder,
        "activations",
        config={"window": WINDOW, "held_out": False},
        made_from={"corpus": corpus.hash, "model": model.hash},
        files=[shard["file"] for shard in shards],
        rows=len(place),
        shards=shards,
        sites={site: {"width": width, "scale": scale}},
        rules={"special": [], "norm_limits": {site: 1e9}, "dtype": "fp16"},
    )
    config = DictionaryConfig((site,), (site,), (width,), (width,), features, TopK(k))
    dictionary = Dictionary(config, [scale], [scale])
    with torch.no_grad():
        dictionary.W_enc.copy_(directions)
        dictionary.W_dec.copy_(directions)
    dictionary.save(folder / "dictionary", made_from={"model": model.hash})
    return Parts(model, dictionary, Activations.open(folder, verify=False), corpus)


class Taken(NamedTuple):
    """What some work took."""

    cpu: float
    wall: float


def seconds(work: Callable[[], object]) -> Taken:
    """Return the seconds that ``work`` takes."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return Taken(time.process_time() - cpu, time.perf_counter() - wall)


@torch.no_grad()
def measure(settings: Settings) -> dict[str, float]:
    """Encode, describe, and draw the map once more; return the figures."""
    with tempfile.TemporaryDirectory() as folder:
        if settings.run is not None:
            run, dictionary, stored, _, corpus = open_run(settings.run)
            parts = Parts(run.load_model(), dictionary, stored, corpus)
        else:
            parts = made_up(settings, Path(folder) / "store")

        def encode() -> None:
            for rows in parts.stored.in_order(parts.dictionary.site):
                parts.dictionary.encode(rows.values)

        encoding = seconds(encode)
        out = Path(folder) / "atlas"
        describing = seconds(lambda: describe(*parts, out))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        atlas = Atlas.open(out)
        decoder = torch.nn.functional.normalize(parts.dictionary.W_dec.detach(), dim=1)
        fires = atlas.columns["frequency"] > 0
        near = neighbours(decoder)
        drawing = seconds(lambda: lay_out(decoder, near, fires))
        size = sum(path.stat().st_size for path in out.iterdir())
    features, rows = atlas.features, parts.stored.rows
    return {
        "features": features,
        "tokens": rows,
        "features_per_minute": 60 * features / describing.wall,
        "features_per_cpu_minute": 60 * features / describing.cpu,
        "tokens_per_second": rows / describing.wall,
        "ratio_encode": (describing.cpu - drawing.cpu) / encoding.cpu,
        "ratio_encode_wall": (describing.wall - drawing.wall) / encoding.wall,
        "ratio_encode_with_map": describing.cpu / encoding.cpu,
        "encode_cpu_seconds": encoding.cpu,
        "describe_cpu_seconds": describing.cpu,
        "map_cpu_seconds": drawing.cpu,
        "describe_seconds": describing.wall,
        "peak_mb": peak,
        "bytes_a_feature": size / features,
    }


if __name__ == "__main__":
    command.run(Settings, measure, __doc__)
