"""One dictionary in training: its first weights, and one step after the other."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from sememe.dictionaries.dictionary import Dictionary
from sememe.dictionaries.initialisation import INITIALISATIONS, geometric_median
from sememe.dictionaries.objectives import Step, activate
from sememe.dictionaries.scores import Activity
from sememe.errors import SememeError, UsageError
from sememe.kernels import Code, collected, memory
from sememe.training.config import TrainConfig
from sememe.training.optimiser import Adafactor, Adam, Optimiser
from sememe.training.revival import resample
from sememe.training.schedules import fall, rise
from sememe.training.streams import ActivationStream

SAMPLE_ROWS = 32_768
FACTOR_ROWS = 2048
SMOOTHING = 0.98
FIRED_ROWS = 64
FREQUENCY_MEMORY = 0.99
"""Weight of earlier steps in how often features are active."""
DIVERGED = 4.0
"""Unexplained share of variance, smoothed, beyond which training is given up."""
RESAMPLING_SEED = 0x5EED0000
"""Added to the run's seed for the inputs that resampling looks at."""


class Trainer:
    """Everything that decides the next step of a run.

    Attributes:
        dictionary: The dictionary as it is now.
        optimiser: The optimiser and its moments.
        silent: Activations since each feature last fired.
        frequency: Share of recent activations on which each feature fired.
        step: Steps done.
        steps: Steps of the whole run, which schedules refer to.
    """

    def __init__(
        self,
        stream: ActivationStream,
        config: TrainConfig,
        reads: tuple[str, ...],
        writes: tuple[str, ...],
        device: str = "cpu",
    ) -> None:
        """Make the first weights, on ``device``, from a sample of ``stream``.

        Raises UsageError for settings that do not go together or sites that the stream lacks, and
        SememeError for activations that are not finite or all alike.
        """
        self.stream, self.config = stream, config
        widths = dict(zip(stream.sites, stream.widths, strict=True))
        scales = dict(zip(stream.sites, stream.scales, strict=True))
        for site in (*reads, *writes):
            if site not in widths:
                raise UsageError(f"site {site!r} is not in the stream, which has {stream.sites}")
        settings = config.dictionary(
            reads, writes, tuple(widths[s] for s in reads), tuple(widths[s] for s in writes)
        )
        self.dictionary = Dictionary(
            settings, [scales[s] for s in reads], [scales[s] for s in writes]
        ).to(device)
        for parameter in self.dictionary.parameters():
            parameter.data = memory.zeros_like(parameter).copy_(parameter.data)
        self._reads, self._writes = _columns(widths, reads), _columns(widths, writes)
        self.steps = stream.steps(config.batch, config.passes)
        if self.steps < 1:
            raise UsageError(
                f"batch is {config.batch}: {config.passes} passes over {stream.rows} activations "
                "do not fill one: lower batch, or harvest more text"
            )
        self._divergence = getattr(stream, "divergence", None)
        self.dead_after = config.dead_after(stream.rows)
        self.silent = torch.zeros(config.features, dtype=torch.int64, device=device)
        self.frequency = torch.zeros(config.features, device=device)
        self.step = 0
        self.unexplained = 0.0
        self.active = 0.0
        self.mean_loss = 0.0
        """Smoothed: share of variance unexplained, number of active features, and the loss."""
        self._first_weights(stream.sample(SAMPLE_ROWS))
        self.dictionary.W_dec.requires_grad_(not config.frozen_decoder)
        unit = config.norms == "unit"
        self.optimiser: Optimiser = (
            Adafactor(self.dictionary, config.beta2, unit_rows=unit)
            if config.optimiser == "adafactor"
            else Adam(self.dictionary, (config.beta1, config.beta2), unit_rows=unit)
        )

    def split(
        self, rows: Float[Tensor, "rows all"]
    ) -> tuple[Float[Tensor, "rows width"], Float[Tensor, "rows write_width"]]:
        """Return the scaled inputs and targets of raw rows of the stream, on the device."""
        rows = rows.to(self.silent.device)
        read = rows[:, self._reads]
        x = torch.mul(read, self.dictionary.read_scale, out=memory.empty_like(read))
        if self.dictionary.config.autoencodes:
            return x, x
        return x, rows[:, self._writes] * self.dictionary.write_scale

    def advance(self, rows: Float[Tensor, "rows all"]) -> None:
        """Take one step on raw rows of the stream; FloatingPointError when it diverges."""
        config, dictionary = self.config, self.dictionary
        if not len(rows):  # the token rules of a live stream may leave nothing of a batch
            self.step += 1
            return
        x, target = self.split(rows)
        nonlinearity = config.nonlinearity_at(self.step, self.steps)
        activity = activate(config.objective, dictionary, x, nonlinearity)
        step = Step.of(
            config.objective,
            dictionary,
            activity,
            x,
            target,
            dead=(self.silent >= self.dead_after).nonzero().flatten(),
            frequency=self.frequency,
            k=getattr(nonlinearity, "k", 0),
            number=self.step,
            divergence=self._kl if self._divergence else None,
        )
        loss = x.new_zeros(())
        for term in config.objective:
            if term.weight:
                loss = loss + term.weight * rise(self.step, self.steps, term.ramp) * term(step)
        self._observe(step)
        found = float(loss.detach())
        if not math.isfinite(found):
            raise FloatingPointError(f"the loss is {found}")
        self.mean_loss += self._recent() * (found - self.mean_loss)
        if self.unexplained > DIVERGED and self._rebuilds:
            raise FloatingPointError(f"the unexplained share of variance is {self.unexplained:.1f}")
        with collected(whole=bool(config.clip)) as products:
            loss.backward()
        rising = rise(self.step, self.steps, config.warm_up)
        falling = fall(self.step, self.steps, config.decay)
        self.optimiser.step(config.rate() * rising * falling, products, config.clip)
        extra = dictionary.encoder().extra
        if nonlinearity != config.nonlinearity:  # while k is on its way only the last step counts
            for name, value in nonlinearity.estimates().items():
                extra[name].copy_(value)
        nonlinearity.after_step(activity, extra)
        self.step += 1
        if config.resampling is not None and config.resampling.due(self.step):
            self._resample()

    @property
    def _rebuilds(self) -> bool:
        """Whether reconstructions are held near their targets, or only what the model makes."""
        return any(term.name == "reconstruction" for term in self.config.objective)

    def check_weights(self) -> None:
        """Raise FloatingPointError if a weight is not finite, so that none such is saved."""
        for name, value in self.dictionary.state_dict().items():
            if not torch.isfinite(value.sum()):
                raise FloatingPointError(f"{name} is not finite")

    def figures(self) -> dict[str, float]:
        """Return the smoothed share of variance unexplained, L0, and the share of dead features."""
        dead = float((self.silent >= self.dead_after).float().mean())
        return {"fvu": self.unexplained, "l0": self.active, "dead": dead}

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of a checkpoint."""
        weights = {f"weights.{name}": v for name, v in self.dictionary.state_dict().items()}
        return {
            **weights,
            **self.optimiser.moments,
            "silent": self.silent,
            "frequency": self.frequency,
        }

    def state(self) -> dict[str, Any]:
        """Return the numbers of a checkpoint.

        What is drawn at random after the first weights is a function of the step's number, and the
        stream one of the batch's: no generator and no buffer has to be saved.
        """
        return {
            "unexplained": self.unexplained,
            "active": self.active,
            "mean_loss": self.mean_loss,
        }

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        weights = {n.removeprefix("weights."): t for n, t in tensors.items() if "weights." in n}
        self.dictionary.load_state_dict(weights)
        for name, moment in self.optimiser.moments.items():
            moment.copy_(tensors[name])
        self.silent.copy_(tensors["silent"])
        self.frequency.copy_(tensors["frequency"])
        self.step = self.optimiser.steps = state["step"]
        self.unexplained, self.active = state["unexplained"], state["active"]
        self.mean_loss = state.get("mean_loss", 0.0)

    @torch.no_grad()
    def _first_weights(self, sample: Float[Tensor, "rows all"]) -> None:
        check_finite(sample, "the sample for the first weights", self.stream)
        parts = sample.split(list(self.stream.widths), dim=1)
        for site, part in zip(self.stream.sites, parts, strict=True):
            if not (part != part[0]).any():
                raise SememeError(
                    f"all {len(part)} sampled activations at {site} are the same: there is nothing "
                    "to learn; read another site or other text"
                )
        config, dictionary = self.config, self.dictionary
        x, target = self.split(sample)
        self.variance = float((target - target.mean(0)).square().sum(1).mean())
        dictionary.b_dec.copy_(geometric_median(target))
        centre = dictionary.b_dec if target is x else geometric_median(x)
        read = x - centre
        written = read if target is x else target - dictionary.b_dec
        generator = Generator().manual_seed(config.seed)
        encoder, decoder = INITIALISATIONS[config.initialisation](
            config.features, read, written, generator
        )
        dictionary.W_enc.copy_(encoder)
        dictionary.W_dec.copy_(decoder)
        if config.first_active is not None:
            self._share_out(x[:FACTOR_ROWS], config.first_active)
            return
        self._uncentre(centre)
        dictionary.W_enc.mul_(self._best_factor(x[:FACTOR_ROWS], target[:FACTOR_ROWS]))
        self._uncentre(centre)

    def _share_out(self, x: Float[Tensor, "rows width"], active: int) -> None:
        """Begin biases where every feature is active on as many rows: ``active`` features on one.

        Half of the rows at most.
        """
        dictionary = self.dictionary
        scores = dictionary.centred(x) @ dictionary.W_enc.T
        rows = round(len(x) * min(0.5, active / self.config.features))
        reached = scores.kthvalue(max(1, len(x) - rows), dim=0).values
        dictionary.b_enc.copy_(dictionary.encoder().extra.get("threshold", 0) - reached)

    def _uncentre(self, centre: Float[Tensor, " width"]) -> None:
        """Begin biases where centred inputs would score 0, unless the dictionary centres itself."""
        dictionary = self.dictionary
        if dictionary.config.centre == "tied":
            return
        offsets = dictionary.W_enc @ centre
        dictionary.b_enc.copy_(-offsets)
        nonlinearity = dictionary.config.nonlinearity
        first = nonlinearity.shift(nonlinearity.parameters(self.config.features), offsets.cpu())
        for name, value in first.items():
            dictionary.learnt[name].copy_(value)

    def _best_factor(
        self, x: Float[Tensor, "rows width"], target: Float[Tensor, "rows write_width"]
    ) -> float:
        """Return what to multiply the encoder by so that the first reconstruction is the nearest.

        Without it half of all ReLU features are active at first and add up to many times the input.
        A transcoder's first rows explain little, and random ones nothing, so that the nearest would
        be at or below zero: it begins with reconstructions of .3 of the target's size at least.
        Kinds that look again would make that worse each time: it is their first code that counts.
        """
        base = self.dictionary.base(x)
        activity = self.dictionary.activate(x)
        first = activity.earlier[0] if activity.earlier else activity
        rebuilt = self.dictionary.rebuild(first, x) - base
        size = rebuilt.square().sum()
        if not size:
            return 1.0
        factor = ((target - base) * rebuilt).sum() / size
        if not self.dictionary.config.autoencodes:
            least = 0.3 * ((target - base).square().sum() / size).sqrt()
            factor = factor.clamp_min(least)
        return float(factor) if factor > 0 else 1.0

    def _kl(self, rebuilt: Float[Tensor, "rows write_width"]) -> Float[Tensor, ""]:
        assert self._divergence is not None
        (site,) = self.dictionary.config.writes
        found: Tensor = self._divergence(rebuilt / self.dictionary.write_scale, site)
        return found.to(rebuilt.device)

    @torch.no_grad()
    def _observe(self, step: Step) -> None:
        counts = fired(step.activity, self.config.features)
        self.silent = (self.silent + len(step.x)).where(counts == 0, 0)
        recent = max(1 - FREQUENCY_MEMORY, 1 / (self.step + 1))
        self.frequency.lerp_((counts / len(step.x)).float(), recent)
        unexplained = float(step.error) / (len(step.x) * self.variance)
        active = float(counts.sum()) / len(step.x)
        weight = self._recent()
        self.unexplained += weight * (unexplained - self.unexplained)
        self.active += weight * (active - self.active)

    def _recent(self) -> float:
        """The weight of this step in smoothed figures."""
        return max(1 - SMOOTHING, 1 / (self.step + 1))

    def _resample(self) -> None:
        rule, config = self.config.resampling, self.config
        assert rule is not None
        dead = (self.silent >= rule.silent * config.batch).nonzero().flatten()
        batch = min(config.batch, self.stream.rows)
        seed = config.seed + RESAMPLING_SEED + self.step
        resample(
            self.dictionary,
            self.optimiser.forget,
            dead,
            lambda: map(self.split, self.stream.batches(batch, 1, seed)),
            rule,
            Generator().manual_seed(seed),
        )
        self.silent[dead] = 0


def fired(activity: Activity, features: int) -> Tensor:
    """Return in how many rows each feature is active."""
    values = activity.values
    if isinstance(values, Code):
        there = (values.values > 0).float()
        return torch.bincount(values.indices.flatten(), there.flatten(), minlength=features)
    # A few rows at a time, whose signs are summed while they are in the processor's cache.
    return torch.stack([part.sign().sum(0) for part in values.split(FIRED_ROWS)]).sum(0)


def check_finite(rows: Float[Tensor, "rows all"], where: str, stream: ActivationStream) -> None:
    """Raise SememeError that names the first NaN or infinite value, and where it is stored."""
    if torch.isfinite(rows.sum()):
        return
    bad = (~torch.isfinite(rows)).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        stored = getattr(stream, "first_not_finite", lambda: "")()
        raise SememeError(
            f"the activations hold {float(rows[row, column])} (row {row} of {where}, dimension "
            f"{column}; {len(bad)} such values there{stored and f'; the first is in {stored}'}): "
            "harvest again, with dtype fp32 if it was lower"
        )


def _columns(widths: dict[str, int], chosen: tuple[str, ...]) -> slice | Tensor:
    """Return the columns of the chosen sites in rows that hold all sites side by side."""
    if chosen == tuple(widths):
        return slice(None)
    ends, end = {}, 0
    for site, width in widths.items():
        end += width
        ends[site] = end
    return torch.cat([torch.arange(ends[site] - widths[site], ends[site]) for site in chosen])
