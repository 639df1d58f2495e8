"""How fast activations are read and stored, beside the bare forward pass of the same layers.

The bare pass is what nothing that reads the site can do without: the model cut off after the
site's layer, without its head, given the windows of a shard in the same batches, its output
dropped. CPU seconds count, by turns, so that other work on the machine meets all alike: writing
that hides behind computing is paid for all the same. A ratio is the median of the rounds'. The
pilot that fixes the token rules, once a job, is left out. Run it as
``python -m benchmarks.harvest``.
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin would count as work

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks import command
from sememe.activations.batches import window_batches
from sememe.activations.buffered import BufferedStream
from sememe.activations.harvest import harvest, shard_windows
from sememe.activations.rules import HarvestConfig
from sememe.corpora.build import build_corpus
from sememe.corpora.corpus import Corpus
from sememe.job import middle_site
from sememe.models.language_model import LanguageModel
from sememe.models.load import load_model
from sememe.models.sites import layout_of
from sememe.models.tokenizer import Tokenizer
from sememe.processor import fast_bf16

GPT2 = "gpt2-small-shape"
DOCUMENT = (60.0, 1.4)
"""Median and logarithmic spread of the lengths of made-up documents, like the default corpus's."""


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    model: str = "smollm2-135m"
    """A packaged model, a directory, a hub id, or gpt2-small-shape: that shape, random weights."""
    corpus: Path | None = None
    """A corpus made for the model; by default text is made up."""
    tokens: int = 40_000
    """Tokens of made-up text."""
    rounds: int = 3
    """Rounds measured."""
    json: bool = False
    """Print one JSON object."""


def the_model(name: str) -> LanguageModel:
    """Load a model, or make one of GPT-2-small's shape."""
    if name != GPT2:
        return load_model(name)
    tokenizer = load_model("smollm2-135m").tokenizer
    torch.manual_seed(0)
    dtype = torch.bfloat16 if fast_bf16() else torch.float32
    return LanguageModel(name, GPT2LMHeadModel(GPT2Config()).to(dtype), tokenizer, hash=name)


def made_up(path: Path, tokenizer: Tokenizer, tokens: int) -> Corpus:
    """Write a corpus of random tokens in documents of many lengths."""
    draw = np.random.default_rng(0)
    median, spread = DOCUMENT
    with (path / "text.jsonl").open("w") as file:
        held = 0
        while held < 2 * tokens:
            length = int(np.clip(median * np.exp(spread * draw.standard_normal()), 8, 2000))
            ids = draw.integers(200, 40_000, length).tolist()
            file.write(json.dumps({"text": tokenizer.decode(ids)}) + "\n")
            held += length
    source = [str(path / "text.jsonl")]
    return build_corpus(path / "corpus", tokenizer, tokens=tokens, sources=source, held_out=0.0)


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Return the CPU seconds and the wall seconds that ``work`` takes."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def measure(settings: Settings) -> dict[str, float | str]:
    """Take rounds by turns; return the figures."""
    model = the_model(settings.model)
    config, site = HarvestConfig(), middle_site(model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        corpus = (
            Corpus.open(settings.corpus)
            if settings.corpus
            else made_up(path, model.tokenizer, settings.tokens)
        )
        stream = BufferedStream(model, corpus, (site,), config)
        windows, rules = stream.windows, stream.rules
        shards = shard_windows(windows.length, config.shard_rows)
        batches = [
            batch.ids
            for shard in shards
            for batch in window_batches(
                corpus,
                windows,
                range(*shard),
                batch_tokens=config.batch_tokens,
                bos=model.tokenizer.bos,
            )
        ]

        def bare() -> None:
            layout = layout_of(model.module)
            assert layout is not None
            layers = model.module.get_submodule(layout.layers)
            last = int(site.split(".")[1]) + 1
            parent = model.module.get_submodule(layout.layers.rpartition(".")[0])
            setattr(parent, layout.layers.rpartition(".")[2], layers[:last])
            try:
                with torch.no_grad():
                    for ids in batches:
                        model.module.base_model(input_ids=ids, use_cache=False)
            finally:
                setattr(parent, layout.layers.rpartition(".")[2], layers)

        def streamed() -> None:
            for _ in stream.batches(min(2048, stream.rows), passes=1, seed=0):
                pass

        def stored(number: list[int]) -> None:
            number[0] += 1
            harvest(model, corpus, [site], path / f"store-{number[0]}", config=config, rules=rules)

        count = [0]
        ways = {"bare": bare, "stream": streamed, "store": lambda: stored(count)}
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        bare()
        for _ in range(settings.rounds):
            for name, way in ways.items():
                taken[name].append(seconds(way))
    tokens = int(windows.length.sum())

    def ratio(name: str, clock: int) -> float:
        pairs = zip(taken["bare"], taken[name], strict=True)
        return statistics.median(bare[clock] / ours[clock] for bare, ours in pairs)

    return {
        "model": settings.model,
        "dtype": model.dtype,
        "site": site,
        "tokens": tokens,
        "stream_ratio": ratio("stream", 0),
        "store_ratio": ratio("store", 0),
        "stream_ratio_wall": ratio("stream", 1),
        "store_ratio_wall": ratio("store", 1),
        "tokens_per_cpu_second": tokens / statistics.median(cpu for cpu, _ in taken["store"]),
        "tokens_per_second": tokens / statistics.median(wall for _, wall in taken["store"]),
        "bare_tokens_per_cpu_second": tokens / statistics.median(cpu for cpu, _ in taken["bare"]),
    }


if __name__ == "__main__":
    command.run(Settings, measure, __doc__)
