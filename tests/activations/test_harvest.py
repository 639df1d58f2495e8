from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sememe.activations.harvest import harvest, shard_windows
from sememe.activations.rules import HarvestConfig, TokenRules
from sememe.corpora.build import build_corpus
from sememe.corpora.corpus import Corpus
from sememe.errors import SememeError, UsageError
from sememe.models.load import LanguageModel
from tests.prose import prose

SITES = ["layers.0.mlp.hidden", "layers.1.resid"]
CONFIG = HarvestConfig(context=48, dtype="fp32", batch_tokens=512)


def plain_activations(
    model: LanguageModel, corpus: Corpus, start: int, length: int
) -> dict[str, torch.Tensor]:
    """What hooks see when the model reads one window alone, all of it."""
    ids = torch.tensor([[0, *corpus.tokens(start, start + length).tolist()]])
    seen: dict[str, torch.Tensor] = {}
    layers = model.module.model.layers
    handles = [
        layers[0].mlp.down_proj.register_forward_pre_hook(
            lambda _m, args: seen.__setitem__(SITES[0], args[0][0, 1:])
        ),
        layers[1].register_forward_hook(
            lambda _m, _a, out: seen.__setitem__(
                SITES[1], (out[0] if isinstance(out, tuple) else out).reshape(len(ids[0]), -1)[1:]
            )
        ),
    ]
    with torch.no_grad():
        model.module(ids)
    for handle in handles:
        handle.remove()
    return seen


def test_rows_are_what_hooks_see_on_each_window_alone(
    tmp_path: Path, tiny_llama: LanguageModel, corpus: Corpus
) -> None:
    stored = harvest(tiny_llama, corpus, SITES, tmp_path, config=CONFIG)
    windows = corpus.windows(CONFIG.context - 1, held_out=False)  # one place is the BOS's
    expected: dict[str, list[torch.Tensor]] = {site: [] for site in SITES}
    token, place, position = [], [], []
    for start, length in zip(windows.start.tolist(), windows.length.tolist(), strict=True):
        for site, rows in plain_activations(tiny_llama, corpus, start, length).items():
            expected[site].append(rows)
        token += corpus.tokens(start, start + length).tolist()
        place += range(start, start + length)
        position += range(length)
    limits = TokenRules.of(stored).norm_limits
    kept = torch.ones(len(token), dtype=torch.bool)
    for site in SITES:
        kept &= torch.cat(expected[site]).norm(dim=1) <= limits[site]
    for site in SITES:
        torch.testing.assert_close(
            stored.read(site, 0, stored.rows), torch.cat(expected[site])[kept], atol=2e-5, rtol=2e-5
        )
    for name, values in (("token", token), ("place", place), ("position", position)):
        assert stored.read(name, 0, stored.rows).tolist() == torch.tensor(values)[kept].tolist()
    square = torch.cat(expected[SITES[1]])[kept].double().square().sum(1).mean()
    assert stored.scale(SITES[1]) == pytest.approx(float((32 / square) ** 0.5), rel=1e-5)


def test_heads_and_parts_of_the_logits_are_stored(
    tmp_path: Path, tiny_llama: LanguageModel, corpus: Corpus
) -> None:
    sites = [
        "layers.1.attn.heads",
        "layers.1.attn.head.3",
        "logits.tokens.3,7-9",
        "logits.random.6",
    ]
    stored = harvest(tiny_llama, corpus, sites, tmp_path, config=CONFIG)
    heads, head, some, projected = (stored.read(site, 0, stored.rows) for site in sites)
    assert torch.equal(heads[:, 24:], head)
    document, position = (stored.read(name, 0, stored.rows) for name in ("document", "position"))
    row = int((document == document[-1]).nonzero()[0])
    ids = torch.tensor([[0, *stored.read("token", row, stored.rows).tolist()]])
    with torch.no_grad():
        logits = tiny_llama.module(ids[:, : CONFIG.context]).logits[0, 1:]
    kept = slice(row, row + len(logits))
    assert position[kept].tolist() == list(range(len(logits)))  # no sink among them
    torch.testing.assert_close(some[kept], logits[:, [3, 7, 8, 9]], atol=2e-5, rtol=2e-5)
    matrix = np.random.default_rng(6).standard_normal((512, 6), np.float32) / 6**0.5
    expected = logits @ torch.from_numpy(matrix)
    torch.testing.assert_close(projected[kept], expected.float(), atol=2e-4, rtol=2e-4)


