"""Rates beside counts by hand, and a whole trial on texts that a planted feature tells apart."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, precision_score, recall_score
from sklearn.model_selection import train_test_split

from sememe import cli
from sememe.dictionaries.nonlinearities import ReLU
from sememe.errors import SememeError
from sememe.intervention.features import FeatureSet
from sememe.intervention.monitor import Monitor, Watch
from sememe.intervention.trial import best_limit, rates, trial
from sememe.models.language_model import LanguageModel
from sememe.models.reading import read
from tests.intervention.conftest import random_dictionary
from tests.test_cli import failed

SITE = "module:model.embed_tokens"


def test_rates_are_those_of_sklearn() -> None:
    draw = np.random.default_rng(0)
    truth, flagged = draw.random(200) < 0.3, draw.random(200) < 0.4
    tokens = draw.integers(5, 90, 200).astype(float)
    found = rates(flagged, truth, tokens)
    assert found["precision"]["value"] == pytest.approx(precision_score(truth, flagged))
    assert found["recall"]["value"] == pytest.approx(recall_score(truth, flagged))
    alarms = (flagged & ~truth).sum() / tokens[~truth].sum() * 1e6
    assert found["false_alarms"]["value"] == pytest.approx(alarms)
    for figure in found.values():
        assert figure["low"] < figure["value"] < figure["high"]
    none = rates(np.zeros(200, bool), truth, tokens)
    assert none["precision"]["value"] is None
    assert none["recall"]["value"] == 0


def test_the_best_limit_has_the_best_f1() -> None:
    draw = np.random.default_rng(1)
    for _ in range(20):
        truth = draw.random(40) < 0.4
        score = np.round(draw.standard_normal(40) + truth, 1)
        limit = best_limit(score, truth)
        every = [f1_score(truth, score > other) for other in (*(score - 0.05), *(score + 0.05))]
        assert f1_score(truth, score > limit) == pytest.approx(max(every))


def texts_with(word: str, count: int = 40) -> tuple[list[str], list[bool]]:
    draw = np.random.default_rng(3)
    fillers = ["the sea was calm", "she said that", "over the hills", "in 1984 there were"]
    labels = [number % 2 == 0 for number in range(count)]
    texts = []
    for label in labels:
        words = [str(draw.choice(fillers)) for _ in range(4)]
        if label:
            words.insert(int(draw.integers(1, 4)), word)
        texts.append(" ".join(words))
    return texts, labels


def planted(model: LanguageModel, word: str, texts: list[str]) -> FeatureSet:
    """Return a dictionary whose feature 0 is about 1 on the last token of a word, elsewhere 0."""
    last = model.tokenizer.encode(f" {word}")[-1]
    rows = [torch.tensor([[0, *model.tokenizer.encode(text)]]) for text in texts]
    x = torch.cat([read(model, ids, [SITE])[SITE][0, 1:] for ids in rows])
    wanted = (torch.cat([ids[0, 1:] for ids in rows]) == last).float()
    dictionary = random_dictionary(SITE, SITE, nonlinearity=ReLU())
    with torch.no_grad():
        dictionary.b_dec.zero_()
        dictionary.b_enc.zero_()
        direction = torch.linalg.lstsq(x, wanted[:, None]).solution[:, 0]
        dictionary.W_enc[0] = direction / dictionary.read_scale
    return FeatureSet(dictionary)


def test_a_planted_feature_is_right(model: LanguageModel) -> None:
    texts, labels = texts_with("return first")
    features = planted(model, "return first", texts)
    monitor = Monitor([Watch(SITE, 0, 0.6), Watch(SITE, 1, 1e6)], [features])
    found = trial(model, monitor, texts, labels)
    assert (found["texts"], found["tested"], found["true"]) == (40, 20, 10)
    alerts = []
    for text in texts:
        said: list[object] = []
        monitor.read(model, [model.tokenizer.encode(text)], said.append)
        alerts.append(bool(said))
    wrong = sum(alert != label for alert, label in zip(alerts, labels, strict=True))
    assert wrong == 0
    _, test = train_test_split(np.arange(40), test_size=0.5, stratify=labels, random_state=0)
    flagged, truth = np.array(alerts)[test], np.array(labels)[test]
    assert found["given"]["precision"]["value"] == pytest.approx(precision_score(truth, flagged))
    assert found["given"]["recall"]["value"] == pytest.approx(recall_score(truth, flagged))
    assert found["given"]["auc"] > 0.8
    assert found["fitted"]["recall"]["value"] > 0.6
    assert found["probe"]["auc"] > 0.8
    wrong_way = trial(model, monitor, texts, [not label for label in labels])
    assert wrong_way["given"]["auc"] == pytest.approx(1 - found["given"]["auc"])
    with pytest.raises(SememeError, match="4 texts, 2 labelled true and 2 false"):
        trial(model, monitor, texts[:4], labels[:4])


def test_the_command_measures(
    small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts, labels = texts_with("return first")
    file = tmp_path / "labelled.jsonl"
    rows = [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]
    file.write_text("\n".join(map(json.dumps, rows)))
    words = ["monitor", str(small_run), "--watch", "5>0.1x", "--labelled"]
    cli.main([*words, str(file)])
    told = json.loads(capsys.readouterr().out)
    assert told["texts"] == 40
    assert {"given", "fitted", "probe"} < set(told)
    assert set(told["probe"]) == {"limit", "precision", "recall", "false_alarms", "auc"}
    file.write_text('{"text": "a", "label": 1}')
    status, line = failed([*words, str(file)], capsys)
    assert (status, "line 1: expected" in line) == (2, True)
    file.write_text("")
    status, line = failed([*words, str(file)], capsys)
    assert (status, "0 texts" in line) == (1, True)
