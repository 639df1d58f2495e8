"""int8 rows: how far off they may be, and that everything that reads a store sees floats."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sememe import cli
from sememe.activations.buffered import BufferedStream
from sememe.activations.harvest import harvest
from sememe.activations.merge import merge
from sememe.activations.own import harvest_module
from sememe.activations.quantised import dequantise, quantise
from sememe.activations.rules import HarvestConfig, TokenRules
from sememe.activations.stream import Stream
from sememe.corpora.build import build_corpus
from sememe.corpora.corpus import Corpus
from sememe.errors import SememeError, UsageError
from sememe.models.load import LanguageModel
from tests.prose import prose

SITES = ["layers.0.mlp.hidden", "layers.1.resid"]
CONFIG = HarvestConfig(context=32, dtype="int8", batch_tokens=256, shard_rows=1000)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 1000),
    size=st.floats(-30, 30),
    outlier=st.floats(0, 1e4),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_no_number_is_off_by_more_than_half_the_rows_scale(
    seed: int, size: float, outlier: float, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(20, 9, generator=generator) * 10**size
    x[::2, 3] *= outlier  # a dimension far larger than the others
    x[7] = 0
    x = x.to(dtype)
    rows, scale = quantise(x)
    wide = x.double()
    expected = wide.abs().amax(dim=1) / 127
    torch.testing.assert_close(scale.double(), expected, atol=2e-38, rtol=1e-6)
    errors = (dequantise(rows, scale).double() - wide).abs()
    assert bool((errors <= (0.5 + 2e-5) * scale.double()[:, None]).all())
    assert not dequantise(rows, scale)[7].any()


def test_the_disk_is_asked_for_scales_with_their_rows(
    tmp_path: Path, tiny_llama: LanguageModel, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = harvest(tiny_llama, corpus, SITES, tmp_path, config=CONFIG)
    asked: list[int] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _file, _start, size, _how: asked.append(size))
    store.expect((SITES[1],), np.arange(0, store.rows, 16), 16)
    assert sum(asked) == store.rows * (store.width(SITES[1]) + 4)


def test_a_store_gives_floats_and_says_what_was_lost(
    tmp_path: Path, tiny_llama: LanguageModel, corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    exact = harvest(
        tiny_llama, corpus, SITES, tmp_path / "exact", config=replace(CONFIG, dtype="fp32")
    )
    rules = TokenRules.of(exact)._replace(dtype="int8")
    store = harvest(tiny_llama, corpus, SITES, tmp_path / "int8", config=CONFIG, rules=rules)
    assert (store.dtype, store.rows, store.shards) == ("int8", exact.rows, exact.shards)
    assert store.shards > 2
    numbers = np.random.default_rng(0).permutation(store.rows)[:500]
    for site in SITES:
        given, kept = (each.read(site, 0, store.rows) for each in (exact, store))
        assert kept.dtype == torch.float32
        scale = given.abs().amax(dim=1, keepdim=True) / 127
        assert bool(((kept - given).abs() <= (0.5 + 2e-5) * scale).all())
        assert torch.equal(store.take(site, numbers), kept[numbers])
        assert torch.equal(torch.cat([rows.values for rows in store.in_order(site)]), kept)
        norms = kept.double().square().sum(dim=1)
        assert store.scale(site) == pytest.approx(
            float((kept.shape[1] / norms.mean()) ** 0.5), rel=1e-6
        )
        error = (kept - given).double()
        centred = given.double() - given.double().mean(dim=0)
        relative = error.norm(dim=1) / given.double().norm(dim=1)
        facts = store.manifest["sites"][site]["quantisation"]
        assert facts == pytest.approx(
            {
                "fvu": float(error.square().sum() / centred.square().sum()),
                "error": float(relative.mean()),
                "largest_error": float(relative.max()),
            },
            rel=1e-5,
        )
        assert "quantisation" not in exact.manifest["sites"][site]
    cli.main(["activations", "info", str(store.path), "--json"])
    (shown,) = json.loads(capsys.readouterr().out)["stores"]
    for site in shown["sites"]:
        assert site["dtype"] == "int8"
        assert site["fvu"] == store.manifest["sites"][site["site"]]["quantisation"]["fvu"]
    stream = Stream(store, tuple(SITES))
    both = torch.cat([store.read(site, 0, store.rows) for site in SITES], dim=1)
    drawn = next(stream.described(64, 1, seed=0))
    where = torch.searchsorted(store.read("place", 0, store.rows), drawn.place)
    assert torch.equal(drawn.inputs, both[where])


def test_a_shard_is_half_of_fp16_and_raw_integers_cannot_be_read(
    tmp_path: Path, tiny_llama: LanguageModel, corpus: Corpus
) -> None:
    (site,) = SITES[1:]
    store = harvest(tiny_llama, corpus, [site], tmp_path, config=CONFIG)
    raw = safetensors.torch.load_file(tmp_path / "shard-00000.safetensors")
    rows = store.shard_starts[1]
    assert raw[site].dtype == torch.int8
    assert raw[site].nbytes == rows * store.width(site)
    product = raw[site].float() * raw[f"{site}:row_scale"][:, None]
    assert torch.equal(store.read(site, 0, rows), product)
    for read in (
        lambda name: store.read(name, 0, 5),
        lambda name: store.take(name, np.arange(5)),
        lambda name: list(store.in_order(name)),
    ):
        with pytest.raises(UsageError, match=r"'layers\.1\.resid:row_scale' is not in"):
            read(f"{site}:row_scale")


def test_a_live_buffer_of_int8_is_as_near_as_a_store(
    tiny_llama: LanguageModel, corpus: Corpus
) -> None:
    streams = [
        BufferedStream(tiny_llama, corpus, tuple(SITES), replace(CONFIG, dtype=dtype), buffer=600)
        for dtype in ("fp32", "int8")
    ]
    exact, near = (next(stream.described(200, 1, seed=0)) for stream in streams)
    assert torch.equal(exact.place, near.place)
    widths = list(streams[0].widths)
    for values, kept in zip(
        exact.inputs.split(widths, 1), near.inputs.split(widths, 1), strict=True
    ):
        scale = values.abs().amax(dim=1, keepdim=True) / 127
        assert bool(((kept - values).abs() <= (0.5 + 2e-5) * scale).all())
        assert not torch.equal(kept, values)


def test_merged_stores_pool_what_was_lost(
    tmp_path: Path, tiny_llama: LanguageModel, corpus: Corpus
) -> None:
    (site,) = SITES[1:]
    train = harvest(tiny_llama, corpus, [site], tmp_path / "train", config=CONFIG)
    text = str(prose(tmp_path / "text", seed=5))
    more = build_corpus(
        tmp_path / "corpus", tiny_llama.tokenizer, tokens=2000, sources=[text], held_out=0.0
    )
    other = harvest(
        tiny_llama, more, [site], tmp_path / "other", config=CONFIG, rules=TokenRules.of(train)
    )
    merged = merge([train.path, other.path], tmp_path / "merged")
    rows = torch.cat([store.read(site, 0, store.rows) for store in (train, other)])
    assert torch.equal(merged.read(site, 0, merged.rows), rows)
    lost = [s.manifest["sites"][site]["quantisation"] for s in (train, other, merged)]
    counts = [train.rows, other.rows]
    mean = np.average([part["error"] for part in lost[:2]], weights=counts)
    assert lost[2]["error"] == pytest.approx(mean, rel=1e-9)
    assert lost[2]["largest_error"] == max(part["largest_error"] for part in lost[:2])


def test_a_module_of_ones_own_is_stored_in_int8(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU()).eval()
    batches = list(torch.randn(3, 50, 4))
    store = harvest_module(module, batches, ["module:0"], tmp_path, dtype="int8", shard_rows=70)
    with torch.no_grad():
        expected = module[0](torch.cat(batches))
    kept = store.read("module:0", 0, store.rows)
    scale = expected.abs().amax(dim=1, keepdim=True) / 127
    assert bool(((kept - expected).abs() <= (0.5 + 2e-5) * scale).all())
    assert 0 < store.manifest["sites"]["module:0"]["quantisation"]["fvu"] < 1e-3
    with torch.no_grad():
        module[0].weight[0, 0] = torch.nan
    with pytest.raises(SememeError, match="NaN or infinity"):
        harvest_module(module, batches, ["module:0"], tmp_path / "nan", dtype="int8")
