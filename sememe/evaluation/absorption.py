"""Feature absorption (2409.14507): features that should know a letter are silent, others speak.

Which features are main ones of a letter, and what others have taken over by projection, is in
``letters.py``. Here also by effect, as the paper has it: where all main features are silent, what
the model's answer loses when another feature is taken away.

Axis names: words = those asked about, letters = those with enough words, features = of the
dictionary, width = of an activation.
"""

from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sememe.evaluation.arms import Arm
from sememe.evaluation.estimates import Estimate, Resampling, ratio
from sememe.evaluation.letters import ALIGNED, PROBED, Coded, Letter, examine, f1, probe
from sememe.evaluation.linear_probe import Probe
from sememe.evaluation.probing import STRUCTURED
from sememe.evaluation.prompts import answers
from sememe.evaluation.sections import Measured, Metric, NotApplicableError, Settings
from sememe.evaluation.spelling import LETTERS, Spelling, spell
from sememe.models.language_model import LanguageModel
from sememe.progress import Progress

EFFECT = 1.0
"""Logits by which the effect of an absorbing feature exceeds the next."""
TRIED = 3
"""Features taken away one by one, those with the largest effects to first order."""
MISSES = 64
"""Words whose features are taken away, at most; drawn."""
CAUTION = (
    "A dictionary whose features know nothing of letters absorbs none: read absorption beside the "
    "F1 of the main features. SAEBench advises models of a billion parameters and dictionaries of "
    "16,384 features or more; below, and for dictionaries trained briefly, low figures say little."
)
_WORDS = "words whose letter the probe sees and the model says"
METRICS = (
    Metric(
        "absorption_fraction",
        "Absorption, in part",
        "Mean share of the main features' part in the probe's direction that up to three other "
        f"features have taken over, on {_WORDS} (SAEBench).",
        "lower",
        "words",
    ),
    Metric(
        "absorption_full",
        "Absorption, by projection",
        f"Share of {_WORDS}, where all main features are silent and one other feature has at least "
        "two fifths of the projection on the probe (SAEBench).",
        "lower",
        "words",
    ),
    Metric(
        "absorption_effect",
        "Absorption, by effect",
        f"Share of {_WORDS}, where all main features are silent and taking away one feature that "
        "points along the probe costs the letter's logit at least 1 more than taking away any "
        "other (2409.14507).",
        "lower",
        "words",
    ),
    Metric(
        "letter_silent",
        "Main features silent",
        f"Share of {_WORDS} on which no main feature of the letter fires.",
        "neither",
        "words",
    ),
    Metric(
        "letter_f1",
        "F1 of main features",
        "Test F1 of logistic regression on a letter's main features, which are as many as add 0.03 "
        "each, 10 at most; mean over letters.",
        "higher",
        "words",
        STRUCTURED,
    ),
    Metric(
        "letter_probe_f1",
        "F1 of the activation",
        "The same of logistic regression on the whole activation: no dictionary takes part.",
        "neither",
        "words",
    ),
    Metric(
        "letter_said",
        "Letters the model says",
        "Share of test words whose first letter the model says after five examples. Below 0.5 "
        "nothing is measured.",
        "neither",
        "words",
    ),
)


def measure(arm: Arm, settings: Settings, progress: Progress) -> Measured:
    """Measure the letters that the activation knows; NotApplicableError where they are too few."""
    spelling = arm.once(
        f"spelling {settings} {arm.model.hash}",
        partial(spell, arm.model, arm.site, settings.suite, settings.seed),
    )
    probes, known = arm.once(f"letters {settings} {arm.model.hash}", partial(probe, spelling))
    if len(known) < LETTERS:
        raise NotApplicableError(
            f"a linear probe at {arm.site} finds {len(known)} letters with an F1 of {PROBED}: at "
            f"least {LETTERS} are needed"
        )
    progress.start(f"absorption, {arm.name}", len(known), "letters")
    coded = Coded.of(arm, spelling)
    found = []
    for letter in known:
        found.append(examine(coded, spelling, letter, probes[letter]))
        progress.advance(1)
    by_effect(arm.model, arm.site, coded, spelling, found, settings.seed)
    measured = summarise(spelling, probes, found)
    progress.finish(f"absorbed {measured.estimates['absorption_full'].value:.3f}")
    return measured


