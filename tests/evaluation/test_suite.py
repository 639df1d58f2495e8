"""The suite on a real small run: controls whose figures are known, comparison, kill and resume."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from sememe.activations.stream import Stream
from sememe.cli import main
from sememe.dictionaries.dictionary import Dictionary
from sememe.dictionaries.initialisation import random_rows
from sememe.evaluation import suite
from sememe.evaluation.arms import Arm
from sememe.evaluation.controls import active_features
from sememe.evaluation.estimates import Estimate
from sememe.evaluation.sections import (
    Measured,
    Metric,
    NotApplicableError,
    Section,
    Settings,
)
from sememe.evaluation.suite import arms_of, run_suite, verdict
from sememe.job import open_run
from sememe.progress import Progress
from sememe.run import Run
from sememe.web.report import read_reports
from tests.prose import prose

TRAINED = ["frozen decoder", "random model", "gaussian", "another seed"]
UNTRAINED = ["identity", "pca", "neurons", "random directions"]


@pytest.fixture(scope="module")
def arms(small_run: Path) -> dict[str, Arm]:
    run, dictionary, stored, held_out, corpus = open_run(small_run)
    subject = Arm.subject(dictionary, run.load_model(), held_out, corpus)
    making = arms_of(subject, Stream(stored, (subject.site,)), "quick", small_run / "controls")
    return {name: make() for name, make in making.items()}


@pytest.fixture(scope="module")
def evaluated(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the small run with its quick suite."""
    run = tmp_path_factory.mktemp("suite") / "run"
    shutil.copytree(small_run, run)
    main(["evaluate", str(run), "--suite", "quick"])
    return run


def report_of(run: Path) -> dict:
    return json.loads((run / "evaluation" / "quick.json").read_text())


def test_the_identity_rebuilds_exactly_and_is_not_sparse(arms: dict[str, Arm]) -> None:
    arm = arms["identity"]
    for coded in arm.in_order():
        torch.testing.assert_close(coded.rebuilt(arm.dictionary), coded.rows.values)
        assert ((coded.code.values > 0).sum(1) >= arm.held_out.width(arm.site) - 1).all()


def test_pca_keeps_the_largest_components_of_the_training_covariance(arms: dict[str, Arm]) -> None:
    """Against numpy's singular values of the activations themselves, row by row."""
    subject, arm = arms["dictionary"], arms["pca"]
    k = active_features(subject)
    stored = Stream(open_run(subject.held_out.path.parent)[2], (arm.site,))
    sample = stored.sample(1 << 15).double().numpy()
    _, _, components = np.linalg.svd(sample - sample.mean(0), full_matrices=False)
    for rows, code in arm.in_order():
        x = rows.values.double().numpy() - sample.mean(0)
        scores = x @ components.T
        scores[np.abs(scores) < -np.sort(-np.abs(scores), axis=1)[:, k - 1 : k]] = 0
        expected = scores @ components + sample.mean(0)
        found = arm.dictionary.decode(code).detach().double().numpy()
        np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(x).max())


def test_neurons_keep_the_largest_deviations(arms: dict[str, Arm]) -> None:
    arm, k = arms["neurons"], active_features(arms["dictionary"])
    mean = arm.dictionary.b_dec / arm.dictionary.write_scale
    for rows, code in arm.in_order():
        deviation = rows.values - mean
        kept = deviation.abs().topk(k, dim=1).indices
        expected = mean + torch.zeros_like(deviation).scatter(1, kept, deviation.gather(1, kept))
        torch.testing.assert_close(arm.dictionary.decode(code), expected, atol=1e-3, rtol=1e-3)


def test_random_directions_are_scaled_to_be_nearest(arms: dict[str, Arm]) -> None:
    arm = arms["random directions"]
    dictionary = arm.dictionary
    assert dictionary.config.features == arms["dictionary"].features
    stored = Stream(open_run(arm.held_out.path.parent)[2], (arm.site,))
    x = stored.sample(1 << 15)
    base = (dictionary.b_dec / dictionary.write_scale).detach()
    rebuilt = dictionary(x).detach() - base
    errors = [float((x - base - factor * rebuilt).square().sum()) for factor in (0.98, 1.0, 1.02)]
    assert errors[1] < min(errors[0], errors[2])


