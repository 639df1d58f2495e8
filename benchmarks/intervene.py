"""What interventions cost, and how well cheap attributions agree with true ablation.

``identity_exact``: whether a model whose features are all multiplied by one gives the same logits,
bit for bit, in its own number type, in fp32 and while it generates with a cache.
``attribution_seconds``: reading a text in fp32 and attributing to all its active features by one
backward pass; ``attribution_cpu_seconds`` are of all threads, which other work on the machine moves
less. ``attribution_correlation``: Pearson correlation of that with ablating features one by one
(Scaling Monosemanticity, 2024, has .81 for attribution and .12 for activation). ``steer_ratio``:
the least seconds a new token with a feature clamped, by those without, by turns.
``monitor_overhead``: the share that watching 16 features adds to them. Both are also given in CPU
seconds of all threads.

With ``--run`` on a run's dictionary and its held-out text; otherwise features are random directions
and the texts random tokens, whose correlations say nothing of real features. Run it as
``python -m benchmarks.intervene``.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin would count as work

import numpy as np
import torch

from benchmarks import command
from sememe.corpora.corpus import Corpus
from sememe.dictionaries import TopK
from sememe.dictionaries.config import DictionaryConfig
from sememe.dictionaries.dictionary import Dictionary
from sememe.errors import UsageError
from sememe.intervention.agreement import agreement, held_out_texts, likeliest_two
from sememe.intervention.attribution import attribute, look
from sememe.intervention.features import FeatureSet
from sememe.intervention.intervene import intervene
from sememe.intervention.monitor import Monitor, Watch
from sememe.job import middle_site
from sememe.models.generation import generate
from sememe.models.language_model import LanguageModel
from sememe.models.load import load_model
from sememe.run import Run

WATCHED = 16
"""Features that the monitor watches."""
PUBLISHED = {"attribution": 0.81, "activation": 0.12}
"""Correlations with ablation in Scaling Monosemanticity (2024)."""


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    run: Path | None = None
    """What `sememe map` made; by default features are random directions."""
    model: str = "smollm2-135m"
    """Model of those."""
    features: int = 9_216
    """How many of those."""
    k: int = 32
    """Features on one token of those."""
    tokens: int = 128
    """Tokens of the text that is attributed, and generated."""
    texts: int = 20
    """Texts for the correlations."""
    length: int = 64
    """Tokens of each."""
    per_text: int = 64
    """Features ablated in each."""
    rounds: int = 5
    """Times that seconds are taken: medians count, and the least where two are compared."""
    json: bool = False
    """Print one JSON object."""


def opened(settings: Settings) -> tuple[LanguageModel, FeatureSet, list[list[int]]]:
    """Return the model, the features, and the texts, one of them of ``tokens`` tokens first."""
    if settings.run is not None:
        model = Run(settings.run).load_model()
        corpus, bos = Corpus.open(settings.run / "corpus"), model.tokenizer.bos
        (long,) = held_out_texts(corpus, bos, 1, settings.tokens, seed=1)
        texts = held_out_texts(corpus, bos, settings.texts, settings.length)
        return model, FeatureSet.open(settings.run), [long, *texts]
    model = load_model(settings.model)
    site = middle_site(model)
    width = model.width(site)
    draw = np.random.default_rng(0)
    lengths = [settings.tokens, *[settings.length] * settings.texts]
    texts = [draw.integers(100, model.vocabulary, length).tolist() for length in lengths]
    config = DictionaryConfig(
        (site,), (site,), (width,), (width,), settings.features, TopK(settings.k)
    )
    dictionary = Dictionary(config)
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(settings.features, width, generator=generator)
    with torch.no_grad():
        dictionary.W_enc.copy_(torch.nn.functional.normalize(directions, dim=1))
        dictionary.W_dec.copy_(dictionary.W_enc)
    return model, FeatureSet(dictionary), texts


class Taken(NamedTuple):
    """What some work took, in seconds."""

    wall: float
    cpu: float
    """Of all threads."""


def taken(work: Callable[[], object], rounds: int) -> Taken:
    """Return the medians of what ``work`` takes."""
    every = []
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        every.append((time.perf_counter() - wall, time.process_time() - cpu))
    return Taken(*(median(part) for part in zip(*every, strict=True)))


def a_token(model: LanguageModel, prompt: list[int], tokens: int) -> Taken:
    """Return what a new token takes; a text may end before there are as many as asked."""
    texts: list[list[list[int]]] = []
    whole = taken(lambda: texts.append(generate(model, [prompt], tokens=tokens)), 1)
    count = max(1, len(texts[0][0]))
    return Taken(whole.wall / count, whole.cpu / count)


def ratio(these: list[Taken], those: list[Taken], of: Literal["wall", "cpu"] = "wall") -> float:
    """Return the quotient of the least that two kinds of work took: other programs only add."""
    return min(getattr(each, of) for each in these) / min(getattr(each, of) for each in those)


def identity_exact(model: LanguageModel, features: FeatureSet, ids: list[int]) -> bool:
    """Return whether multiplying every feature by one changes no logit and no token."""
    ones = dict.fromkeys(range(features.dictionary.config.features), "scale:1")
    same = True
    for each in (model, model.exact()):
        row = torch.tensor([ids])
        plain, texts = each.logits(row), generate(each, [ids[:8]], tokens=8)
        with intervene(each, {features: ones}) as run:
            same &= torch.equal(each.logits(row), plain)
            same &= generate(each, [ids[:8]], tokens=8) == texts
            run.report()
    return same


def measure(settings: Settings) -> dict[str, Any]:
    """Return the figures."""
    if settings.rounds < 1:
        raise UsageError(f"rounds is {settings.rounds}; expected 1 or more")
    model, features, (long, *texts) = opened(settings)
    exact = model.exact()
    text = look(exact, features, long)
    figure = likeliest_two(text)
    attributed, direct = (
        taken(partial(attribute, exact, features, long, figure, way=way), settings.rounds)
        for way in ("gradient", "direct")
    )
    strongest = float(text.firings.value.max())
    clamp = {features: {int(text.firings.feature[-1]): 2 * strongest}}
    chosen = text.firings.feature.unique()[:WATCHED].tolist()
    watches = [Watch(features.reads, number, strongest / 4) for number in chosen]
    monitor = Monitor(watches, [features])
    plain, steered, watched = [], [], []
    for _ in range(settings.rounds):
        plain.append(a_token(model, long[:8], settings.tokens))
        with intervene(model, clamp):
            steered.append(a_token(model, long[:8], settings.tokens))
        with monitor.watching(model, lambda _: None):
            watched.append(a_token(model, long[:8], settings.tokens))
    agreed = agreement(exact, features, texts, per_text=settings.per_text)
    correlations = agreed.correlations()
    return {
        "identity_exact": identity_exact(model, features, long),
        "tokens": len(long),
        "active_features": len(text.firings.value),
        "attribution_seconds": attributed.wall,
        "attribution_cpu_seconds": attributed.cpu,
        "direct_seconds": direct.wall,
        "attribution_correlation": correlations["gradient"]["pearson"]["value"],
        "activation_correlation": correlations["activation"]["pearson"]["value"],
        "correlation_pairs": len(agreed.ablation),
        "correlations": {way: kinds["pearson"] for way, kinds in correlations.items()},
        "rank_correlations": {way: kinds["spearman"] for way, kinds in correlations.items()},
        "published": PUBLISHED,
        "steer_ratio": ratio(steered, plain),
        "steer_ratio_cpu": ratio(steered, plain, "cpu"),
        "monitor_overhead": ratio(watched, plain) - 1,
        "monitor_overhead_cpu": ratio(watched, plain, "cpu") - 1,
    }


if __name__ == "__main__":
    command.run(Settings, measure, __doc__)
