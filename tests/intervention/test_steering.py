"""Steered text beside unsteered, and the commands that make it."""

import json
import math
from pathlib import Path

import pytest
import torch

from sememe import cli
from sememe.errors import UsageError
from sememe.intervention.features import FeatureSet
from sememe.intervention.intervene import Applied, intervene
from sememe.intervention.steering import Continuation, Pair, Steered, steer
from sememe.models.generation import generate, prompt_ids
from sememe.models.language_model import LanguageModel
from tests.test_cli import failed

PROMPTS = ["The captain watched", "Nobody sold the hills"]


def test_text_with_and_without(model: LanguageModel, features: FeatureSet) -> None:
    changes = {features: {5: "add:8"}}
    found = steer(model, changes, PROMPTS, tokens=9)
    rows = [prompt_ids(model, prompt) for prompt in PROMPTS]
    assert [pair.unsteered.tokens for pair in found.pairs] == generate(model, rows, tokens=9)
    with intervene(model, changes):
        steered = generate(model, rows, tokens=9)
    assert [pair.steered.tokens for pair in found.pairs] == steered
    assert found.applied[0].applied == found.applied[0].changed > 0
    for row, pair in zip(rows, found.pairs, strict=True):
        for text in (pair.unsteered, pair.steered):
            logits = model.logits(torch.tensor([[*row, *text.tokens]]))[0].double()
            shares = logits.log_softmax(-1)
            begun = len(row) - 1
            loss = -sum(float(shares[begun + n, token]) for n, token in enumerate(text.tokens))
            assert text.loss == pytest.approx(loss, rel=1e-4)
            assert text.perplexity == pytest.approx(math.exp(loss / len(text.tokens)), rel=1e-4)
            assert text.text == model.tokenizer.decode(text.tokens)
    drawn = [
        steer(model, changes, PROMPTS, tokens=9, temperature=1.0, seed=seed).pairs
        for seed in (3, 3, 4)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    with pytest.raises(UsageError, match="reads 128 at most"):
        steer(model, changes, ["sea " * 200])


def text(loss: float, *tokens: int) -> Continuation:
    return Continuation("", list(tokens), loss)


def test_a_warning_comes_with_its_figures() -> None:
    plain, broken = text(4.0, 1, 2, 3, 4), text(16.0, 5, 6, 7, 8)
    said = Steered([Pair("a", plain, broken)], []).warning
    assert said is not None
    assert "perplexity 54.6" in said
    assert "2.72" in said
    assert Steered([Pair("a", plain, text(8.0, 5, 6, 7, 8))], []).warning is None
    repeated = text(4.0, *[1] * 12)
    assert repeated.repetition == pytest.approx(8 / 9)
    said = Steered([Pair("a", text(4.0, *range(12)), repeated)], []).warning
    assert said is not None
    assert (
        "89% of the steered text's phrases repeat earlier ones, of the unsteered text's 0%" in said
    )
    assert Steered([Pair("a", repeated, repeated)], []).warning is None
    assert Steered([Pair("a", text(0.0), text(0.0))], []).warning is None
    assert text(0.0).perplexity is None


def test_the_command_prints_both_texts(
    small_run: Path,
    features: FeatureSet,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["steer", str(small_run), "--feature", "5=add:8", "--feature", "7=2x", "--tokens", "6"]
    for prompt in PROMPTS:
        words += ["--prompt", prompt]
    cli.main([*words, "--scope", "new", "--json"])
    told = json.loads(capsys.readouterr().out)
    found = [each["prompt"] for each in told["prompts"]]
    assert found == PROMPTS
    assert [each["feature"] for each in told["features"]] == [5, 7]
    assert told["features"][1]["amount"] == pytest.approx(2 * features.maximum(7))
    assert told["features"][0]["outside"] > 0
    assert set(told["prompts"][0]["steered"]) == {
        *("text", "tokens", "loss", "perplexity", "repetition")
    }
    cli.main(words)
    printed = capsys.readouterr().out
    for part in (*PROMPTS, "unsteered", "steered", "applied"):
        assert part in printed


def test_a_model_and_dictionaries_can_be_given_by_themselves(
    small_run: Path, tiny_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dictionary = str(small_run / "dictionary")
    rest = ["--feature", "layers.0.resid:5=add:8", "--prompt", "Nobody", "--tokens", "4", "--json"]
    told = []
    for subject in ([str(small_run)], [dictionary], [str(tiny_directory), dictionary]):
        cli.main(["steer", *subject, *rest])
        told.append(json.loads(capsys.readouterr().out))
    assert told[0]["prompts"] == told[1]["prompts"] == told[2]["prompts"]
    assert len(told[0]["features"]) == 1


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["RUN", "--feature", "5=1"], 2, "expected --feature FEATURE=HOW and --prompt TEXT"),
        (["RUN", "--feature", "5", "--prompt", "a"], 2, "--feature 5: expected FEATURE=HOW"),
        (["RUN", "--feature", "five=1", "--prompt", "a"], 2, "--feature five=1: expected"),
        (["RUN", "--feature", "5=nan", "--prompt", "a"], 2, "change is 'nan'"),
        (["RUN", "--feature", "999=1", "--prompt", "a"], 2, "feature 999 of the dictionary"),
        (["RUN", "--feature", "layers.2.resid:5=1", "--prompt", "a"], 2, "site 'layers.2.resid'"),
        (
            ["RUN", "--feature", "5=1", "--feature", "5=2", "--prompt", "a"],
            2,
            "feature 5 was given already",
        ),
        (["RUN", "--feature", "5=1", "--prompt", "a", "--scope", "x"], 2, "scope is 'x'"),
        (["RUN", "--feature", "5=1", "--prompt", "sea " * 300], 2, "reads 128 at most"),
        (["nowhere", "--feature", "5=1", "--prompt", "a"], 2, "nowhere holds no finished dict"),
        (["MODEL", "--feature", "5=1", "--prompt", "a"], 2, "holds no finished dictionary"),
        (["MODEL", "nowhere", "--feature", "5=1", "--prompt", "a"], 1, "nowhere does not exist"),
        (["smollm2-135m", "RUN", "--feature", "5=1", "--prompt", "a"], 2, "made for model"),
    ],
)
def test_wrong_usage_is_one_line(
    words: list[str],
    status: int,
    said: str,
    small_run: Path,
    tiny_directory: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"RUN": str(small_run), "MODEL": str(tiny_directory)}
    found, line = failed(["steer", *(places.get(word, word) for word in words)], capsys)
    assert said in line
    assert found == status


