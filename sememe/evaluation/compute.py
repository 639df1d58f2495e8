r"""Compute-equivalent loss: how much training compute a reconstruction costs the model.

Gao et al. (2406.04093) say which share of the subject model's pretraining compute would give a
model as bad as the spliced one, and publish no derivation. Here a family of small models trained on
the same text gives a curve, in nats a byte of the spliced text,

$$L(C) = E + A\,C^{-\alpha}$$

on which the spliced loss is worth this share of the original one's compute:

$$\frac{C_{eq}}{C} = \frac{L^{-1}(L_{spliced})}{L^{-1}(L_{original})} =
\left(\frac{L_{original} - E}{L_{spliced} - E}\right)^{1/\alpha}$$

It depends on neither A nor the unit of compute. The subject's own compute is not used: it was spent
on other text, so that it does not lie on the curve.

Axis names: draws = all documents and then resamples of them, models = members of the family.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int64

from sememe.artefacts import is_finished
from sememe.corpora.corpus import Corpus
from sememe.corpora.sources import SOURCES
from sememe.errors import SememeError
from sememe.evaluation.arms import Arm
from sememe.evaluation.estimates import Estimate, Resampling
from sememe.evaluation.family import Family, Text, family_folder, text_of
from sememe.evaluation.fidelity import SPARSE, splicing
from sememe.evaluation.power_law import PowerLaw, refitted
from sememe.evaluation.reconstruction import Means
from sememe.evaluation.sections import Measured, Metric, NotApplicableError, Settings
from sememe.evaluation.splicing import EvaluateConfig, SplicedText, splice, spliced_tokens
from sememe.progress import Progress

TERA = 1e12
REACH = 1000.0
"""Beyond this factor from the family's smallest or largest compute the curve is not followed."""

CAUTION = (
    "Where a loss lies beyond those of the family, its curve is followed there, which no interval "
    "covers; the details say how far."
)

METRICS = (
    Metric(
        "compute_equivalent",
        "compute-equivalent share",
        "C_eq / C: the training compute at which a family of small models, trained on the same "
        "text, reaches the spliced loss, over that at which it reaches the original loss (after "
        "2406.04093). Beyond the family's own losses it is extrapolated, and the details say so.",
        "higher",
        "documents",
        SPARSE,
    ),
)


def inputs(arm: Arm) -> str | None:
    """Return the hash of the family that the arm's losses are compared with, None without one."""
    folder = arm.family or family_folder(text_of(arm.corpus))
    return str(Family(folder).manifest["hash"]) if arm.family or is_finished(folder) else None


def measure(arm: Arm, settings: Settings, progress: Progress) -> Measured:
    """Compare the spliced loss with those of the family; NotApplicableError without a family."""
    folder = arm.family or family_folder(text_of(arm.corpus))
    if not arm.family and not is_finished(folder):
        raise NotApplicableError(
            "no family of language models is there for this text: `"
            f"{command(arm.corpus)}` trains one"
        )
    config = splicing(settings)
    progress.start(f"compute, {arm.name}", 4 * spliced_tokens(arm, config), "tokens")
    means = arm.once("means", lambda: Means.of(arm))
    spliced = splice(arm, means.all.float(), config, progress)
    text = arm.once(f"text {config}", lambda: _FamilyText.of(arm, config, folder))
    draws = np.vstack([np.ones(len(text.bytes)), Resampling(len(text.bytes)).weights])
    size = draws @ text.bytes
    original, changed = (draws @ part / size for part in (spliced.original, spliced.spliced))
    curve = arm.once(f"curve {config}", lambda: _Curve.of(text, draws))
    progress.finish()
    return compare(curve, original, changed)


def command(corpus: Corpus) -> str:
    """Return the command that trains the family of a corpus."""
    labels = corpus.sources
    default = [source.label for source in SOURCES if source.share]
    words = ["sememe", "lm-family"]
    if labels != default:
        known = {source.label for source in SOURCES}
        words += ["--text", *(label if label in known else f"PATH={label}" for label in labels)]
    if (held_out := corpus.manifest["config"]["held_out"]) != 0.05:
        words += ["--held-out", str(held_out)]
    return " ".join(words)


class _FamilyText(NamedTuple):
    """The spliced text, by document, and the losses of the family on it."""

    bytes: Float[np.ndarray, " documents"]
    """Bytes of the tokens that the subject predicts."""
    family_bytes: Float[np.ndarray, " documents"]
    """Of those that the family predicts: characters that a window cuts are left out."""
    losses: Float[np.ndarray, "models documents"]
    """In nats, summed."""
    family: Family

    @classmethod
    def of(cls, arm: Arm, config: EvaluateConfig, folder: Path) -> "_FamilyText":
        family = Family(folder)
        try:
            family.check_text(arm.corpus)
        except SememeError as error:
            raise NotApplicableError(str(error)) from error
        place, sizes, texts = window_texts(arm, config)
        documents = int(place.max()) + 1
        losses = family.losses(texts)
        asked = [len(text.asked.encode()) for text in texts]
        return cls(
            np.bincount(place, sizes, documents),
            np.bincount(place, asked, documents),
            np.stack([np.bincount(place, row, documents) for row in losses]),
            family,
        )