def test_the_report_has_every_metric_of_every_arm_with_intervals(evaluated: Path) -> None:
    report = report_of(evaluated)
    assert [arm["name"] for arm in report["arms"]] == ["dictionary", *UNTRAINED]
    assert report["command"] == f"sememe evaluate {evaluated} --suite quick"
    made = json.loads((evaluated / "dictionary" / "manifest.json").read_text())
    assert report["arms"][0]["key"] == made["hash"]
    (fidelity,) = (part for part in report["sections"] if part["name"] == "fidelity")
    rows = {row["metric"]: row for row in fidelity["rows"]}
    for row in rows.values():
        assert set(row["figures"]) == {"dictionary", *UNTRAINED}
        for figure in row["figures"].values():
            assert figure["low"] <= figure["value"] <= figure["high"]
    identity = {name: row["figures"]["identity"]["value"] for name, row in rows.items()}
    assert identity["fvu"] == pytest.approx(0, abs=1e-6)
    assert identity["kl"] == pytest.approx(0, abs=1e-4)
    assert identity["loss_recovered_mean"] == pytest.approx(1, abs=1e-3)
    assert identity["refit_scale"] == pytest.approx(1, abs=1e-4)
    assert rows["l0"]["verdict"] is None
    # a dictionary that was trained rebuilds better than as many random directions
    figures = rows["fvu"]["figures"]
    assert figures["dictionary"]["high"] < figures["random directions"]["low"]
    beaten = rows["fvu"]["verdict"].removeprefix("no better than ").split(", ")
    assert "random directions" not in beaten


def test_the_page_reads_the_report_whole(evaluated: Path) -> None:
    (read,) = read_reports(Run(evaluated).evaluation).reports
    assert msgspec.to_builtins(read) == report_of(evaluated)


def test_the_report_of_the_job_says_the_same_and_has_intervals(evaluated: Path) -> None:
    """Less text is spliced in the quick suite, so that those figures are not compared."""
    job = json.loads((evaluated / "report.json").read_text())
    rows = {row["metric"]: row for row in report_of(evaluated)["sections"][0]["rows"]}
    for name in ("fvu", "cosine", "norm_ratio", "l0", "refit_fvu"):
        assert rows[name]["figures"]["dictionary"]["value"] == pytest.approx(job[name])
        low, high = job["intervals"][name]
        assert low <= job[name] <= high


def test_a_finished_suite_is_not_measured_again(evaluated: Path) -> None:
    results = sorted((evaluated / "evaluation" / "results").iterdir())
    before = {path: path.stat().st_mtime_ns for path in results}
    report = report_of(evaluated)
    main(["evaluate", str(evaluated), "--suite", "quick"])
    assert {path: path.stat().st_mtime_ns for path in results} == before
    assert report_of(evaluated) == report


CHILD = """
import sys
from sememe.cli import main
main(["evaluate", sys.argv[1], "--suite", "quick"])
"""


def test_a_killed_suite_goes_on_and_ends_with_the_same_figures(
    evaluated: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(evaluated, run, ignore=shutil.ignore_patterns("evaluation"))
    environment = {**os.environ, "JAXTYPING_DISABLE": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(run)], stderr=subprocess.PIPE, text=True, env=environment
    ) as child:
        assert child.stderr is not None
        for line in child.stderr:
            if line.startswith("fidelity, pca: "):
                child.kill()
                break
        child.stderr.read()
    assert child.returncode == -signal.SIGKILL
    done = sorted((run / "evaluation" / "results").iterdir())
    assert done
    assert not (run / "evaluation" / "quick.json").exists()
    before = {path: path.stat().st_mtime_ns for path in done}
    main(["evaluate", str(run), "--suite", "quick"])
    assert {path: path.stat().st_mtime_ns for path in done} == before
    for expected, found in zip(
        report_of(evaluated)["sections"], report_of(run)["sections"], strict=True
    ):
        for one, other in zip(expected["rows"], found["rows"], strict=True):
            assert one["verdict"] == other["verdict"]
            for name, figure in one["figures"].items():
                assert other["figures"][name] == pytest.approx(figure, rel=1e-5, abs=1e-9)


def test_a_result_of_other_inputs_is_measured_again(
    arms: dict[str, Arm], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def count(arm: Arm, settings: Settings, progress: Progress) -> Measured:
        seen.append(arm.name)
        if arm.name == "pca":
            raise NotApplicableError("not for components")
        draws = np.linspace(0, 1, 500)
        return Measured(
            {"n": Estimate(float(len(seen)), draws), "none": Estimate(float("nan"), draws * np.nan)}
        )

    metrics = tuple(Metric(n, n, n, "higher", "documents", ("pca",)) for n in ("n", "none"))
    section = Section("counting", "Counting", metrics, count)
    monkeypatch.setattr(suite, "SECTIONS", (section,))
    making = {name: (lambda arm=arms[name]: arm) for name in ("dictionary", "pca")}

    def refused() -> Arm:
        raise NotApplicableError("nothing to train on")

    making["gaussian"] = refused
    report = run_suite(making, Settings("quick"), tmp_path)
    assert run_suite(making, Settings("quick"), tmp_path) == report
    assert seen == ["dictionary", "pca"]
    assert report["arms_left_out"] == {"gaussian": "nothing to train on"}
    first, second = report["sections"][0]["rows"]
    assert first["figures"] == {
        "dictionary": {"value": 1, "low": pytest.approx(0.025), "high": pytest.approx(0.975)}
    }
    assert first["left_out"] == {"pca": "not for components"}
    assert second["figures"]["dictionary"] == {"value": None, "low": None, "high": None}
    other = replace(arms["dictionary"], key="another")
    run_suite({"dictionary": lambda: other}, Settings("quick"), tmp_path)
    run_suite(making, Settings("quick", seed=1), tmp_path)
    assert seen == ["dictionary", "pca", "dictionary", "dictionary", "pca"]


@pytest.fixture(scope="module")
def standard(
    small_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Arm]]:
    """A copy of the small run, and the arms of its standard suite."""
    path = tmp_path_factory.mktemp("standard") / "run"
    shutil.copytree(small_run, path)
    run, dictionary, stored, held_out, corpus = open_run(path)
    subject = Arm.subject(dictionary, run.load_model(), held_out, corpus)
    stream = Stream(stored, (subject.site,))
    making = arms_of(subject, stream, "standard", path / "controls")
    return path, {name: make() for name, make in making.items()}


