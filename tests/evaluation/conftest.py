"""The dictionary of a small run as an arm."""

from pathlib import Path

import pytest

from sememe.activations.store import Activations
from sememe.corpora.corpus import Corpus
from sememe.dictionaries.dictionary import Dictionary
from sememe.evaluation.arms import Arm
from sememe.run import Run


@pytest.fixture(scope="module")
def subject(small_run: Path) -> Arm:
    run = Run(small_run)
    return Arm.subject(
        Dictionary.load(run.dictionary),
        run.load_model(),
        Activations.open(run.held_out),
        Corpus.open(run.corpus),
    )