def test_held_out_rows_come_from_other_documents_by_the_same_rules(
    tmp_path: Path, tiny_llama: LanguageModel, corpus: Corpus
) -> None:
    train = harvest(tiny_llama, corpus, SITES, tmp_path / "a", config=CONFIG)
    held = harvest(
        tiny_llama,
        corpus,
        SITES,
        tmp_path / "b",
        held_out=True,
        rules=TokenRules.of(train),
        config=CONFIG,
    )
    documents = {
        name: set(store.read("document", 0, store.rows).tolist())
        for name, store in (("train", train), ("held", held))
    }
    assert documents["train"]
    assert documents["held"]
    assert not documents["train"] & documents["held"]
    assert all(corpus.held_out[number] for number in documents["held"])
    assert TokenRules.of(train) == TokenRules.of(held)


def test_missing_shards_are_made_again_to_the_same_bytes(
    tmp_path: Path, tiny_llama: LanguageModel, corpus: Corpus
) -> None:
    config = replace(CONFIG, shard_rows=1000)
    whole = harvest(tiny_llama, corpus, SITES, tmp_path / "whole", config=config)
    assert whole.shards > 3
    cut = tmp_path / "cut"
    harvest(tiny_llama, corpus, SITES, cut, config=config)
    for name in ("manifest.json", "shard-00001.safetensors", "shard-00003.safetensors"):
        (cut / name).unlink()
    (cut / ".shard-00003.safetensors.99.partial").write_bytes(b"half")
    harvest(tiny_llama, corpus, SITES, cut, config=config)
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert sorted(path.name for path in cut.iterdir()) == names
    for name in names:
        assert (cut / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_another_job_in_the_same_place_is_refused(
    tmp_path: Path, tiny_llama: LanguageModel, corpus: Corpus
) -> None:
    harvest(tiny_llama, corpus, SITES, tmp_path, config=CONFIG)
    other = HarvestConfig(context=32, dtype="fp32")
    with pytest.raises(SememeError, match=r"batch_tokens=512.*batch_tokens=4096"):
        harvest(tiny_llama, corpus, SITES, tmp_path, config=other)


def test_a_context_beyond_the_models_is_refused(
    tmp_path: Path, tiny_llama: LanguageModel, corpus: Corpus
) -> None:
    with pytest.raises(UsageError, match="context 4096: expected 2 to 128"):
        harvest(tiny_llama, corpus, SITES, tmp_path, config=HarvestConfig(context=4096))


def test_too_little_disk_is_refused_before_anything_is_computed(
    tmp_path: Path, tiny_llama: LanguageModel, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("sememe.activations.harvest.shutil.disk_usage", lambda _: free)
    with pytest.raises(SememeError, match=r"0\.0 MB are free"):
        harvest(tiny_llama, corpus, SITES, tmp_path, config=CONFIG)
    assert not list(tmp_path.glob("shard-*"))


def test_nan_in_the_model_is_an_error_not_a_row(
    tmp_path: Path, tiny_directory: Path, corpus: Corpus
) -> None:
    from sememe.models.load import load_model

    broken = load_model(str(tiny_directory), dtype="fp32")
    broken.module.model.layers[1].mlp.down_proj.weight.data[0, 0] = float("inf")
    with pytest.raises(
        SememeError, match=r"NaN or infinity at layers\.1\.resid|no tokens are left"
    ):
        harvest(broken, corpus, SITES, tmp_path, config=CONFIG)


def test_shards_hold_whole_windows_in_order() -> None:
    lengths = np.array([10, 20, 30, 100, 5, 5, 5])
    assert shard_windows(lengths, 35) == [(0, 2), (2, 3), (3, 4), (4, 7)]


@pytest.mark.slow
def test_attention_sinks_of_smollm2_are_left_out(tmp_path: Path, smollm2: LanguageModel) -> None:
    """The first token of every window is a sink (norm 22,563 at layer 14 against about 150)."""
    text = prose(tmp_path / "text", documents=20)
    corpus = build_corpus(
        tmp_path / "corpus", smollm2.tokenizer, tokens=1500, sources=[str(text)], held_out=0.0
    )
    site = "layers.14.resid"
    stored = harvest(smollm2, corpus, [site], tmp_path / "store", config=HarvestConfig(context=64))
    position = stored.read("position", 0, stored.rows)
    windows = corpus.windows(64, held_out=False)
    assert not (position == 0).any()
    assert stored.rows == int(windows.length.sum()) - len(windows.start)
    assert stored.manifest["left_out"] == {"special": 0, "sink": len(windows.start)}
    norms = stored.read(site, 0, stored.rows).float().norm(dim=1)
    assert float(norms.max()) < 10 * float(norms.median())


def test_a_harvest_of_no_sites_is_refused(
    tmp_path: Path, tiny_llama: LanguageModel, corpus: Corpus
) -> None:
    with pytest.raises(UsageError, match="sites is empty: name one or more"):
        harvest(tiny_llama, corpus, [], tmp_path / "none", config=CONFIG)
    assert not (tmp_path / "none").exists()
