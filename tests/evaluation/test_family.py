"""The family of small language models, and compute-equivalent loss from end to end."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from sememe.activations.rules import HarvestConfig
from sememe.cli import main
from sememe.commands.language import LmFamily
from sememe.corpora.corpus import Corpus
from sememe.dictionaries import TopK
from sememe.errors import SememeError, UsageError
from sememe.evaluation.compute import command
from sememe.evaluation.family import (
    Family,
    FamilyConfig,
    Text,
    family_folder,
    make_family,
    text_losses,
    text_of,
)
from sememe.job import MapConfig, map_model
from sememe.models.load import LanguageModel, load_model
from sememe.training.config import TrainConfig
from tests.prose import prose
from tests.training.test_language import StopAt, StoppedError, contents

SMALL = FamilyConfig(
    widths=(8, 16, 24, 32), context=32, vocabulary=300, tokens_a_weight=0.5, rows=4
)


@pytest.fixture(scope="module")
def text(small_run: Path) -> Path:
    """The text that the small run's corpus is made of."""
    return small_run.parent / "text"


@pytest.fixture(scope="module")
def family(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Family]:
    """A family of that text, where evaluations look for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEMEME_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield make_family(SMALL, sources=[str(text)])


@pytest.fixture(scope="module")
def member_run(family: Family, text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The main job on a member of the family, neither its best nor its worst."""
    out = tmp_path_factory.mktemp("member") / "run"
    config = MapConfig(
        model=str(family.path / "width-24"),
        site="layers.0.resid",
        tokens=8000,
        text=(str(text),),
        harvest=HarvestConfig(context=32, shard_rows=2000),
        train=TrainConfig(features=128, nonlinearity=TopK(8), passes=8, batch=256),
    )
    map_model(config, out)
    return out


def test_more_compute_makes_a_better_member(family: Family) -> None:
    losses = [member["held_out_loss"] for member in family.members]
    assert losses == sorted(losses, reverse=True)
    assert family.compute.tolist() == sorted(family.compute.tolist())
    for member in family.members:
        assert member["tokens"] == pytest.approx(0.5 * member["weights"], rel=0.1)
    assert Family(family.path).manifest == family.manifest


def one_by_one(model: LanguageModel, text: Text) -> float:
    """Each token from the first stretch of the context's length that reaches it, in float64."""
    before = [0, *model.tokenizer.encode(text.given)]
    ids = before + model.tokenizer.encode(text.asked)
    half = model.context // 2
    total = 0.0
    module = model.module.double()
    for place in range(len(before), len(ids)):
        start = next(s for s in range(0, len(ids), half) if s + model.context >= place)
        with torch.no_grad():
            logits = module(input_ids=torch.tensor([ids[start:place]])).logits[0, -1]
        total -= float(logits.log_softmax(-1)[ids[place]])
    return total


def test_losses_on_texts_are_those_of_every_token(family: Family) -> None:
    sentence = " watched the sea in the morning. Nobody sold the number 1984."
    texts = [
        Text("The captain", sentence),
        Text("", "The captain" + 9 * sentence),
        Text("A sailor", ""),
        Text("The captain" + 3 * sentence, sentence),
        Text("x", "y"),
    ]
    path = str(family.path / "width-16")
    found = text_losses(load_model(path, dtype="fp32"), texts)
    expected = [one_by_one(load_model(path, dtype="fp32"), text) for text in texts]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(family.losses(texts)[1], found, rtol=1e-6)


def test_stopped_and_gone_on_is_the_same_family(family: Family, text: Path, tmp_path: Path) -> None:
    for reports in (3, 40):
        with pytest.raises(StoppedError):
            make_family(SMALL, tmp_path, sources=[str(text)], progress=StopAt(reports))
        assert not (tmp_path / "manifest.json").exists()
    made = make_family(SMALL, tmp_path, sources=[str(text)])
    assert made.manifest == family.manifest
    for member in family.members:
        assert contents(tmp_path / member["name"]) == contents(family.path / member["name"])
    with pytest.raises(SememeError, match=r"rows=4, now rows=8"):
        make_family(FamilyConfig(**{**vars(SMALL), "rows": 8}), tmp_path, sources=[str(text)])


def test_members_are_left_out_for_which_the_text_is_too_little_and_added_later(
    text: Path, tmp_path: Path
) -> None:
    most = FamilyConfig(**{**vars(SMALL), "widths": (8, 16, 24, 32, 256)})
    made = make_family(most, tmp_path / "some", sources=[str(text)])
    assert [member["name"] for member in made.members] == [f"width-{w}" for w in (8, 16, 24, 32)]
    greedy = FamilyConfig(**{**vars(SMALL), "tokens_a_weight": 50.0})
    with pytest.raises(SememeError, match="a family of 4 models needs"):
        make_family(greedy, tmp_path / "none", sources=[str(text)])
    wider = make_family(
        FamilyConfig(**{**vars(SMALL), "widths": (16, 24, 32, 40)}),
        tmp_path / "some",
        sources=[str(text)],
    )
    assert [member["width"] for member in wider.members] == [8, 16, 24, 32, 40]
    assert wider.members[:4] == made.members
    for widths in ((8, 16, 24), (8, 16, 24, 30), (0, 8, 16, 24)):
        with pytest.raises(UsageError, match="4 or more different multiples of 8"):
            FamilyConfig(widths=widths)


def compute_of(path: Path) -> dict:
    report = json.loads((path / "evaluation" / "quick.json").read_text())
    (section,) = (part for part in report["sections"] if part["name"] == "compute")
    return section


