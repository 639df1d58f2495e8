"""Evaluate a dictionary on held-out documents: how well it rebuilds, and what the model loses."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sememe.activations.batches import WindowBatch, window_batches
from sememe.activations.rules import TokenRules
from sememe.activations.store import Activations
from sememe.artefacts import fingerprint, read_json, refuse_unfit, write_json
from sememe.corpora.corpus import Corpus, Windows
from sememe.dictionaries.dictionary import Dictionary
from sememe.errors import SememeError
from sememe.evaluation.metrics import Moments, cross_entropy, kl_divergence, loss_recovered
from sememe.models.language_model import LanguageModel
from sememe.models.reading import replaced
from sememe.progress import Progress

DENSE = 0.1
HISTOGRAM_DECADES = (-6.0, 0.0)
HISTOGRAM_BINS = 60

Report = dict[str, Any]


@dataclass(frozen=True)
class EvaluateConfig:
    """How much held-out text the model is run on with its activations replaced."""

    spliced_tokens: int = 8_192
    """Tokens for the cross-entropies, at most; four forward passes each."""
    spliced_share: float = 0.25
    """Share of the held-out tokens that this may be, so that a small job stays small."""
    batch_logits: int = 50_000_000
    """Logits of one of those passes, all in memory at once: tokens times vocabulary."""
    seed: int = 0
    """Of the choice of windows."""


def evaluate(
    model: LanguageModel,
    dictionary: Dictionary,
    held_out: Activations,
    corpus: Corpus,
    out: Path,
    *,
    config: EvaluateConfig | None = None,
    progress: Progress | None = None,
) -> Report:
    """Write and return the report of ``dictionary`` on held-out text.

    Tokens that the token rules leave out keep the model's own activation in every arm. The mean of
    the mean-ablated arm is that of the held-out rows. If ``out`` already holds the report of these
    inputs it is returned.

    Raises UsageError for a dictionary of another model, site or width, and SememeError for
    activations that are not of held-out documents.
    """
    config, progress = config or EvaluateConfig(), progress or Progress()
    site = dictionary.site
    dictionary.check_fits(model_hash=model.hash, site=site, width=held_out.width(site))
    refuse_unfit(
        str(held_out.path), {"corpus": (held_out.manifest["made_from"]["corpus"], corpus.hash)}
    )
    trained_on = dictionary.manifest["made_from"]
    # One that another package trained says nothing of its corpus.
    refuse_unfit("the dictionary", {"corpus": (trained_on.get("corpus", corpus.hash), corpus.hash)})
    if not held_out.manifest["config"]["held_out"]:
        raise SememeError(f"{held_out.path} holds training documents: evaluate on held-out ones")
    made_from = {
        "model": model.hash,
        "dictionary": dictionary.manifest["hash"],
        "activations": held_out.hash,
        "config": fingerprint(asdict(config)),
    }
    if out.exists() and (found := read_json(out)).get("made_from") == made_from:
        return dict(found)
    windows = corpus.windows(held_out.manifest["config"]["window"], held_out=True)
    chosen = choose_windows(windows, config)
    tokens = int(windows.length[chosen].sum())
    progress.start("evaluate", held_out.rows + 4 * tokens, "tokens")
    rebuilt, mean = _rebuild(dictionary, held_out, corpus, site, progress)
    spliced = _splice(
        model, dictionary, TokenRules.of(held_out), mean, corpus, windows, chosen, config, progress
    )
    report: Report = {
        "model": model.name,
        "site": site,
        "features": dictionary.config.features,
        **rebuilt,
        **spliced,
        "made_from": made_from,
    }
    write_json(out, report)
    progress.finish(f"FVU {_shown(report['fvu'])}, kl {_shown(report['kl'])} nats")
    return report


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def choose_windows(windows: Windows, config: EvaluateConfig) -> list[int]:
    """Return windows in a random order fixed by the seed, until there are enough tokens."""
    order = np.random.default_rng(config.seed).permutation(len(windows.start))
    wanted = min(config.spliced_tokens, config.spliced_share * windows.length.sum())
    enough = np.cumsum(windows.length[order]) >= wanted
    last = int(enough.argmax()) + 1 if enough.any() else len(order)
    return [int(number) for number in order[:last]]


@torch.no_grad()
def _rebuild(
    dictionary: Dictionary,
    held_out: Activations,
    corpus: Corpus,
    site: str,
    progress: Progress,
) -> tuple[Report, Float[Tensor, " width"]]:
    """Return reconstruction and sparsity figures, and the mean activation."""
    features = dictionary.config.features
    moments: Moments | None = None
    by_source: dict[int, Moments] = {}
    fired = torch.zeros(features, dtype=torch.int64)
    for rows in held_out.in_order(site):
        code = dictionary.encode(rows.values)
        guess = dictionary.decode(code)
        fired += torch.bincount(code.indices[code.values > 0].long(), minlength=features)
        batch = Moments.of(rows.values, guess)
        moments = batch if moments is None else moments.plus(batch)
        source = torch.from_numpy(corpus.source[rows.document.numpy()].astype(np.int64))
        for number in source.unique().tolist():
            mine = source == number
            part = Moments.of(rows.values[mine], guess[mine])
            by_source[number] = by_source[number].plus(part) if number in by_source else part
        progress.advance(len(rows.values))
    assert moments is not None
    frequency = fired.double() / held_out.rows
    log_frequency = frequency[fired > 0].log10()
    histogram = torch.histc(log_frequency, HISTOGRAM_BINS, *HISTOGRAM_DECADES)
    edges = torch.linspace(*HISTOGRAM_DECADES, HISTOGRAM_BINS + 1)
    return {
        "held_out_tokens": held_out.rows,
        "fvu": moments.fvu,
        "explained_variance": None if moments.fvu is None else 1 - moments.fvu,
        "cosine": moments.mean_cosine,
        "norm_ratio": moments.norm_ratio,
        "l0": float(fired.sum()) / held_out.rows,
        "silent_share": float((fired == 0).double().mean()),
        "dense_share": float((frequency > DENSE).double().mean()),
        "frequency_histogram": {
            "log10_edges": [round(edge, 4) for edge in edges.tolist()],
            "counts": [int(count) for count in histogram.tolist()],
        },
        "by_source": {
            corpus.sources[number]: {"tokens": int(part.rows), "fvu": part.fvu}
            for number, part in sorted(by_source.items())
        },
    }, (moments.total / moments.rows).float()


Replacement = Callable[[Float[Tensor, "tokens width"]], Float[Tensor, "tokens width"]]


@torch.no_grad()
def _splice(
    model: LanguageModel,
    dictionary: Dictionary,
    rules: TokenRules,
    mean: Float[Tensor, " width"],
    corpus: Corpus,
    windows: Windows,
    chosen: list[int],
    config: EvaluateConfig,
    progress: Progress,
) -> Report:
    """Return the cross-entropies with the site replaced, and what follows from them."""
    arms: dict[str, Replacement] = {
        "spliced": lambda x: dictionary(x.float()).to(x.dtype),
        "zero_ablated": torch.zeros_like,
        "mean_ablated": lambda x: mean.to(x.dtype).expand_as(x),
    }
    sums = dict.fromkeys(["original", *arms, "kl", "agreed"], 0.0)
    predicted = 0
    site = dictionary.site
    batch_tokens = max(1, config.batch_logits // model.vocabulary)
    for batch in window_batches(
        corpus, windows, chosen, batch_tokens=batch_tokens, bos=model.tokenizer.bos
    ):
        # a prediction stands at a place whose next place holds a token of the window
        asked = batch.valid[:, 1:]
        target = batch.ids[:, 1:][asked]
        original = model.logits(batch.ids)[:, :-1][asked]
        sums["original"] += float(cross_entropy(original, target).double().sum())
        for name, replacement in arms.items():
            change = _on_kept_tokens(replacement, batch, rules, site)
            with replaced(model, site, change):
                logits = model.logits(batch.ids)[:, :-1][asked]
            sums[name] += float(cross_entropy(logits, target).double().sum())
            if name == "spliced":
                sums["kl"] += float(kl_divergence(original, logits).double().sum())
                sums["agreed"] += float((original.argmax(-1) == logits.argmax(-1)).sum())
        predicted += len(target)
        progress.advance(4 * int(batch.valid.sum()))
    if not predicted:
        raise SememeError(f"{corpus.path} has no held-out window of two tokens: use more text")
    means = {name: total / predicted for name, total in sums.items()}
    entropies = {name: means[name] for name in ("original", *arms)}
    return {
        "spliced_tokens": predicted,
        "cross_entropy": entropies,
        "loss_recovered_zero": loss_recovered(
            means["original"], means["spliced"], means["zero_ablated"]
        ),
        "loss_recovered_mean": loss_recovered(
            means["original"], means["spliced"], means["mean_ablated"]
        ),
        "kl": means["kl"],
        "top1_agreement": means["agreed"],
    }


def _on_kept_tokens(
    replacement: Replacement, batch: WindowBatch, rules: TokenRules, site: str
) -> Callable[[Float[Tensor, "batch time width"]], Float[Tensor, "batch time width"]]:
    """Return ``replacement`` applied to the tokens that the rules keep, and to no others."""

    def change(
        activation: Float[Tensor, "batch time width"],
    ) -> Float[Tensor, "batch time width"]:
        rows = activation[batch.valid]
        keep = rules.keep(batch.ids[batch.valid], {site: rows})
        new = rows.clone()
        new[keep] = replacement(rows[keep])
        result = activation.clone()
        result[batch.valid] = new
        return result

    return change
