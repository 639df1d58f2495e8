"""A live stream gives what the model computes, and runs it on from what is put in its place."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sememe.activations.harvest import harvest
from sememe.activations.live import LiveStream
from sememe.activations.rules import HarvestConfig
from sememe.corpora.corpus import Corpus
from sememe.dictionaries import TopK
from sememe.dictionaries.objectives import Divergence, Reconstruction
from sememe.errors import UsageError
from sememe.models.load import LanguageModel
from sememe.models.reading import replaced
from sememe.training import TrainConfig, Trainer, train

SITE = "layers.1.resid"
CONFIG = HarvestConfig(context=32, dtype="fp32")


def test_a_pass_holds_the_rows_of_a_store(
    corpus: Corpus, tiny_llama: LanguageModel, tmp_path: Path
) -> None:
    live = LiveStream(tiny_llama, corpus, (SITE,), CONFIG)
    stored = harvest(tiny_llama, corpus, [SITE], tmp_path / "store", config=CONFIG)
    rows = torch.cat([live._read(group) for group in live._groups(256, 3, 0)])
    expected = stored.read(SITE, 0, stored.rows)
    assert rows.shape == expected.shape
    for sums in (rows.sum(1).sort().values, rows[:, 3].sort().values):
        assert len(sums) == stored.rows
    torch.testing.assert_close(
        rows.sum(1).sort().values, expected.sum(1).sort().values, atol=1e-4, rtol=1e-4
    )
    assert live.scales[0] == pytest.approx(stored.scale(SITE), rel=1e-4)
    assert live.widths == (stored.width(SITE),)


def test_batches_are_addressed_by_number(corpus: Corpus, tiny_llama: LanguageModel) -> None:
    live = LiveStream(tiny_llama, corpus, (SITE, "layers.0.mlp.out"), CONFIG)
    whole = list(live.batches(200, 2, seed=1))
    assert len(whole) == live.steps(200, 2)
    assert {batch.shape[1] for batch in whole} == {sum(live.widths)}
    for start in (1, len(whole) // 2, len(whole) - 1):
        again = list(live.batches(200, 2, seed=1, start=start))
        assert all(torch.equal(a, b) for a, b in zip(again, whole[start:], strict=True))
    assert not torch.equal(whole[0], next(live.batches(200, 2, seed=2)))
    with pytest.raises(UsageError, match="batch 8 holds no window of 31 tokens"):
        live.steps(8, 1)


def test_the_divergence_is_that_of_the_model_run_by_hand(
    corpus: Corpus, tiny_llama: LanguageModel
) -> None:
    live = LiveStream(tiny_llama, corpus, (SITE,), CONFIG)
    rows = next(live.batches(150, 1, seed=0))
    assert float(live.divergence(rows, SITE)) == pytest.approx(0, abs=1e-5)
    rebuilt = (rows + 0.1 * torch.randn(rows.shape)).requires_grad_()
    found = live.divergence(rebuilt, SITE)
    found.backward()
    assert rebuilt.grad is not None
    assert (rebuilt.grad.norm(dim=1) > 0).float().mean() > 0.9

    batch, kept = live._last[0]
    assert kept.all()
    total, count, first = 0.0, 0, 0
    for ids, valid in zip(batch.ids, batch.valid, strict=True):
        length = int(valid.sum())
        new = rebuilt[first : first + length].detach()
        first += length
        alone = ids[: int(valid.nonzero().max()) + 1][None]
        lead, asked = alone.shape[1] - length, valid[1 : alone.shape[1]]

        def change(x: torch.Tensor, new: torch.Tensor = new, lead: int = lead) -> torch.Tensor:
            return torch.cat([x[:, :lead], new[None].to(x.dtype)], dim=1)

        with replaced(tiny_llama, SITE, change):
            spliced = tiny_llama.logits(alone)[0, :-1].double().log_softmax(-1)[asked]
        plain = tiny_llama.logits(alone)[0, :-1].double().log_softmax(-1)[asked]
        total += float((plain.exp() * (plain - spliced)).sum())
        count += len(plain)
    assert float(found.detach()) == pytest.approx(total / count, rel=1e-3)


def test_training_end_to_end_brings_predictions_nearer_than_reconstruction_alone(
    corpus: Corpus, tiny_llama: LanguageModel, tmp_path: Path
) -> None:
    live = LiveStream(tiny_llama, corpus, (SITE,), CONFIG)
    plain = TrainConfig(
        features=48,
        nonlinearity=TopK(3),
        objective=(Reconstruction(),),
        batch=256,
        passes=6,
        learning_rate=3e-3,
    )
    ended = {}
    for name, terms in {"plain": (), "kl": (Divergence(3000.0),)}.items():
        config = replace(plain, objective=(*plain.objective, *terms))
        dictionary = train(live, config, tmp_path / name)
        with torch.no_grad():
            divergences = [
                float(live.divergence(dictionary(rows), SITE))
                for rows in live.batches(256, 1, seed=9)
            ]
        ended[name] = sum(divergences) / len(divergences)
    assert ended["kl"] < 0.9 * ended["plain"]


def test_a_trainer_knows_that_its_stream_has_a_model(
    corpus: Corpus, tiny_llama: LanguageModel
) -> None:
    live = LiveStream(tiny_llama, corpus, (SITE,), CONFIG)
    config = TrainConfig(features=32, nonlinearity=TopK(2), objective=(Divergence(),), batch=128)
    trainer = Trainer(live, config, live.sites, live.sites)
    before = trainer.dictionary.W_dec.detach().clone()
    trainer.advance(next(live.batches(128, 4, 0)))
    assert not torch.equal(before, trainer.dictionary.W_dec)


def test_text_for_another_model_is_refused(corpus: Corpus, tiny_llama: LanguageModel) -> None:
    with pytest.raises(UsageError, match="context 100000"):
        LiveStream(tiny_llama, corpus, (SITE,), HarvestConfig(context=100_000))
    live = LiveStream(tiny_llama, corpus, (SITE,), CONFIG)
    with pytest.raises(UsageError, match="batch 1000000: a pass over"):
        live.steps(1_000_000, 3)
