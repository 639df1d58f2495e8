"""SAEBench's own code beside sememe's, on one dictionary, the same text and the same labelled sets.

    python -m benchmarks.saebench --run runs/demo [--windows 12] [--sets NAME ...] [--json]

Needs sae-bench and sae-lens beside sememe's own dependencies. SAEBench's functions are called as
they are; they see the model and the dictionary through the few methods that they use. Both count
the same tokens: the first ``--length`` of held-out windows, special tokens left out. Figures whose
definitions are the same have a ``difference``; of others ``follows`` is what SAEBench's formula
makes of our sums.
"""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from benchmarks import command
from sememe.corpora.fetch import fetch
from sememe.corpora.labelled import labelled_set
from sememe.corpora.sources import SETS
from sememe.dictionaries.dictionary import Dictionary
from sememe.errors import SememeError, UsageError
from sememe.evaluation.arms import Arm
from sememe.evaluation.metrics import Moments, cross_entropy, kl_divergence
from sememe.evaluation.probing import (
    EFFORTS,
    KS,
    QUICK,
    by_difference,
    code_matrix,
    read_set,
    regression,
)
from sememe.job import open_run
from sememe.models.language_model import LanguageModel
from sememe.models.reading import read, replaced
from sememe.progress import Progress
from sememe.terminal import terminal_progress

# Axis names: batch = windows, time = their tokens, rows = tokens that count, vocab = token ids.


@dataclass(frozen=True)
class Settings:
    """What to compare on."""

    run: Path
    """What `sememe map` made."""
    windows: int = 12
    """Held-out windows."""
    length: int = 128
    """Their first tokens."""
    sets: tuple[str, ...] = QUICK
    """Labelled sets to probe, as `sememe evaluate --suite quick` reads them."""
    json: bool = False
    """Print one JSON object."""