def window_texts(
    arm: Arm, config: EvaluateConfig
) -> tuple[Int64[np.ndarray, " windows"], Int64[np.ndarray, " windows"], list[Text]]:
    """Return the windows that are spliced: places of their documents, bytes predicted, text.

    The subject predicts all tokens of a window but the first, and that too after a BOS.
    """
    spliced = SplicedText.of(arm, config)
    bytes_of = arm.model.tokenizer.bytes_of
    given = 1 if arm.model.tokenizer.bos is None else 0
    sizes, texts = [], []
    for number in spliced.chosen:
        start = int(spliced.windows.start[number])
        ids = arm.corpus.tokens(start, start + int(spliced.windows.length[number])).tolist()
        before, asked = (
            b"".join(bytes_of[token] for token in part) for part in (ids[:given], ids[given:])
        )
        sizes.append(len(asked))
        texts.append(Text(before.decode(errors="ignore"), asked.decode(errors="ignore")))
    place = np.searchsorted(spliced.documents, spliced.windows.document[spliced.chosen])
    return place.astype(np.int64), np.array(sizes, dtype=np.int64), texts


class _Curve(NamedTuple):
    """The family's losses on the spliced text, and the curve through them, by draw."""

    law: PowerLaw
    compute: Float[np.ndarray, " models"]
    loss: Float[np.ndarray, "draws models"]
    """In nats a byte."""
    with_floor: bool

    @classmethod
    def of(cls, text: _FamilyText, draws: Float[np.ndarray, "draws documents"]) -> "_Curve":
        loss = (draws @ text.losses.T) / (draws @ text.family_bytes)[:, None]
        return curve(text.family.compute, loss)


def curve(compute: Float[np.ndarray, " models"], loss: Float[np.ndarray, "draws models"]) -> _Curve:
    """Fit the curve of each draw, with a floor E only if the interval of E lies above 0."""
    law = refitted(compute, loss, with_floor=True)
    with_floor = bool(np.quantile(law.floor[1:], 0.025) > 0)
    if not with_floor:
        law = refitted(compute, loss, with_floor=False)
    return _Curve(law, compute, loss, with_floor)


def compare(
    curve: _Curve,
    original: Float[np.ndarray, " draws"],
    spliced: Float[np.ndarray, " draws"],
) -> Measured:
    """Return C_eq / C from losses in nats a byte; the first draw is all documents.

    It is left out, with what following the curve would give, where either loss is further from the
    family's than ``REACH`` in compute.
    """
    law = curve.law
    losses = {"original": original, "spliced": spliced}
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        needed = {name: law.compute(loss) for name, loss in losses.items()}
        ratio = needed["spliced"] / needed["original"]
    estimate = Estimate(float(ratio[0]), ratio[1:])
    found = [
        _beyond(name, float(loss[0]), float(needed[name][0]), curve)
        for name, loss in losses.items()
    ]
    words = "; ".join(beyond.words for beyond in found if beyond.words)
    details: dict[str, Any] = {
        "extrapolated": words or "no: both losses lie within the family's",
        "curve": "L = E + A C^-alpha" if curve.with_floor else "L = A C^-alpha",
        "alpha": _shown(law.exponent),
        "floor_nats_a_byte": _shown(law.floor),
        "losses": {
            name: {"nats_a_byte": _shown(loss), "tflop": _shown(needed[name] / TERA)}
            for name, loss in losses.items()
        },
        "family": [
            {"tflop": float(f"{compute / TERA:.4g}"), "nats_a_byte": loss, "on_the_curve": fitted}
            for compute, loss, fitted in zip(
                curve.compute,
                curve.loss[0].tolist(),
                law.loss(curve.compute)[0].tolist(),
                strict=True,
            )
        ],
    }
    name = METRICS[0].name
    if all(beyond.factor <= REACH for beyond in found):
        return Measured({name: estimate}, details)
    details["followed_all_the_same"] = estimate.to_json()
    return Measured({}, details, {name: f"{words}. The curve is followed {REACH:,g} times at most"})


class _Beyond(NamedTuple):
    """How far a loss lies beyond those of the family."""

    factor: float
    """In compute; 1 within the family, infinite below the curve's floor."""
    words: str


def _beyond(name: str, loss: float, compute: float, curve: _Curve) -> _Beyond:
    least, most = float(curve.compute.min()), float(curve.compute.max())
    found = f"the {name} loss is {loss:.3f} nats a byte"
    if math.isnan(compute):
        floor = float(curve.law.floor[0])
        return _Beyond(
            math.inf, f"{found}, which the curve never reaches: its floor is {floor:.3f}"
        )
    if least <= compute <= most:
        return _Beyond(1.0, "")
    if compute > most:
        factor, best = compute / most, float(curve.loss[0].min())
        words = f"below the family's best {best:.3f}: {_round(factor)} times more compute"
    else:
        factor, worst = least / compute, float(curve.loss[0].max())
        words = f"above the family's worst {worst:.3f}: {_round(factor)} times less compute"
    return _Beyond(factor, f"{found}, {words} than any member had")


def _round(factor: float) -> str:
    return f"{float(f'{factor:.2g}'):,g}"


def _shown(values: Float[np.ndarray, " draws"]) -> dict[str, float | None]:
    return Estimate(float(values[0]), values[1:]).to_json()
