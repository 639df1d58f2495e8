"""A small report of an evaluation, put together by the suite's own code."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from sememe.evaluation.estimates import Estimate
from sememe.evaluation.sections import Measured, Metric, Section
from sememe.evaluation.suite import Result, section_report

HOSTILE = "<img src=x onerror='window.hacked=1'>"
ARMS: list[dict[str, Any]] = [
    {"name": name, "what": what, "role": role, "features": features, "key": key}
    for name, what, role, features, key in (
        ("another seed", "The same recipe.", "replicate", 60, "c3d4"),
        ("dictionary", "The small one.", "subject", 60, "a1b2"),
        ("pca", "Principal components.", "control", 8, "e5f6"),
        ("neurons", "Dimensions.", "control", 8, "a7b8"),
    )
]
METRICS = (
    Metric("fvu", "unexplained", "Σ ‖x - x̂‖².", "lower", "documents", ("pca", "neurons")),
    Metric("kl", "KL divergence", "In nats.", "lower", "documents", ("pca", "neurons")),
    Metric("l0", "active features", "On a token.", "neither", "documents"),
)
VALUES = {
    "dictionary": (0.16, 0.5, 4.0),
    "pca": (0.39, 0.51, 4.0),
    "neurons": (0.44, 1.5, 4.0),
    "another seed": (0.17, 0.52, 4.0),
}
NOISE = np.random.default_rng(0).normal(size=(2, 500))


def _estimate(value: float, spread: float, noise: int = 0) -> Estimate:
    return Estimate(value, value + spread * NOISE[noise])


def small_report(suite: str = "quick") -> dict[str, Any]:
    """Return a report: fvu beats the controls, kl not pca, and a source has a hostile name."""
    results = {
        name: Result(
            Measured(
                {
                    "fvu": _estimate(fvu, 0.004),
                    "kl": _estimate(kl, 0.05, int(name == "pca")),
                    "l0": _estimate(l0, 0),
                },
                {
                    "documents": 12,
                    "by_source": {
                        HOSTILE: {"tokens": 50, "fvu": _estimate(fvu, 0.01).to_json()},
                        "brown": {"tokens": 70, "fvu": {"value": 0.2, "low": None, "high": None}},
                    },
                    "l0": {"smallest": 1, "largest": 9, "quantiles": {"0.5": 4}},
                    "frequency_histogram": {"log10_edges": [-2.0, -1.0, 0.0], "counts": [3, 40]},
                    "dense": [{"feature": 7, "kind": "antipodal pair", "antipode": [9, -0.95]}],
                    "something new": {"deep": [1, {"deeper": 2.5}]},
                },
                {"kl": "it has none"} if name == "another seed" else {},
            ),
            1.5,
        )
        for name, (fvu, kl, l0) in VALUES.items()
    }
    del results["another seed"].measured.estimates["kl"]
    section = Section("fidelity", "Fidelity", METRICS, lambda *_: results["pca"].measured)
    return {
        "format": 1,
        "suite": suite,
        "seed": 0,
        "draws": 500,
        "level": 0.95,
        "command": f"sememe evaluate runs/small --suite {suite}",
        "arms": ARMS,
        "arms_left_out": {"gaussian": "needs 1,000 rows"},
        "sections": [section_report(section, results, ARMS)],
    }


def write_small_reports(folder: Path, *suites: str) -> Path:
    """Write reports as ``folder``/SUITE.json, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for suite in suites:
        (folder / f"{suite}.json").write_text(json.dumps(small_report(suite)))
    return folder