def evaluate(run: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> dict:
    from sememe.evaluation import suite

    sections = tuple(s for s in suite.SECTIONS if s.name in ("fidelity", "compute"))
    monkeypatch.setattr(suite, "SECTIONS", sections)
    main(["evaluate", str(run), "--suite", "quick", *words])
    return compute_of(run)


def test_a_dictionary_of_a_member_is_compared_within_the_family(
    family: Family, member_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = evaluate(member_run, monkeypatch)
    (row,) = section["rows"]
    figures = row["figures"]
    assert figures["identity"]["value"] == pytest.approx(1, abs=0.01)
    own = figures["dictionary"]
    assert own["low"] <= own["value"] <= own["high"] < 1
    assert own["value"] < figures["identity"]["value"]
    for name, figure in figures.items():
        details = section["details"][name]
        alpha, floor = (details[key]["value"] for key in ("alpha", "floor_nats_a_byte"))
        losses = {key: part["nats_a_byte"]["value"] for key, part in details["losses"].items()}
        ratio = (losses["original"] - floor) / (losses["spliced"] - floor)
        assert figure["value"] == pytest.approx(ratio ** (1 / alpha), rel=1e-6)
        delta = losses["spliced"] - losses["original"]
        assert delta == pytest.approx(bytes_delta(member_run, name), abs=1e-6)


def bytes_delta(run: Path, arm: str) -> float:
    """Cross-entropy added, by the fidelity section, over the bytes of a token that is predicted."""
    from sememe.evaluation.arms import Arm
    from sememe.evaluation.compute import window_texts
    from sememe.evaluation.splicing import EvaluateConfig
    from sememe.job import open_run

    opened, dictionary, _, held_out, corpus = open_run(run)
    subject = Arm.subject(dictionary, opened.load_model(), held_out, corpus)
    config = EvaluateConfig(spliced_tokens=2048)
    _, sizes, _ = window_texts(subject, config)
    report = json.loads((run / "evaluation" / "quick.json").read_text())
    (fidelity,) = (part for part in report["sections"] if part["name"] == "fidelity")
    rows = {row["metric"]: row["figures"] for row in fidelity["rows"]}
    tokens = fidelity["details"][arm]["spliced_tokens"]
    return rows["delta_cross_entropy"][arm]["value"] * tokens / sizes.sum()


def test_the_family_gives_a_member_the_loss_that_the_suite_gives_it(
    family: Family, member_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two ways to the same number: token by token of the corpus, and bytes tokenised anew."""
    details = evaluate(member_run, monkeypatch)["details"]["dictionary"]
    (own,) = (
        member["nats_a_byte"]
        for member, facts in zip(details["family"], family.members, strict=True)
        if facts["name"] == "width-24"
    )
    assert own == pytest.approx(details["losses"]["original"]["nats_a_byte"]["value"], rel=0.05)


def test_without_a_family_the_command_that_makes_it_is_said(
    small_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    family: Family,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And once there is one it is used, though the result without one is on the disk."""
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    there = family.path
    monkeypatch.setenv("SEMEME_CACHE", str(tmp_path / "empty"))
    (row,) = evaluate(run, monkeypatch)["rows"]
    assert row["figures"] == {}
    assert row["left_out"]["dictionary"] == (
        "no family of language models is there for this text: `sememe lm-family --text PATH=text` "
        "trains one"
    )
    told = " ".join(capsys.readouterr().out.split())
    assert f"No compute-equivalent share: {row['left_out']['dictionary']}." in told
    section = evaluate(run, monkeypatch, "--family", str(there))
    assert len(section["details"]["dictionary"]["family"]) == 4
    report = json.loads((run / "evaluation" / "quick.json").read_text())
    assert report["command"].endswith(f"--family {there}")


def test_the_family_of_other_text_is_refused(
    small_run: Path, tmp_path: Path, family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = Corpus.open(small_run / "corpus")
    assert family_folder(text_of(corpus)) == family.path
    other = make_family(SMALL, tmp_path / "other", sources=[str(prose(tmp_path / "text", seed=9))])
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    (row,) = evaluate(run, monkeypatch, "--family", str(other.path))["rows"]
    assert "was trained on other sources" in row["left_out"]["dictionary"]


def test_a_damaged_member_is_refused(family: Family, tmp_path: Path) -> None:
    shutil.copytree(family.path, tmp_path / "family")
    copy = Family(tmp_path / "family")
    weights = tmp_path / "family" / "width-24" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(SememeError, match=r"model.safetensors has checksum"):
        copy.losses([Text("", "Nobody")])
    (tmp_path / "family" / "width-8" / "manifest.json").write_text("{}")
    with pytest.raises(SememeError, match=r"width-8/manifest.json has 2 bytes"):
        Family(tmp_path / "family")


def test_the_command_of_the_default_text_is_short(small_run: Path) -> None:
    from sememe.corpora.sources import SOURCES

    corpus = Corpus.open(small_run / "corpus")
    corpus.sources = [source.label for source in SOURCES if source.share]
    assert command(corpus) == "sememe lm-family"
    corpus.sources = ["brown", "mine"]
    corpus.manifest["config"]["held_out"] = 0.1
    assert command(corpus) == "sememe lm-family --text brown PATH=mine --held-out 0.1"


def test_the_command_makes_the_family_that_is_there(
    family: Family, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert LmFamily().widths == FamilyConfig().widths
    words = ["lm-family", "--text", str(text), "--widths", "8", "16", "24", "32"]
    with pytest.raises(SystemExit):
        main(words)
    assert "was made with context=32, now context=256" in " ".join(capsys.readouterr().err.split())