def test_the_command_attributes(
    small_run: Path, features: FeatureSet, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["attribute", str(small_run), "--prompt", "The captain watched the sea", "--top", "4"]
    tops = {}
    for way in ("gradient", "direct", "integrated", "ablation"):
        cli.main([*words, "--way", way, "--json"])
        (found,) = json.loads(capsys.readouterr().out)["prompts"]
        assert len(found["features"]) == 4
        first = found["features"][0]
        assert first["effect"] == pytest.approx(sum(each["effect"] for each in first["tokens"]))
        assert first["fires_most_on"]
        tops[way] = {row["feature"]: row["effect"] for row in found["features"]}
        assert "over the mean logit" in found["of"]
    assert set(tops["ablation"]) & set(tops["gradient"])
    cli.main([*words, "--target", "a", "--baseline", "e"])
    assert "logit of 'a' over that of 'e'" in capsys.readouterr().out
    cli.main([*words, "--loss", "--json"])
    (found,) = json.loads(capsys.readouterr().out)["prompts"]
    assert found["of"] == "loss on the prompt"


def test_the_command_correlates(small_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["attribute", str(small_run), "--correlate", "2", "--length", "20", "--per-text", "6"]
    cli.main([*words, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["pairs"] == 12
    assert set(told["correlation_with_ablation"]) == {
        *("gradient", "integrated", "direct", "activation")
    }
    cli.main(words)
    assert "Pearson with ablation" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "either --prompt TEXT or --correlate N"),
        (["--prompt", "a b", "--correlate", "2"], "either --prompt TEXT or --correlate N"),
        (["--prompt", "a b", "--target", "the captain"], "'the captain' is"),
        (["--prompt", "a b", "--loss", "--target", "a"], "--loss is of the whole prompt"),
        (["--correlate", "999"], "999 held-out documents of 64 tokens are asked"),
        (["--prompt", "a b", "--site", "layers.1.resid"], "site 'layers.1.resid' is that of 0"),
    ],
)
def test_wrong_attributions_are_one_line(
    words: list[str], said: str, small_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, line = failed(["attribute", str(small_run), *words], capsys)
    assert said in line
    assert status == 2


def test_counts_are_kept_as_json() -> None:
    from sememe.intervention.changes import Change

    row = Applied("layers.0.resid", 3, Change.parse("5x"), 10.0, 8, 1, 2, 0, 5, 4).to_json()
    assert row == {
        "site": "layers.0.resid",
        "feature": 3,
        "how": "5x",
        "amount": 10.0,
        "tokens": 8,
        "outside": 1,
        "left_out": 2,
        "unmet": 0,
        "applied": 5,
        "changed": 4,
    }