def test_trained_controls_have_the_config_and_the_budget_of_the_dictionary(
    standard: tuple[Path, dict[str, Arm]],
) -> None:
    path, arms = standard
    assert list(arms) == ["dictionary", *UNTRAINED, *TRAINED]
    own = arms["dictionary"].dictionary.manifest
    changed = {
        "frozen decoder": {"frozen_decoder", "initialisation"},
        "random model": {"scales", "made_from", "rows"},
        "gaussian": {"scales", "made_from", "order"},
        "another seed": {"seed"},
    }
    for name, expected in changed.items():
        manifest = arms[name].dictionary.manifest
        assert manifest["steps"] == own["steps"]
        keys = {*own["run"], *manifest["run"]}
        differing = {key for key in keys if own["run"].get(key) != manifest["run"].get(key)}
        assert differing <= expected, name
        assert arms[name].key not in ("", arms["dictionary"].key)
        assert arms[name].role == ("replicate" if name == "another seed" else "control")
    assert (path / "controls" / "random-model" / "dictionary" / "manifest.json").exists()


def test_a_frozen_decoder_stays_the_random_rows_that_it_began_as(
    standard: tuple[Path, dict[str, Arm]],
) -> None:
    dictionary = standard[1]["frozen decoder"].dictionary
    generator = torch.Generator().manual_seed(dictionary.manifest["run"]["seed"])
    sample = torch.zeros(1, dictionary.config.width)
    _, rows = random_rows(dictionary.config.features, sample, sample, generator)
    torch.testing.assert_close(dictionary.W_dec.detach(), rows)
    cosine = torch.nn.functional.cosine_similarity(dictionary.W_enc.detach(), rows, dim=1)
    assert float((cosine < 0.99).double().mean()) > 0.9  # the encoder has learnt


def test_the_random_model_is_measured_on_its_own_activations(
    standard: tuple[Path, dict[str, Arm]],
) -> None:
    arms = standard[1]
    arm, subject = arms["random model"], arms["dictionary"]
    assert arm.model.hash != subject.model.hash
    assert arm.held_out.manifest["made_from"]["model"] == arm.model.hash
    assert arm.shared is not subject.shared
    assert arm.held_out.manifest["config"]["context"] == 64
    width = subject.held_out.width(subject.site)
    own, other = (a.held_out.read(a.site, 0, 50) for a in (subject, arm))
    assert own.shape == other.shape == (50, width)
    assert not torch.allclose(own, other)


def test_a_dictionary_beats_gaussian_data_and_the_frozen_decoder(
    standard: tuple[Path, dict[str, Arm]],
) -> None:
    """By variance unexplained on real activations, computed anew in float64."""
    unexplained = {}
    for name in ("dictionary", "gaussian", "frozen decoder", "another seed"):
        arm = standard[1][name]
        parts = [
            (c.rows.values.double(), c.rebuilt(arm.dictionary).double()) for c in arm.in_order()
        ]
        x, guess = (torch.cat(column).detach() for column in zip(*parts, strict=True))
        unexplained[name] = float((x - guess).square().sum() / (x - x.mean(0)).square().sum())
    assert unexplained["dictionary"] < unexplained["gaussian"]
    assert unexplained["dictionary"] < unexplained["frozen decoder"]
    assert unexplained["another seed"] == pytest.approx(unexplained["dictionary"], rel=0.2)


def test_a_dictionary_that_does_not_say_how_it_was_trained_has_no_trained_controls(
    arms: dict[str, Arm], tmp_path: Path
) -> None:
    subject = arms["dictionary"]
    stranger = Dictionary(subject.dictionary.config)
    stranger.load_state_dict(subject.dictionary.state_dict())
    stranger.save(tmp_path / "d", made_from={})
    arm = Arm.subject(stranger, subject.model, subject.held_out, subject.corpus)
    stored = open_run(subject.held_out.path.parent)[2]
    making = arms_of(arm, Stream(stored, (arm.site,)), "standard", tmp_path / "controls")
    for name in TRAINED:
        with pytest.raises(NotApplicableError, match="does not say how it was trained"):
            making[name]()