class Peer:
    """A model and a dictionary as SAEBench wants them."""

    def __init__(self, model: LanguageModel, dictionary: Dictionary, ids: Tensor) -> None:
        self.model, self.dictionary, self.ids = model, dictionary, ids
        self.device = torch.device("cpu")
        self.cfg = SimpleNamespace(
            hook_name=dictionary.site,
            hook_head_index=None,
            hook_layer=0,  # asked where to stop; the whole model is run
            d_sae=dictionary.config.features,
        )

    def get_batch_tokens(self, _size: int) -> Int[Tensor, "batch time"]:
        return self.ids

    def run_with_cache(self, ids: Tensor, **_options: object) -> tuple[None, dict[str, Tensor]]:
        return None, read(self.model, ids, [self.cfg.hook_name])

    def __call__(self, ids: Tensor, **_options: object) -> tuple[Tensor, Tensor]:
        from transformer_lens.utilities import lm_cross_entropy_loss

        logits = self.model.logits(ids)
        return logits, lm_cross_entropy_loss(logits, ids, per_token=True)

    def run_with_hooks(
        self, ids: Tensor, fwd_hooks: list[Any], **_options: object
    ) -> tuple[Tensor, Tensor]:
        ((site, hook),) = fwd_hooks
        with replaced(self.model, site, lambda x: hook(x, hook=None)):
            return self(ids)

    def encode(self, x: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time features"]:
        code = self.dictionary.encode(x.flatten(0, 1))
        dense = torch.zeros(len(code.values), self.cfg.d_sae)
        return dense.scatter_add_(1, code.indices.long(), code.values).unflatten(0, x.shape[:2])

    def decode(self, f: Float[Tensor, "batch time features"]) -> Float[Tensor, "batch time width"]:
        scaled = f @ self.dictionary.W_dec + self.dictionary.b_dec
        return scaled / self.dictionary.write_scale


class Figures(NamedTuple):
    """A figure by both; ``follows`` where the definitions differ."""

    figure: str
    sememe: float | None
    saebench: float
    follows: float | None = None

    def to_json(self) -> dict[str, Any]:
        same = self.sememe if self.follows is None else self.follows
        assert same is not None
        difference = abs(same - self.saebench)
        return {**self._asdict(), "difference": difference}


@torch.no_grad()
def core(peer: Peer, special: int | None) -> list[Figures]:
    """Return the figures of SAEBench's core evaluation, and ours of the same tokens."""
    from sae_bench.evals.core.main import (
        get_downstream_reconstruction_metrics,
        get_sparsity_and_variance_metrics,
    )

    ignored = set() if special is None else {special}
    wanted = {"n_batches": 1, "eval_batch_size_prompts": len(peer.ids), "ignore_tokens": ignored}
    theirs, _ = get_sparsity_and_variance_metrics(
        peer,
        peer,
        peer,
        compute_l2_norms=True,
        compute_sparsity_metrics=True,
        compute_variance_metrics=True,
        compute_featurewise_density_statistics=False,
        model_kwargs={},
        **wanted,
    )
    theirs |= get_downstream_reconstruction_metrics(
        peer,
        peer,
        peer,
        compute_kl=True,
        compute_ce_loss=True,
        exclude_special_tokens_from_reconstruction=True,
        **wanted,
    )
    counted = torch.ones_like(peer.ids, dtype=torch.bool)
    if special is not None:
        counted &= peer.ids != special
    return [*rebuilt(peer, counted, theirs), *spliced(peer, counted, theirs)]


def rebuilt(
    peer: Peer, counted: Bool[Tensor, "batch time"], theirs: dict[str, float]
) -> list[Figures]:
    """Return figures of reconstructions."""
    x = read(peer.model, peer.ids, [peer.cfg.hook_name])[peer.cfg.hook_name][counted]
    code = peer.dictionary.encode(x)
    moments = Moments.of(x, peer.dictionary.decode(code))
    assert moments.fvu is not None
    rows, error = moments.rows, moments.error
    squares = x.double().square()
    bent = float(squares.sum() / rows - squares.mean(0).mean().square())
    around = (x.double() - x.double().mean(0)).square().sum(1)
    wrong = (x - peer.dictionary.decode(code)).double().square().sum(1)
    norms = peer.dictionary.decode(code).double().norm(dim=1) / x.double().norm(dim=1)
    return [
        Figures("l0", float((code.values > 0).sum() / rows), theirs["l0"]),
        Figures("cosine", moments.mean_cosine, theirs["cossim"]),
        Figures(
            "explained_variance",
            1 - moments.fvu,
            theirs["explained_variance"],
            1 - error / rows / bent,
        ),
        Figures(
            "explained_variance_legacy",
            1 - moments.fvu,
            theirs["explained_variance_legacy"],
            float((1 - wrong / around).mean()),
        ),
        Figures("mse", None, theirs["mse"], error / rows / rows),
        Figures("norm_ratio", moments.norm_ratio, theirs["l2_ratio"], float(norms.mean())),
    ]


def spliced(
    peer: Peer, counted: Bool[Tensor, "batch time"], theirs: dict[str, float]
) -> list[Figures]:
    """Return figures of the model that goes on from reconstructions, or from zero."""
    ids, site = peer.ids, peer.cfg.hook_name
    predicted = counted[:, :-1]
    target = ids[:, 1:][predicted]

    def rebuild(x: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time width"]:
        new = x.clone()
        new[counted] = peer.dictionary(x[counted])
        return new

    original = peer.model.logits(ids)
    with replaced(peer.model, site, rebuild):
        changed = peer.model.logits(ids)
    with replaced(peer.model, site, torch.zeros_like):
        zero = peer.model.logits(ids)

    def loss(logits: Float[Tensor, "batch time vocab"]) -> float:
        return float(cross_entropy(logits[:, :-1][predicted], target).double().mean())

    clean, lossy, ablated = loss(original), loss(changed), loss(zero)
    kl = float(kl_divergence(original[counted], changed[counted]).double().mean())
    return [
        Figures("cross_entropy original", clean, theirs["ce_loss_without_sae"]),
        Figures("cross_entropy spliced", lossy, theirs["ce_loss_with_sae"]),
        Figures("cross_entropy zero_ablated", ablated, theirs["ce_loss_with_ablation"]),
        Figures(
            "loss_recovered_zero",
            1 - (lossy - clean) / (ablated - clean),
            theirs["ce_loss_score"],
        ),
        Figures("kl", kl, theirs["kl_div_with_sae"]),
    ]


def probes(arm: Arm, name: str, path: Path) -> list[dict[str, Any]]:
    """Return, for each number of features, those that both choose and both test accuracies."""
    from sae_bench.evals.sparse_probing import probe_training

    split = read_set(arm, labelled_set(name, path), EFFORTS["quick"], 0)
    with torch.no_grad():
        values = code_matrix(arm.dictionary.encode(split.values), arm.features)
    dense, labels = torch.from_numpy(values.toarray()), torch.from_numpy(split.labels).int()
    train, test = torch.from_numpy(~split.test), torch.from_numpy(split.test)
    chosen = by_difference(values[~split.test], split.labels[~split.test])
    found = []
    for k in KS:
        mask = probe_training.get_top_k_mean_diff_mask(dense[train], labels[train], k)
        some = probe_training.apply_topk_mask_reduce_dim(dense, mask)
        _, accuracy = probe_training.train_sklearn_probe(
            some[train], labels[train], some[test], labels[test]
        )
        ours = regression(values[:, chosen[:k]].toarray().astype(np.float64), split)
        theirs = set((~mask).nonzero().flatten().tolist())
        found.append(
            {
                "set": name,
                "k": k,
                "same_features": theirs == set(chosen[:k].tolist()),
                "sememe_accuracy": ours.accuracy,
                "saebench_accuracy": float(accuracy),
            }
        )
    return found


def measure(settings: Settings) -> dict[str, Any]:
    """Compare both; UsageError where the run has too few windows, SememeError without SAEBench."""
    try:
        import sae_bench.evals.core.main  # noqa: F401
    except ImportError as error:
        raise SememeError(
            f"sae-bench is needed for this ({error}): pip install sae-bench"
        ) from None
    with terminal_progress() as progress:
        run, dictionary, _, held_out, corpus = open_run(settings.run)
        arm = Arm.subject(dictionary, run.load_model(progress), held_out, corpus)
        model = arm.model.exact()
        bos = model.tokenizer.bos
        ids = first_tokens(arm, settings, [] if bos is None else [bos])
        figures = [each.to_json() for each in core(Peer(model, dictionary, ids), bos)]
        probed = _probes(arm, settings, progress)
    same = [row["same_features"] for row in probed]
    apart = [abs(row["sememe_accuracy"] - row["saebench_accuracy"]) for row in probed]
    return {
        "tokens": int(ids.numel()),
        "largest_difference": max(row["difference"] for row in figures),
        "probes": probed,
        "probes_with_same_features": float(np.mean(same)) if same else None,
        "largest_accuracy_difference": max(apart, default=None),
        "rows": figures,
    }


def _probes(arm: Arm, settings: Settings, progress: Progress) -> list[dict[str, Any]]:
    if not settings.sets:
        return []
    path = fetch(SETS, progress)
    return [row for name in settings.sets for row in probes(arm, name, path)]


def first_tokens(arm: Arm, settings: Settings, lead: list[int]) -> Int[Tensor, "windows time"]:
    """Return the first tokens of held-out windows that are long enough, ``lead`` before each."""
    windows = arm.corpus.windows(arm.held_out.manifest["config"]["window"], held_out=True)
    long = np.flatnonzero(windows.length >= settings.length)[: settings.windows]
    if len(long) < settings.windows:
        raise UsageError(
            f"--windows {settings.windows}: {len(long)} held-out windows have {settings.length} "
            "tokens or more; ask for fewer, or shorter ones"
        )
    starts = windows.start[long].tolist()
    texts = [arm.corpus.tokens(start, start + settings.length).tolist() for start in starts]
    return torch.tensor([[*lead, *text] for text in texts])


if __name__ == "__main__":
    command.run(Settings, measure, __doc__)
