"""The training loop."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sememe.artefacts import fingerprint, is_finished, lock, refuse_other
from sememe.dictionaries.config import DictionaryConfig
from sememe.dictionaries.dictionary import Dictionary
from sememe.dictionaries.initialisation import INITIALISATIONS, geometric_median
from sememe.dictionaries.nonlinearities import Activity
from sememe.dictionaries.objectives import TERMS, Step
from sememe.errors import SememeError, UsageError
from sememe.kernels import Code
from sememe.progress import Progress
from sememe.training.checkpoints import load_checkpoint, remove_checkpoints, save_checkpoint
from sememe.training.config import TrainConfig
from sememe.training.kinds import KINDS
from sememe.training.optimiser import Adam
from sememe.training.schedules import fall, rise
from sememe.training.streams import ActivationStream

SAMPLE_ROWS = 32_768
FACTOR_ROWS = 2048
SMOOTHING = 0.98
DIVERGED = 4.0
"""Unexplained share of variance, smoothed, beyond which training is given up."""


@dataclass
class _Run:
    """What changes while training."""

    dictionary: Dictionary
    adam: Adam
    silent: Tensor
    """Activations since each feature last fired."""
    step: int = 0
    unexplained: float = 0.0
    active: float = 0.0
    """Smoothed share of variance unexplained, and smoothed number of active features."""


def train(
    stream: ActivationStream,
    config: TrainConfig,
    out: Path,
    *,
    site: str,
    made_from: Mapping[str, object] | None = None,
    progress: Progress | None = None,
) -> Dictionary:
    """Train a dictionary on ``stream`` and write it to ``out``; return it.

    Killed and called again with the same arguments it goes on from its last checkpoint and ends
    with the same bytes; once finished it returns what is there. ``made_from`` names the inputs by
    hash.

    Raises UsageError for arguments that cannot work, SememeError for activations that are not
    finite or all alike and for training that diverges.
    """
    progress = progress or Progress()
    inputs = dict(made_from or {})
    run_key = {
        **{name: value for name, value in asdict(config).items() if name != "checkpoint_every"},
        "site": site,
        "width": stream.width,
        "rows": stream.rows,
        "scale": stream.scale,
        "made_from": fingerprint(inputs),
    }
    if is_finished(out):
        found = Dictionary.load(out)
        refuse_other(out, run_key, found.manifest["run"])
        return found
    lock(out)
    if stream.rows < 1:
        raise UsageError("there are no activations to train on (0 rows): harvest more text")
    steps = stream.steps(config.batch, config.passes)
    run = _begin(stream, config, site)
    _resume(run, out, run_key)
    dead_after = config.dead_after(stream.rows)
    progress.start("train", steps * config.batch, "activations", run.step * config.batch)
    for x in stream.batches(config.batch, config.passes, config.seed, run.step):
        _check_finite(x, run.step)
        try:
            _one_step(run, x, config, steps, dead_after)
        except FloatingPointError as error:
            raise SememeError(
                f"training diverged at step {run.step} ({error}); the last good checkpoint is kept "
                f"in {out}. Lower learning_rate (now {config.rate():g}) and give another --out"
            ) from None
        progress.advance(len(x), **_figures(run, dead_after))
        if run.step % config.checkpoint_every == 0 and run.step < steps:
            save_checkpoint(out, run.step, _tensors(run), {**_state(run), "run": run_key})
    figures = _figures(run, dead_after)
    run.dictionary.save(out, made_from=inputs, run=run_key, figures=figures, steps=steps)
    remove_checkpoints(out)
    progress.finish(", ".join(f"{name} {value:.3g}" for name, value in figures.items()))
    return run.dictionary


def _begin(stream: ActivationStream, config: TrainConfig, site: str) -> _Run:
    sample = stream.sample(SAMPLE_ROWS)
    _check_finite(sample, None)
    if not (sample != sample[0]).any():
        raise SememeError(
            f"all {len(sample)} sampled activations at {site} are the same: there is nothing to "
            "learn; read another site or other text"
        )
    settings = DictionaryConfig(
        reads=(site,),
        writes=(site,),
        width=stream.width,
        features=config.features,
        nonlinearity=KINDS[config.kind].nonlinearity(config),
        centre=config.centre,
    )
    dictionary = Dictionary(settings, stream.scale)
    generator = torch.Generator().manual_seed(config.seed)
    with torch.no_grad():
        scaled = sample * dictionary.scale
        dictionary.b_dec.copy_(geometric_median(scaled))
        rows = INITIALISATIONS[config.initialisation](
            config.features, scaled - dictionary.b_dec, generator
        )
        dictionary.W_dec.copy_(rows)
        dictionary.W_enc.copy_(rows)
        if config.centre == "none":
            dictionary.b_enc.copy_(-rows @ dictionary.b_dec)
        factor = _best_factor(dictionary, scaled[:FACTOR_ROWS])
        dictionary.W_enc.mul_(factor)
        dictionary.b_enc.mul_(factor)
    silent = torch.zeros(config.features, dtype=torch.int64)
    return _Run(dictionary, Adam(dictionary, (config.beta1, config.beta2)), silent)


def _best_factor(dictionary: Dictionary, x: Float[Tensor, "rows width"]) -> float:
    """Return what to multiply features by so that the first reconstruction is as near as it can be.

    Without it half of all ReLU features are active at first and add up to many times the input.
    """
    rebuilt = dictionary.rebuild(dictionary.activate(x)) - dictionary.b_dec
    square = rebuilt.square().sum()
    factor = ((x - dictionary.b_dec) * rebuilt).sum() / square.clamp_min(1e-12)
    return float(factor) if factor > 0 else 1.0


def _one_step(
    run: _Run, x: Float[Tensor, "rows width"], config: TrainConfig, steps: int, dead_after: int
) -> None:
    kind = KINDS[config.kind]
    dictionary = run.dictionary
    x = x * dictionary.scale
    activity = dictionary.activate(x)
    rebuilt = dictionary.rebuild(activity)
    dead = (run.silent >= dead_after).nonzero().flatten()
    step = Step(x, activity, rebuilt, dictionary, dead)
    ramp = rise(run.step, steps, config.ramp)
    loss = torch.zeros(())
    for name, weight in kind.terms(config).items():
        if weight:
            loss = loss + weight * (ramp if name in kind.ramped else 1.0) * TERMS[name](step)
    _observe(run, x, rebuilt.detach(), activity)
    if not torch.isfinite(loss):
        raise FloatingPointError(f"the loss is {float(loss)}")
    if run.unexplained > DIVERGED:
        raise FloatingPointError(f"the unexplained share of variance is {run.unexplained:.1f}")
    loss.backward()
    rising, falling = rise(run.step, steps, config.warm_up), fall(run.step, steps, config.decay)
    run.adam.step(config.rate() * rising * falling, config.clip)
    run.step += 1


@torch.no_grad()
def _observe(
    run: _Run,
    x: Float[Tensor, "rows width"],
    rebuilt: Float[Tensor, "rows width"],
    activity: Activity,
) -> None:
    if isinstance(activity, Code):
        there = activity.values > 0
        counts = torch.bincount(
            activity.indices[there].long(), minlength=run.dictionary.config.features
        )
    else:
        counts = (activity > 0).sum(0)
    run.silent = (run.silent + len(x)).where(counts == 0, 0)
    error = torch.linalg.vector_norm(x - rebuilt).square()
    variance = torch.linalg.vector_norm(x - x.mean(0)).square()
    unexplained = float(error / variance.clamp_min(1e-12))
    active = float(counts.sum()) / len(x)
    weight = max(1 - SMOOTHING, 1 / (run.step + 1))
    run.unexplained += weight * (unexplained - run.unexplained)
    run.active += weight * (active - run.active)


def _figures(run: _Run, dead_after: int) -> dict[str, float]:
    dead = float((run.silent >= dead_after).float().mean())
    return {"fvu": run.unexplained, "l0": run.active, "dead": dead}


def _check_finite(x: Float[Tensor, "rows width"], step: int | None) -> None:
    if torch.isfinite(x.sum()):
        return
    bad = (~torch.isfinite(x)).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        where = "the sample for the first weights" if step is None else f"batch {step}"
        raise SememeError(
            f"the activations hold {float(x[row, column])} (row {row} of {where}, dimension "
            f"{column}; {len(bad)} such values there): harvest again, with dtype fp32 if it was "
            "lower"
        )


def _tensors(run: _Run) -> dict[str, Tensor]:
    weights = {f"weights.{name}": value for name, value in run.dictionary.state_dict().items()}
    return {**weights, **run.adam.moments, "silent": run.silent}


def _state(run: _Run) -> dict[str, Any]:
    # Nothing is drawn at random after the first weights, and the stream is a function of the batch
    # number: no generator state is needed to go on.
    return {"unexplained": run.unexplained, "active": run.active}


def _resume(run: _Run, out: Path, run_key: Mapping[str, object]) -> None:
    found = load_checkpoint(out, run_key)
    if found is None:
        return
    tensors, state = found
    run.dictionary.load_state_dict(
        {name.removeprefix("weights."): t for name, t in tensors.items() if "weights." in name}
    )
    for name, moment in run.adam.moments.items():
        moment.copy_(tensors[name])
    run.silent = tensors["silent"]
    run.step = run.adam.steps = state["step"]
    run.unexplained, run.active = state["unexplained"], state["active"]