def by_effect(
    model: LanguageModel,
    site: str,
    coded: Coded,
    spelling: Spelling,
    found: list[Letter],
    seed: int,
) -> None:
    """Take features away from words whose main ones are silent, and note where one stands out.

    Of more than 64 such words some are drawn, and each of these counts for several.
    """
    asked = spelling.test.nonzero()[:, 0]
    silent = [(n, word) for n, each in enumerate(found) for word in np.flatnonzero(each.silent)]
    few = np.random.default_rng(seed).permutation(len(silent))[:MISSES]
    if not len(few):
        return
    chosen = [silent[n] for n in few.tolist()]
    words = asked[[word for _, word in chosen]]
    code, directions = coded.code[words.numpy()].toarray(), coded.directions / coded.scale
    steps = code * (spelling.gradients[words].double().numpy() @ directions.T)
    tried = np.argsort(-steps, axis=1, kind="stable")[:, :TRIED]
    value = np.take_along_axis(code, tried, axis=1)
    change = torch.from_numpy(-value[:, :, None] * directions[tried]).float()
    added = torch.cat([torch.zeros(len(words), 1, change.shape[2]), change], 1)
    prompts = [spelling.prompts[n] for n in words.tolist() for _ in range(TRIED + 1)]
    logits = answers(
        model,
        site,
        prompts,
        spelling.among.expand(len(prompts), -1),
        added.flatten(0, 1),
    ).logits
    label = spelling.label[words].repeat_interleave(TRIED + 1)
    margin = over_others(logits, label).unflatten(0, (-1, TRIED + 1)).numpy()
    first = stands_out(margin[:, :1] - margin[:, 1:])
    for (n, word), top, features in zip(chosen, first, tried, strict=True):
        if top is not None and found[n].cosine[features[top]] >= ALIGNED:
            found[n].effect[word] = len(silent) / len(chosen)


def over_others(
    logits: Float[Tensor, "words letters"], label: Int64[Tensor, " words"]
) -> Float[Tensor, " words"]:
    """Return the logit of each word's letter less the mean of the other letters'."""
    own = logits.gather(1, label[:, None])[:, 0]
    return own - (logits.sum(1) - own) / (logits.shape[1] - 1)


def stands_out(effects: Float[np.ndarray, "words tried"]) -> list[int | None]:
    """Return the place of the effect that exceeds every other of its word by 1 logit, if any."""
    order = np.argsort(-effects, axis=1)
    ranked = np.take_along_axis(effects, order, axis=1)
    return [
        int(place) if gap >= EFFECT else None
        for place, gap in zip(order[:, 0], ranked[:, 0] - ranked[:, 1], strict=True)
    ]


def summarise(spelling: Spelling, probes: list[Probe], found: list[Letter]) -> Measured:
    """Return the shares of words and the F1 of letters; words are drawn."""
    test = spelling.test.numpy()
    words = Resampling(int(test.sum()))
    counted = np.sum([each.counted for each in found], axis=0)

    def share(name: str) -> Estimate:
        total = np.sum([getattr(each, name).astype(np.float64) for each in found], axis=0)
        return words.estimate(ratio, total, counted)

    own, guessed, seen = (
        np.stack(columns, axis=1)
        for columns in zip(
            *(
                (
                    (spelling.label == each.letter).numpy()[test],
                    each.guessed,
                    probes[each.letter].sees(spelling.values.double().numpy()[test]),
                )
                for each in found
            ),
            strict=True,
        )
    )
    estimates = {
        "absorption_fraction": share("fraction"),
        "absorption_full": share("full"),
        "absorption_effect": share("effect"),
        "letter_silent": share("silent"),
        "letter_f1": words.estimate(mean_f1, own & guessed, own, guessed),
        "letter_probe_f1": words.estimate(mean_f1, own & seen, own, seen),
        "letter_said": words.estimate(
            ratio, spelling.right.numpy()[test], np.ones(int(test.sum()))
        ),
    }
    letters = [
        {
            "letter": spelling.letters[each.letter],
            "main_features": each.main,
            "f1": f1(own[:, n], each.guessed),
            "probe_f1": f1(own[:, n], seen[:, n]),
            "words": int(each.counted.sum()),
            "silent": int(each.silent.sum()),
            "absorbed": int(each.full.sum()),
            "absorbing_features": each.absorbing,
        }
        for n, each in enumerate(found)
    ]
    return Measured(estimates, {"letters": letters})


def mean_f1(
    both: Float[np.ndarray, "draws letters"],
    own: Float[np.ndarray, "draws letters"],
    guessed: Float[np.ndarray, "draws letters"],
) -> Float[np.ndarray, " draws"]:
    """Return the mean F1 of letters, from numbers of words."""
    found: np.ndarray = (2 * both / np.maximum(own + guessed, 1)).mean(1)
    return found
