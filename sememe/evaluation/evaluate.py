"""The report of the main job: fidelity and sparsity of a dictionary on held-out documents."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from sememe.activations.store import Activations
from sememe.artefacts import fingerprint, read_json, write_json
from sememe.corpora.corpus import Corpus
from sememe.dictionaries.dictionary import Dictionary
from sememe.evaluation.arms import Arm
from sememe.evaluation.fidelity import Look, look
from sememe.evaluation.health import frequency_histogram
from sememe.evaluation.metrics import DENSE
from sememe.evaluation.splicing import EvaluateConfig
from sememe.models.language_model import LanguageModel
from sememe.progress import Progress

Report = dict[str, Any]
VERSION = 2
"""Of what the report holds."""


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
    arm = Arm.subject(dictionary, model, held_out, corpus)
    made_from = {
        "model": model.hash,
        "dictionary": dictionary.manifest["hash"],
        "activations": held_out.hash,
        "config": fingerprint({**asdict(config), "version": VERSION}),
    }
    if out.exists() and (found := read_json(out)).get("made_from") == made_from:
        return dict(found)
    seen = look(arm, config, progress, "evaluate")
    report = {
        "model": model.name,
        "site": arm.site,
        "features": dictionary.config.features,
        **_figures(seen, held_out.rows),
        "made_from": made_from,
    }
    write_json(out, report)
    return report


def _figures(seen: Look, rows: int) -> Report:
    """Return the figures of the report, with their intervals apart."""
    estimates = {name: found.to_json() for name, found in seen.measured.estimates.items()}
    details = seen.measured.details
    frequency = seen.fired.double() / rows
    return {
        **{name: found["value"] for name, found in estimates.items()},
        "held_out_tokens": details["held_out_tokens"],
        "spliced_tokens": details["spliced_tokens"],
        "silent_share": float((seen.fired == 0).double().mean()),
        "dense_share": float((frequency > DENSE).double().mean()),
        "frequency_histogram": frequency_histogram(seen.fired, rows),
        "by_source": {
            label: {"tokens": part["tokens"], "fvu": part["fvu"]["value"]}
            for label, part in details["by_source"].items()
        },
        "cross_entropy": {name: part["value"] for name, part in details["cross_entropy"].items()},
        "intervals": {name: [found["low"], found["high"]] for name, found in estimates.items()},
    }