def test_a_verdict_needs_the_interval_of_the_difference() -> None:
    noise = np.random.default_rng(0).normal(size=500)
    subject = Estimate(1.0, 1 + noise)
    others = {
        "paired": Estimate(0.9, 0.9 + noise + 0.01 * noise[::-1]),
        "as noisy": Estimate(0.9, 0.9 + np.roll(noise, 7)),
        "worse": Estimate(9.0, 9 + noise),
    }

    def metric(better: str, *against: str) -> Metric:
        return Metric("m", "m", "m", better, "documents", against)  # type: ignore[arg-type]

    assert verdict(metric("higher", "paired"), subject, others) == "beats its controls"
    assert verdict(metric("higher", "paired", "as noisy"), subject, others) == (
        "no better than as noisy"
    )
    assert verdict(metric("lower", "worse"), subject, others) == "beats its controls"
    assert verdict(metric("higher", "worse", "as noisy"), subject, others) == (
        "no better than worse, as noisy"
    )
    assert verdict(metric("higher", "not there"), subject, others) is None
    assert verdict(metric("neither", "paired"), subject, others) is None


def test_a_dictionary_without_a_run_is_evaluated_on_a_model_and_a_corpus(
    small_run: Path, tiny_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", str(small_run / "dictionary"), "--model", str(tiny_directory)]
    words += ["--corpus", str(small_run / "corpus"), "--model-dtype", "fp32"]
    main([*words, "--out", str(tmp_path / "out"), "--json"])
    found = json.loads(capsys.readouterr().out)
    job = json.loads((small_run / "report.json").read_text())
    assert found["fvu"] == pytest.approx(job["fvu"], rel=0.02)
    main([*words, "--out", str(tmp_path / "out"), "--suite", "quick", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["command"].endswith(f"--out {tmp_path / 'out'}")
    assert (tmp_path / "out" / "quick.json").exists()
    figures = report["sections"][0]["rows"][0]["figures"]
    assert figures["dictionary"]["value"] == pytest.approx(found["fvu"])


def test_arguments_that_do_not_go_together_are_refused(
    small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = {
        (str(small_run), "--model", "smollm2-135m"): "--model is for a dictionary's directory",
        (str(small_run / "dictionary"), "--suite", "quick"): "--model, --corpus and --out",
        (str(tmp_path / "nowhere"), "--suite", "quick"): "does not exist",
        (str(small_run), "--suite", "huge"): "huge",
    }
    for words, expected in cases.items():
        with pytest.raises(SystemExit) as stopped:
            main(["evaluate", *words])
        assert stopped.value.code in (1, 2)
        assert expected in " ".join(capsys.readouterr().err.split())


def test_another_corpus_than_the_dictionarys_is_refused(
    small_run: Path, tiny_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = prose(tmp_path / "text", seed=5)
    corpus = ["corpus", "--model", str(tiny_directory), "--text", str(text), "--tokens", "4000"]
    main([*corpus, "--out", str(tmp_path / "corpus")])
    words = ["--model", str(tiny_directory), "--corpus", str(tmp_path / "corpus")]
    with pytest.raises(SystemExit):
        main(["evaluate", str(small_run / "dictionary"), *words, "--out", str(tmp_path / "out")])
    assert "was made from corpus" in " ".join(capsys.readouterr().err.split())


def test_concept_tests_say_why_a_model_that_knows_nothing_has_none(
    standard: tuple[Path, dict[str, Arm]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the tiny model and on its weights permuted, as the page reads it."""
    names = ("absorption", "disentanglement")
    sections = tuple(section for section in suite.SECTIONS if section.name in names)
    monkeypatch.setattr(suite, "SECTIONS", sections)
    arms = {name: standard[1][name] for name in ("dictionary", "random model")}
    run_suite(
        {name: lambda arm=arm: arm for name, arm in arms.items()}, Settings("quick"), tmp_path
    )
    (quick,) = read_reports(tmp_path).reports
    assert not quick.sections
    run_suite(
        {name: lambda arm=arm: arm for name, arm in arms.items()}, Settings("standard"), tmp_path
    )
    report = read_reports(tmp_path).reports[0]
    assert [section.name for section in report.sections] == list(names)
    for section, reason in zip(report.sections, ("words of one token", "knows"), strict=True):
        assert section.caution
        for row in section.rows:
            assert set(row.left_out) == set(arms)
            assert all(reason in why for why in row.left_out.values())
            assert not row.figures
            assert row.verdict is None
