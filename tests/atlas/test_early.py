"""Early features against a count by hand, and what looking at them may cost."""

from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sememe.activations.store import ROW_FACTS, Activations
from sememe.atlas.early import Early, EarlyLooks, early_features
from sememe.corpora.corpus import Corpus
from sememe.dictionaries.dictionary import Dictionary
from sememe.progress import KeptProgress
from sememe.run import Run


@pytest.fixture(scope="module")
def run(small_run: Path) -> Run:
    return Run(small_run)


def looks(run: Run, shown: list[Early], progress: KeptProgress | None = None) -> EarlyLooks:
    store = Activations.open(run.activations)
    return EarlyLooks(store, store.sites[0], [b"x"] * 512, shown.append, progress or KeptProgress())


def test_features_have_the_frequency_tokens_and_context_that_a_count_finds(run: Run) -> None:
    store, dictionary = Activations.open(run.activations), Dictionary.load(run.dictionary)
    rows = np.arange(100, 900)
    facts = {name: store.take(name, rows).numpy() for name in ROW_FACTS}
    values = store.take(store.sites[0], rows).float()
    found = early_features(dictionary, values, facts)

    dense = torch.zeros(len(rows), dictionary.config.features)
    with torch.no_grad():
        code = dictionary.encode(values)
    for row in range(len(rows)):
        for index, value in zip(code.indices[row].tolist(), code.values[row].tolist(), strict=True):
            dense[row, index] = value
    frequency = (dense > 0).double().mean(0)
    usual = sorted((f for f in frequency.tolist() if 0 < f <= 0.1), reverse=True)
    assert [item.frequency for item in found] == pytest.approx(usual[: len(found)])
    assert len(found) == min(24, len(usual))
    tokens = facts["token"].tolist()
    corpus = Corpus.open(run.corpus)
    for item in found:
        mine = dense[:, item.feature]
        best = int(mine.argmax())
        assert item.maximum == pytest.approx(float(mine.max()))
        assert item.context[item.peak] == tokens[best]
        assert item.values[item.peak] == item.maximum
        first = best - item.peak
        assert item.values == pytest.approx(mine[first : first + len(item.values)].tolist())
        strong = mine.argsort(descending=True, stable=True)[:16]
        mass = dict.fromkeys(item.tokens, 0.0)
        for place in strong[mine[strong] > 0].tolist():
            mass[tokens[place]] += float(mine[place])
        assert list(mass.values()) == sorted(mass.values(), reverse=True)
        place = int(facts["place"][best]) - item.peak
        assert corpus.tokens(place, place + len(item.context)).tolist() == item.context


def test_later_looks_are_taken_only_while_they_cost_little(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = count()  # a second passes whenever it is looked at
    told = SimpleNamespace(monotonic=lambda: float(next(clock)))
    monkeypatch.setattr("sememe.atlas.early.time", told)
    dictionary, shown = Dictionary.load(run.dictionary), []
    look = looks(run, shown)
    for trained in range(1000):
        look(dictionary, trained)
    taken = [early.trained for early in shown]
    assert taken[0] == 0
    assert 2 <= len(taken) < 20
    assert all(early.cost <= 0.01 for early in shown[1:])


def test_an_error_in_a_look_is_told_once_and_is_no_more(run: Run) -> None:
    shown: list[Early] = []
    progress = KeptProgress()
    look = looks(run, shown, progress)
    broken = Dictionary.load(run.dictionary)
    broken.W_enc.data = broken.W_enc.data[:, :3]
    look(broken, 1)
    look(Dictionary.load(run.dictionary), 2)
    assert shown == []
    (message,) = progress.messages
    assert message.startswith("early features cannot be shown: ")
