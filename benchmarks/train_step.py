"""What one training step costs, beside a plain dense torch loop of its kind in the same minutes.

CPU seconds count, which a busy machine does not change much; wall times are not reported. Run it as
``python -m benchmarks.train_step``.
"""

import os
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin would count as work

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear

from benchmarks import command
from benchmarks.activations import superposed
from benchmarks.plain_torch import PlainTorch
from sememe.activations.store import Activations
from sememe.activations.stream import MemoryStream, Stream
from sememe.dictionaries.nonlinearities import BatchTopK, Gated, JumpReLU, Nonlinearity, ReLU, TopK
from sememe.dictionaries.objectives import (
    L0,
    L1,
    AuxK,
    GateReconstruction,
    Matryoshka,
    Reconstruction,
    Term,
)
from sememe.errors import check_number
from sememe.kernels import screening
from sememe.training.config import TrainConfig
from sememe.training.trainer import Trainer

Kind = Literal["topk", "batchtopk", "matryoshka", "relu", "jumprelu", "gated"]
THIN = ("relu", "jumprelu", "gated")
"""Kinds without a budget."""
BATCHES = 4
WARM_UP = 2


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    kind: Kind = "topk"
    """Kind of dictionary."""
    d_in: int = 576
    """Width of made-up activations."""
    features: int = 9216
    """Features of the dictionary, and true features of made-up activations."""
    batch: int = 4096
    """Activations a step."""
    k: int = 32
    """Active features a row, for kinds with a budget."""
    l0: int = 100
    """Active features a row at first, for kinds without a budget: biases are lowered to it."""
    sparsity: float = 10.0
    """Weight of the L1 penalty of relu and gated."""
    dead: float = 0.0
    """Share of features that are held dead, which AuxK then teaches; a step without is taken by
    turns. 0 leaves AuxK out."""
    rounds: int = 8
    """Steps measured."""
    activations: Path | None = None
    """A store to take activations from in place of made-up ones."""
    site: str | None = None
    """Which site of the store; by default all of them."""
    json: bool = False
    """Print one JSON object."""


def config(settings: Settings) -> TrainConfig:
    """Return the training that is measured."""
    k, sparsity = settings.k, settings.sparsity
    whole: dict[Kind, tuple[Nonlinearity, tuple[Term, ...]]] = {
        "topk": (TopK(k), ()),
        "batchtopk": (BatchTopK(k), ()),
        "matryoshka": (BatchTopK(k), (Matryoshka(),)),
        "relu": (ReLU(), (L1(sparsity),)),
        "jumprelu": (JumpReLU(0.03, 0.03), (L0(20.0, target=float(settings.l0)),)),
        "gated": (Gated(), (L1(sparsity), GateReconstruction())),
    }
    nonlinearity, terms = whole[settings.kind]
    return TrainConfig(
        features=settings.features,
        nonlinearity=nonlinearity,
        objective=(Reconstruction(), *terms, *((AuxK(),) if settings.dead else ())),
        batch=settings.batch,
        passes=1000,
        warm_up=0.0,
        learning_rate=1e-5,  # so small that the number of active features stays
    )


@torch.no_grad()
def thin_out(trainer: Trainer, x: Float[Tensor, "rows width"], l0: int) -> None:
    """Lower encoder biases alike until ``l0`` features are active, as after some training."""
    dictionary = trainer.dictionary
    scores = linear(dictionary.centred(x), dictionary.W_enc, dictionary.b_enc)
    kept = min(l0 + 1, dictionary.config.features)
    dictionary.b_enc.sub_(scores.topk(kept, dim=1).values[:, -1].median())


def hold_dead(trainer: Trainer, share: float) -> None:
    """Make the first ``share`` of the features count as dead, and no others."""
    trainer.silent.zero_()
    trainer.silent[: round(share * len(trainer.silent))] = trainer.dead_after


def stream_of(settings: Settings) -> Stream | MemoryStream:
    """Return the activations to train on."""
    if settings.activations is None:
        rows = BATCHES * settings.batch
        return MemoryStream(superposed(rows, settings.d_in, settings.features))
    store = Activations.open(settings.activations)
    return Stream(store, (settings.site,) if settings.site else tuple(store.sites))


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU seconds of all threads that ``work`` takes."""
    before = time.process_time()
    work()
    return time.process_time() - before


def product_seconds(batch: int, width: int, features: int, dtype: torch.dtype) -> float:
    """Return the CPU seconds of the bare encoder product."""
    x, W = torch.randn(batch, width).to(dtype), torch.randn(features, width).to(dtype)
    out = torch.empty(batch, features, dtype=dtype)
    return min(cpu_seconds(lambda: torch.mm(x, W.T, out=out)) for _ in range(4))


def measure(settings: Settings) -> dict[str, float | str | bool]:
    """Take steps by turns with the dense loop; return the figures."""
    check_number("dead", settings.dead, 0.0, 1.0)
    stream = stream_of(settings)
    width = sum(stream.widths)
    trainer = Trainer(stream, config(settings), stream.sites, stream.sites)
    batches = stream.batches(settings.batch, 1000, seed=0)
    if settings.kind in THIN:
        thin_out(trainer, trainer.split(next(batches))[0][:512], settings.l0)

    def advance(rows: Float[Tensor, "rows width"], dead: float = settings.dead) -> float:
        hold_dead(trainer, dead)
        return cpu_seconds(lambda: trainer.advance(rows))

    for _ in range(WARM_UP):
        advance(next(batches))
    screening.tally.rows = screening.tally.exact = 0
    alone = [advance(next(batches)) for _ in range(WARM_UP)]
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    kind = settings.kind if settings.kind in THIN else "topk"
    dense = PlainTorch(kind, width, settings.features, settings.k, settings.l0)
    dense.step(trainer.split(next(batches))[0])
    ours, without, theirs = [], [], []
    for _ in range(settings.rounds):
        rows = next(batches)
        x = trainer.split(rows)[0]
        ours.append(advance(rows))
        if settings.dead:
            without.append(advance(rows, 0.0))
        theirs.append(cpu_seconds(lambda x=x: dense.step(x)))  # type: ignore[misc]
    step = statistics.median(ours or alone)
    tally = screening.tally
    shape = (settings.batch, width, settings.features)
    seconds = {dtype: product_seconds(*shape, dtype) for dtype in (torch.float32, torch.bfloat16)}
    gflop = 2 * settings.batch * width * settings.features / 1e9
    return {
        "kind": settings.kind,
        "d_in": width,
        "features": settings.features,
        "batch": settings.batch,
        "k": settings.k,
        "l0": trainer.figures()["l0"],
        "screened": tally.rows > 0,
        "share_exact": tally.exact / max(1, tally.rows),
        "cpu_seconds": step,
        "acts_per_cpu_second": settings.batch / step,
        "gflops_fp32": gflop / seconds[torch.float32],
        "gflops_bf16": gflop / seconds[torch.bfloat16],
        "floor_fraction": seconds[torch.bfloat16 if tally.rows else torch.float32] / step,
        "peak_mb": peak_mb,
        "ratio_dense_torch": ratio(theirs, ours),
        **({"dead": settings.dead, "ratio_dead": ratio(ours, without)} if settings.dead else {}),
    }


def ratio(some: list[float], others: list[float]) -> float:
    """Return the median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(some, others, strict=True))


if __name__ == "__main__":
    command.run(Settings, measure, __doc__)
