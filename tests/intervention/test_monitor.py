"""Alerts beside a whole code of every token, and the command that prints them."""

import io
import json
from pathlib import Path

import pytest
import torch

from sememe import cli
from sememe.dictionaries.nonlinearities import Nonlinearity
from sememe.errors import SememeError, UsageError
from sememe.intervention.features import FeatureSet
from sememe.intervention.intervene import intervene
from sememe.intervention.monitor import Alert, Monitor, Watch, parse_watch
from sememe.models.generation import generate, prompt_ids
from sememe.models.language_model import LanguageModel
from sememe.models.reading import read
from tests.intervention.conftest import KINDS, random_dictionary
from tests.intervention.test_intervene import dense
from tests.test_cli import failed

SITE = "layers.0.resid"
TEXT = "The captain watched the sea in the morning. Nobody sold the hills for 37 days."


def expected(
    model: LanguageModel, features: FeatureSet, ids: list[int], watches: list[Watch]
) -> list[tuple[int, int, float]]:
    """Return position, feature and value of every alert, from whole codes."""
    x = read(model, torch.tensor([ids]), [features.reads])[features.reads][0].float()
    code = dense(features.dictionary, x)
    if features.rules is not None:
        code[~features.rules.keep(torch.tensor(ids), {features.reads: x})] = 0
    return [
        (place, watch.feature, float(code[place, watch.feature]))
        for place in range(len(ids))
        for watch in watches
        if code[place, watch.feature] > watch.above
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_alerts_are_where_the_code_is_above_the_limit(
    model: LanguageModel, kind: Nonlinearity
) -> None:
    features = FeatureSet(random_dictionary(SITE, SITE, nonlinearity=kind))
    ids = prompt_ids(model, TEXT)
    watches = [Watch(SITE, feature, limit) for feature in range(40) for limit in (1.0,)]
    monitor, alerts = Monitor(watches, [features]), []
    with monitor.watching(model, alerts.append) as done:
        model.logits(torch.tensor([ids]))
    found = [(each.position, each.feature, each.value) for each in alerts]
    wanted = expected(model, features, ids, watches)
    assert len(wanted) > 5
    assert [each[:2] for each in found] == [each[:2] for each in wanted]
    assert [each[2] for each in found] == pytest.approx([each[2] for each in wanted], rel=1e-4)
    assert (done.tokens, done.alerts) == (len(ids), len(alerts))
    assert alerts[0].token == model.tokenizer.decode([ids[alerts[0].position]])


def test_text_in_windows_and_text_as_it_is_written(
    model: LanguageModel, features: FeatureSet
) -> None:
    watches = [Watch(SITE, feature, 0.3, f"f{feature}") for feature in range(0, 128, 3)]
    monitor = Monitor(watches, [features])
    texts = [model.tokenizer.encode(text) for text in (TEXT, "Nobody", TEXT * 2)]
    alerts: list[Alert] = []
    done = monitor.read(model, texts, alerts.append, window=21)
    assert done.tokens == sum(map(len, texts))
    wanted = []
    for number, text in enumerate(texts):
        for start in range(0, len(text), 20):
            part = [0, *text[start : start + 20]]
            wanted += [
                (number, start + place - 1, feature)
                for place, feature, _ in expected(model, features, part, watches)
            ]
    assert len(wanted) > 10
    assert sorted((each.text, each.position, each.feature) for each in alerts) == sorted(wanted)
    rows = [[0, *text[:9]] for text in texts]
    alerts.clear()
    with monitor.watching(model, alerts.append) as done:
        new = generate(model, rows, tokens=7)
    assert done.tokens == sum(map(len, rows)) + 3 * 6
    wanted = [
        (number, place, feature, place >= len(row))
        for number, (row, more) in enumerate(zip(rows, new, strict=True))
        for place, feature, _ in expected(model, features, [*row, *more[:-1]], watches)
    ]
    assert sorted((a.text, a.position, a.feature, a.new) for a in alerts) == sorted(wanted)
    assert alerts[0].name == f"f{alerts[0].feature}"


def test_watching_changes_nothing_and_sees_what_was_changed(
    model: LanguageModel, features: FeatureSet
) -> None:
    ids = torch.tensor([prompt_ids(model, TEXT)])
    monitor, alerts = Monitor([Watch(SITE, 5, 2.0)], [features]), []
    plain = model.logits(ids)
    with monitor.watching(model, alerts.append):
        assert torch.equal(model.logits(ids), plain)
    before = len(alerts)
    with (
        intervene(model, {features: {5: "add:20"}}),
        monitor.watching(model, alerts.append),
    ):
        model.logits(ids)
    assert len(alerts) - before > before


def test_a_monitor_file_comes_back(
    model: LanguageModel, features: FeatureSet, tmp_path: Path
) -> None:
    maximum = features.maximum(7)
    watches = [parse_watch("seven=7>0.5x", [features]), parse_watch(f"{SITE}:9>1.5", [features])]
    assert watches == [Watch(SITE, 7, maximum / 2, "seven"), Watch(SITE, 9, 1.5)]
    Monitor(watches, [features]).save(tmp_path / "m.json")
    assert Monitor.open(tmp_path / "m.json", [features]).watches == watches
    other = FeatureSet(random_dictionary(SITE, SITE))
    with pytest.raises(SememeError, match="was made for dictionary"):
        Monitor.open(tmp_path / "m.json", [other])
    (tmp_path / "n.json").write_text("[1]")
    with pytest.raises(SememeError, match="is no monitor file"):
        Monitor.open(tmp_path / "n.json", [features])
    (tmp_path / "n.json").write_text('{"kind": "monitor", "format": 9}')
    with pytest.raises(SememeError, match="newer sememe"):
        Monitor.open(tmp_path / "n.json", [features])


def test_wrong_watches_are_refused(model: LanguageModel, features: FeatureSet) -> None:
    for text, message in (
        ("5", "watch is '5'"),
        ("5>x", "when is"),
        ("5>nan", "when is"),
        ("999>1", "feature 999"),
        ("layers.1.resid:5>1", "expected SITE: with one of layers.0.resid"),
    ):
        with pytest.raises(UsageError, match=message):
            parse_watch(text, [features])
    for watches, message in (
        ([], "no features"),
        ([Watch(SITE, 5, -1.0)], "limit of feature 5 is -1.0"),
        ([Watch(SITE, 5, float("nan"))], "limit of feature 5 is nan"),
        ([Watch("layers.1.resid", 5, 1.0)], "but the dictionaries read layers.0.resid"),
    ):
        with pytest.raises(UsageError, match=message):
            Monitor(watches, [features])
    with pytest.raises(UsageError, match="two of the dictionaries"):
        Monitor([Watch(SITE, 5, 1.0)], [features, features])


def test_what_cannot_be_watched_is_an_error(tiny_directory: Path) -> None:
    import sememe

    model = sememe.load_model(str(tiny_directory), dtype="fp32")
    site = "layers.2.resid"
    monitor = Monitor([Watch(site, 5, 1.0)], [FeatureSet(random_dictionary(site, site))])
    ids = torch.tensor([[1, 2, 3]])
    with monitor.watching(model, print):
        model.logits(ids)
        model.module.config.num_hidden_layers = 2
        with pytest.raises(SememeError, match="did not run, so that its tokens were not watched"):
            model.logits(ids)


def test_the_command_streams_lines(
    small_run: Path,
    model: LanguageModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    watches = [word for n in range(0, 128, 4) for word in ("--watch", f"n{n}={n}>0.2")]
    file = str(tmp_path / "m.json")
    cli.main(["monitor", str(small_run), *watches, "--save", file])
    assert capsys.readouterr().out == ""
    cli.main(["monitor", str(small_run), "--file", file, "--text", str(tmp_path / "a.txt")])
    output = capsys.readouterr()
    lines = [json.loads(line) for line in output.out.splitlines()]
    assert len(lines) > 3
    assert {"text", "position", "token", "site", "feature", "name", "value", "above", "new"} == set(
        lines[0]
    )
    tokens = len(model.tokenizer.encode(TEXT))
    assert f"{len(lines)} alerts on {tokens} tokens" in output.err
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{TEXT}\n\n{TEXT}\n"))
    cli.main(["monitor", str(small_run), "--file", file, "--text", "-"])
    again = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["text"] for line in again} == {0, 2}
    cli.main(["monitor", str(small_run), "--file", file, "--prompt", TEXT, "--tokens", "5"])
    written = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["new"] for line in written} == {True, False}


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--text", "x"], 2, "either --watch FEATURE>LIMIT or --file FILE"),
        (["--watch", "5>1", "--file", "x"], 2, "either --watch FEATURE>LIMIT or --file FILE"),
        (["--watch", "5>1"], 2, "expected --text FILE, --prompt TEXT, --labelled SET"),
        (["--watch", "5>1", "--text", "nowhere.txt"], 1, "cannot read nowhere.txt"),
        (["--watch", "5<1", "--text", "x"], 2, "watch is '5<1'"),
        (["--file", "nowhere.json", "--text", "x"], 1, "nowhere.json does not exist"),
    ],
)
def test_wrong_usage_is_one_line(
    words: list[str],
    status: int,
    said: str,
    small_run: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found, line = failed(["monitor", str(small_run), *words], capsys)
    assert said in line
    assert found == status
