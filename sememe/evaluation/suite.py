"""The whole evaluation: sections over arms, a file for each result, and their comparison."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sememe.artefacts import fingerprint, lock, read_json, write_json
from sememe.evaluation import (
    absorption,
    compute,
    disentanglement,
    fidelity,
    health,
    interpretability,
    probing,
    proxies,
    removal,
    structure,
)
from sememe.evaluation.arms import Arm
from sememe.evaluation.controls import WRITTEN, write_down
from sememe.evaluation.estimates import DRAWS, LEVEL, Estimate
from sememe.evaluation.sections import (
    Measured,
    Metric,
    NotApplicableError,
    Section,
    Settings,
    SuiteName,
)
from sememe.evaluation.trained import TRAINED, Training
from sememe.progress import Progress
from sememe.training.streams import ActivationStream

SECTIONS = (
    Section("fidelity", "Fidelity", fidelity.METRICS, fidelity.measure),
    Section("health", "Health", health.METRICS, health.measure),
    Section("probing", "Sparse probing", probing.METRICS, probing.measure),
    Section(
        "removal",
        "Concept removal",
        removal.METRICS,
        removal.measure,
        ("standard", "full"),
        removal.CAUTION,
    ),
    Section(
        "absorption",
        "Feature absorption",
        absorption.METRICS,
        absorption.measure,
        ("standard", "full"),
        absorption.CAUTION,
    ),
    Section(
        "disentanglement",
        "Disentanglement",
        disentanglement.METRICS,
        disentanglement.measure,
        ("standard", "full"),
        disentanglement.CAUTION,
    ),
    Section("proxies", "Kinds of text", proxies.METRICS, proxies.measure),
    Section(
        "interpretability",
        "Interpretability",
        interpretability.METRICS,
        interpretability.measure,
    ),
    Section("structure", "Structure", structure.METRICS, structure.measure),
    Section(
        "compute",
        "Compute",
        compute.METRICS,
        compute.measure,
        caution=compute.CAUTION,
        inputs=compute.inputs,
    ),
)
"""Every section, in the order of the report; a new one is a module and its line here."""

FORMAT = 1
Report = dict[str, Any]


def arms_of(
    subject: Arm,
    stream: ActivationStream,
    suite: SuiteName,
    controls: Path,
    progress: Progress | None = None,
) -> dict[str, Callable[[], Arm]]:
    """Return how to make the subject and the controls of a suite, by name.

    ``stream`` is what the subject trained on; ``controls`` is where trained ones are kept.
    """
    making = {subject.name: lambda: subject}
    making |= {control.name: partial(write_down, control, subject, stream) for control in WRITTEN}
    if suite != "quick":
        training = Training(subject, stream, controls, progress or Progress())
        making |= {control.name: partial(control.make, control, training) for control in TRAINED}
    return making


@dataclass(frozen=True)
class Result:
    """What an arm scored in a section, and how long that took."""

    measured: Measured
    seconds: float


def run_suite(
    arms: Mapping[str, Callable[[], Arm]],
    settings: Settings,
    out: Path,
    *,
    command: str = "",
    progress: Progress | None = None,
) -> Report:
    """Measure every section of the suite on every arm; write and return the report.

    ``arms`` makes them by name, one after the other; one that raises NotApplicableError is left
    out, and the report says why. Each result is a file of ``out``/results, written when it is
    finished, so that a run that was killed goes on after the last. The report is
    ``out``/SUITE.json; ``command`` is what a reader can run to make it again.
    """
    progress = progress or Progress()
    lock(out)
    sections = [section for section in SECTIONS if settings.suite in section.suites]
    results: dict[str, dict[str, Result]] = {section.name: {} for section in sections}
    facts, left_out = [], {}
    for name, make in arms.items():
        try:
            arm = make()
        except NotApplicableError as error:
            left_out[name] = str(error)
            continue
        for section in sections:
            results[section.name][arm.name] = _result(section, arm, settings, out, progress)
        facts.append(
            {
                "name": arm.name,
                "what": arm.what,
                "role": arm.role,
                "features": arm.features,
                "key": arm.key,
            }
        )
    report = {
        "format": FORMAT,
        "suite": settings.suite,
        "seed": settings.seed,
        "draws": DRAWS,
        "level": LEVEL,
        "command": command,
        "arms": facts,
        "arms_left_out": left_out,
        "sections": [section_report(section, results[section.name], facts) for section in sections],
    }
    write_json(out / f"{settings.suite}.json", report)
    return report


def _result(
    section: Section, arm: Arm, settings: Settings, out: Path, progress: Progress
) -> Result:
    """Return what is on disk for these inputs, or measure it."""
    made_from = {
        "section": section.name,
        "version": section.version,
        "settings": asdict(settings),
        "draws": DRAWS,
        "arm": arm.key,
        "model": arm.model.hash,
        "activations": arm.held_out.hash,
        "corpus": arm.corpus.hash,
    }
    if section.inputs:
        made_from["inputs"] = section.inputs(arm)
    name = f"{section.name}-{arm.name.replace(' ', '-')}-{fingerprint(made_from)[:12]}.json"
    path = out / "results" / name
    if path.exists() and (found := read_json(path)).get("made_from") == made_from:
        return Result(_read(found), found["seconds"])
    begun = time.perf_counter()
    try:
        measured = section.measure(arm, settings, progress)
    except NotApplicableError as error:
        measured = Measured({}, left_out={metric.name: str(error) for metric in section.metrics})
    seconds = round(time.perf_counter() - begun, 2)
    write_json(path, {"made_from": made_from, "seconds": seconds, **_written(measured)})
    return Result(measured, seconds)


def _written(measured: Measured) -> dict[str, Any]:
    """Return a result as JSON, its draws included, so that it can be compared with later ones."""
    return {
        "estimates": {
            name: [_known(estimate.value), [_known(draw) for draw in estimate.draws.tolist()]]
            for name, estimate in measured.estimates.items()
        },
        "details": measured.details,
        "left_out": measured.left_out,
    }


def _read(found: dict[str, Any]) -> Measured:
    estimates = {
        name: Estimate(math.nan if value is None else value, np.array(draws, dtype=np.float64))
        for name, (value, draws) in found["estimates"].items()
    }
    return Measured(estimates, found["details"], found["left_out"])


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def section_report(
    section: Section, results: dict[str, Result], arms: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return the part of the report that is the section's."""
    scored = {name: result.measured for name, result in results.items()}
    roles = {arm["name"]: arm["role"] for arm in arms}
    subject = next(name for name, role in roles.items() if role == "subject")
    return {
        "name": section.name,
        "title": section.title,
        "caution": section.caution,
        "seconds": {name: result.seconds for name, result in results.items()},
        "rows": [_row(metric, scored, subject) for metric in section.metrics],
        "details": {name: measured.details for name, measured in scored.items()},
    }


