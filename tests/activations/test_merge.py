"""Stores that become one, and what the commands say of stores."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from sememe import cli
from sememe.activations.harvest import harvest
from sememe.activations.merge import merge
from sememe.activations.rules import HarvestConfig, TokenRules
from sememe.activations.store import ROW_FACTS, Activations
from sememe.artefacts import write_manifest
from sememe.atlas.describe import describe
from sememe.corpora.build import build_corpus
from sememe.corpora.corpus import Corpus
from sememe.dictionaries.dictionary import Dictionary
from sememe.errors import SememeError, UsageError
from sememe.models.load import LanguageModel
from sememe.run import Run
from tests.prose import prose

SITE = "layers.0.resid"


def part(store: Activations, shards: Sequence[int], out: Path) -> Path:
    """Write some shards of a store as a store of their own, as if that were all of the harvest."""
    out.mkdir()
    listed = [store.manifest["shards"][number] for number in shards]
    squares, left_out = 0.0, {"special": 0, "sink": 0}
    for shard in listed:
        shutil.copy(store.path / shard["file"], out)
        with safe_open(out / shard["file"], framework="pt") as opened:
            header = json.loads(opened.metadata()["sememe"])
        squares += header["squares"][SITE]
        left_out = {reason: left_out[reason] + header["left_out"][reason] for reason in left_out}
    rows = sum(shard["rows"] for shard in listed)
    facts = store.manifest["sites"][SITE]
    scale = (facts["width"] * rows / squares) ** 0.5
    write_manifest(
        out,
        "activations",
        config=store.manifest["config"],
        made_from=store.manifest["made_from"],
        files=[shard["file"] for shard in listed],
        rows=rows,
        left_out=left_out,
        shards=listed,
        sites={SITE: {**facts, "scale": scale}},
        rules=store.manifest["rules"],
    )
    return out


@pytest.fixture
def model(small_run: Path) -> LanguageModel:
    return Run(small_run).load_model()


@pytest.fixture
def whole(small_run: Path) -> Activations:
    store = Activations.open(Run(small_run).activations)
    assert store.sites == [SITE]
    assert store.shards >= 4
    return store


@pytest.fixture
def other(whole: Activations, model: LanguageModel, tmp_path: Path) -> tuple[Activations, Corpus]:
    """A store of another text by the rules of the first, and its corpus."""
    text = prose(tmp_path / "other-text", seed=7)
    corpus = build_corpus(
        tmp_path / "other-corpus", model.tokenizer, tokens=3000, sources=[str(text)]
    )
    config = HarvestConfig(context=64, shard_rows=1000)
    store = harvest(
        model,
        corpus,
        [SITE],
        tmp_path / "other",
        config=config,
        rules=TokenRules.of(whole),
    )
    return store, corpus


def column(store: Activations, name: str) -> torch.Tensor:
    return store.read(name, 0, store.rows)


def test_parts_of_one_corpus_are_the_whole_again(
    whole: Activations, small_run: Path, model: LanguageModel, tmp_path: Path
) -> None:
    late = part(whole, range(2, whole.shards), tmp_path / "late")
    early = part(whole, [0, 1], tmp_path / "early")
    merged = merge([late, early], tmp_path / "merged")
    for name in (SITE, *ROW_FACTS):
        assert torch.equal(column(merged, name), column(whole, name)), name
    assert merged.scale(SITE) == pytest.approx(whole.scale(SITE), rel=1e-12)
    assert merged.manifest["left_out"] == whole.manifest["left_out"]
    first, second = (tmp_path / "merged/shard-00000.safetensors", early / "shard-00000.safetensors")
    assert first.samefile(second)
    run = Run(small_run)
    dictionary, corpus = Dictionary.load(run.dictionary), Corpus.open(run.corpus)
    atlas = describe(model, dictionary, merged, corpus, tmp_path / "atlas")
    assert atlas.manifest["tokens"] == whole.rows


def test_merging_again_returns_what_is_there_and_other_stores_are_refused(
    whole: Activations, tmp_path: Path
) -> None:
    parts = [part(whole, [number], tmp_path / f"part-{number}") for number in range(3)]
    once = merge(parts[:2], tmp_path / "merged")
    assert merge(parts[:2], tmp_path / "merged").hash == once.hash
    with pytest.raises(SememeError, match="was made with merged="):
        merge(parts[1:], tmp_path / "merged")


def test_a_merge_that_was_killed_goes_on(whole: Activations, tmp_path: Path) -> None:
    parts = [part(whole, [number], tmp_path / f"part-{number}") for number in range(3)]
    out = tmp_path / "merged"
    manifest = merge(parts, out).manifest
    (out / "manifest.json").unlink()
    (out / "shard-00001.safetensors").unlink()
    assert merge(parts, out).manifest == manifest


def test_several_corpora_get_numbers_of_their_own(
    whole: Activations,
    other: tuple[Activations, Corpus],
    small_run: Path,
    model: LanguageModel,
    tmp_path: Path,
) -> None:
    store, corpus = other
    merged = merge([whole.path, store.path], tmp_path / "merged")
    assert merged.rows == whole.rows + store.rows
    for name in (SITE, "token", "position"):
        assert torch.equal(
            column(merged, name), torch.cat([column(whole, name), column(store, name)])
        )
    for name in ("document", "place"):
        mine, its = column(whole, name), column(store, name)
        (added,) = (column(merged, name)[whole.rows :] - its).unique().tolist()
        assert added == int(mine.max()) + 1 == merged.manifest["numbering"][1][name]
        assert torch.equal(column(merged, name)[: whole.rows], mine)
    values = column(merged, SITE).double()
    scale = (values.shape[1] / values.square().sum(1).mean()) ** 0.5
    assert merged.scale(SITE) == pytest.approx(float(scale), rel=1e-3)
    dictionary = Dictionary.load(Run(small_run).dictionary)
    for text in (corpus, Corpus.open(Run(small_run).corpus)):
        with pytest.raises(SememeError, match=f"corpus {whole.manifest['made_from']['corpus']} "):
            describe(model, dictionary, merged, text, tmp_path / "atlas")


def test_rows_that_would_come_twice_are_refused(
    whole: Activations, other: tuple[Activations, Corpus], tmp_path: Path
) -> None:
    early = part(whole, [0, 1], tmp_path / "early")
    late = part(whole, [1, 2], tmp_path / "late")
    with pytest.raises(SememeError, match="rows would come twice"):
        merge([early, late], tmp_path / "out")
    merged = merge([early, other[0].path], tmp_path / "merged")
    with pytest.raises(SememeError, match="is in a merged store and in another"):
        merge([merged.path, part(whole, [2], tmp_path / "third")], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_stores_that_are_not_alike_are_refused_naming_both_values(
    whole: Activations,
    small_run: Path,
    other: tuple[Activations, Corpus],
    model: LanguageModel,
    tmp_path: Path,
) -> None:
    _, corpus = other
    rules = TokenRules.of(whole)
    config = HarvestConfig(context=64)
    sites = [SITE, "layers.1.resid"]
    stores = {
        r"sites \['layers.0.resid', .*\], but .* \['layers.0.resid'\]": harvest(
            model, corpus, sites, tmp_path / "sites", config=config
        ),
        "context 32, but .* 64": harvest(
            model,
            corpus,
            [SITE],
            tmp_path / "context",
            config=HarvestConfig(context=32),
            rules=rules,
        ),
        "norm_limits .* has .*rules-of": harvest(
            model, corpus, [SITE], tmp_path / "limits", config=config
        ),
        "dtype fp32, but .* fp16": harvest(
            model,
            corpus,
            [SITE],
            tmp_path / "dtype",
            config=config,
            rules=rules._replace(dtype="fp32"),
        ),
        "held_out True, but .* False": Activations.open(Run(small_run).held_out),
    }
    for message, store in stores.items():
        with pytest.raises(SememeError, match=message):
            merge([whole.path, store.path], tmp_path / "out")
    with pytest.raises(UsageError, match="two or more"):
        merge([whole.path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_verify_names_every_damaged_file(
    whole: Activations, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(whole.path, copy)
    cli.main(["activations", "verify", str(whole.path), str(copy), "--json"])
    assert json.loads(capsys.readouterr().out)["files"] == 2 * whole.shards
    flipped, cut, missing = (copy / f"shard-{number:05d}.safetensors" for number in range(3))
    data = bytearray(flipped.read_bytes())
    data[-1] ^= 1
    flipped.write_bytes(data)
    cut.write_bytes(cut.read_bytes()[:-5])
    missing.unlink()
    with pytest.raises(SystemExit) as caught:
        cli.main(["activations", "verify", str(whole.path), str(copy)])
    assert caught.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"3 of {2 * whole.shards} files are damaged" in line
    for path, damage in ((flipped, "checksum"), (cut, "truncated"), (missing, "is missing")):
        assert damage in line.partition(str(path))[2].split(";")[0]


def test_info_says_what_a_store_holds(
    whole: Activations, small_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["activations", "info", str(whole.path), "--json"])
    (facts,) = json.loads(capsys.readouterr().out)["stores"]
    (site,) = facts["sites"]
    values = column(whole, SITE).double()
    assert site["norm"] == pytest.approx(float(values.square().sum(1).mean().sqrt()), rel=1e-3)
    assert (site["width"], site["dtype"]) == (values.shape[1], "fp16")
    corpus = Corpus.open(Run(small_run).corpus)
    assert facts["documents"] == int((corpus.held_out == 0).sum())
    tokens = int(corpus.length[corpus.held_out == 0].sum())
    assert facts["rows"] + sum(facts["left_out"].values()) == tokens
    assert facts["made_from"]["corpus"] == corpus.hash
    cli.main(["activations", "info", str(whole.path)])
    shown = capsys.readouterr().out
    assert SITE in shown
    assert f"{whole.rows:,}" in shown


def test_the_command_merges(
    whole: Activations, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = [str(part(whole, [number], tmp_path / f"part-{number}")) for number in range(2)]
    cli.main(["activations", "merge", *parts, "--out", str(tmp_path / "merged"), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == whole.shard_starts[2]
