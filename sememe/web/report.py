"""The evaluation's reports as the page shows them: read from their files whenever asked for."""

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from sememe.errors import SememeError

FORMAT = 1
SuiteName = Literal["full", "standard", "quick"]
SUITES: tuple[SuiteName, ...] = ("full", "standard", "quick")
"""Fullest first."""


class Estimated(Struct):
    """A figure with its interval; null where it is undefined."""

    value: float | None
    low: float | None
    high: float | None


class EvaluatedArm(Struct):
    """What was measured: the dictionary, a control or a replicate."""

    name: str
    what: str
    role: Literal["subject", "control", "replicate"]
    features: int
    key: Annotated[str, Meta(description="Hash of what it is made of; a dictionary's own.")] = ""


class MetricRow(Struct):
    """A metric's figures on every arm."""

    metric: str
    title: str
    what: str
    units: Annotated[str, Meta(description="What the bootstrap draws.")]
    better: Literal["higher", "lower", "neither"]
    against: Annotated[list[str], Meta(description="The controls that the dictionary is held to.")]
    figures: Annotated[dict[str, Estimated], Meta(description="By the names of arms.")]
    left_out: Annotated[dict[str, str], Meta(description="By the names of arms, why.")]
    verdict: Annotated[
        str | None, Meta(description="Whether the dictionary beats its controls; null: no verdict.")
    ]


class EvaluatedSection(Struct):
    """A part of a report."""

    name: str
    title: str
    seconds: Annotated[dict[str, float], Meta(description="By the names of arms.")]
    rows: list[MetricRow]
    details: Annotated[dict[str, dict[str, Any]], Meta(description="By the names of arms.")]
    caution: Annotated[
        str, Meta(description="What to know before the figures are believed; mostly empty.")
    ] = ""


class Evaluation(Struct, kw_only=True):
    """A suite's report."""

    format: int
    suite: SuiteName
    seed: int
    draws: Annotated[int, Meta(description="Of the bootstrap.")]
    level: Annotated[float, Meta(description="Of the intervals.")]
    command: Annotated[str, Meta(description="What makes it again.")]
    arms: list[EvaluatedArm]
    arms_left_out: Annotated[dict[str, str], Meta(description="By the names of arms, why.")]
    sections: list[EvaluatedSection]


class Evaluations(Struct):
    """Every suite's report that there is, the fullest first."""

    reports: list[Evaluation]


def suites_in(folder: Path | None) -> list[SuiteName]:
    """Return the suites that ``folder``, a run's evaluation, has reports of, the fullest first."""
    return [suite for suite in SUITES if folder and (folder / f"{suite}.json").exists()]


def read_reports(folder: Path | None) -> Evaluations:
    """Return the reports in ``folder``; SememeError names one that this version cannot read."""
    return Evaluations([_read(folder / f"{s}.json") for s in suites_in(folder) if folder])


def _read(path: Path) -> Evaluation:
    try:
        report = msgspec.json.decode(path.read_bytes(), type=Evaluation)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SememeError(f"{path} is no report of an evaluation ({error}): make it anew") from None
    if report.format != FORMAT:
        raise SememeError(
            f"{path} has format {report.format}, and this version reads {FORMAT}: make it anew"
        )
    return report