def _row(metric: Metric, scored: dict[str, Measured], subject: str) -> dict[str, Any]:
    estimates = {
        name: measured.estimates[metric.name]
        for name, measured in scored.items()
        if metric.name in measured.estimates
    }
    mine = estimates.get(subject)
    return {
        "metric": metric.name,
        "title": metric.title,
        "what": metric.what,
        "units": metric.units,
        "better": metric.better,
        "against": [name for name in metric.against if name in estimates],
        "figures": {name: estimate.to_json() for name, estimate in estimates.items()},
        "left_out": {
            name: measured.left_out[metric.name]
            for name, measured in scored.items()
            if metric.name in measured.left_out
        },
        "verdict": verdict(metric, mine, estimates) if mine else None,
    }


def verdict(metric: Metric, subject: Estimate, others: dict[str, Estimate]) -> str | None:
    """Say in words whether the subject beats the controls that the metric is held to.

    It beats one where the 95% interval of the paired difference lies on the better side of 0. None
    where the metric is held to none, or none of them was measured.
    """
    held_to = [name for name in metric.against if name in others]
    if metric.better == "neither" or not held_to:
        return None
    sign = 1 if metric.better == "higher" else -1
    equal = [
        name for name in held_to if not _signed(subject, sign).exceeds(_signed(others[name], sign))
    ]
    return f"no better than {', '.join(equal)}" if equal else "beats its controls"


def _signed(estimate: Estimate, sign: int) -> Estimate:
    return Estimate(sign * estimate.value, sign * estimate.draws)
