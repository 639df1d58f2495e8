"""A buffer that the model refills gives the rows of a store, once a pass, from any batch on."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sememe.activations.buffered import BufferedStream
from sememe.activations.harvest import harvest
from sememe.activations.live import LiveStream
from sememe.activations.rules import HarvestConfig, TokenRules
from sememe.activations.store import ROW_FACTS, Activations
from sememe.activations.stream import Batch, Stream
from sememe.corpora.corpus import Corpus
from sememe.dictionaries import TopK
from sememe.errors import UsageError
from sememe.models.load import LanguageModel
from sememe.progress import Progress
from sememe.training import TrainConfig, train

SITE = "layers.1.resid"
CONFIG = HarvestConfig(context=32, dtype="fp16", batch_tokens=256, sink_multiple=1.1)
"""A multiple so low that many tokens count as sinks."""


@pytest.fixture(scope="module")
def stored(
    tmp_path_factory: pytest.TempPathFactory, corpus: Corpus, tiny_llama: LanguageModel
) -> Activations:
    path = tmp_path_factory.mktemp("stored")
    return harvest(tiny_llama, corpus, [SITE], path, config=CONFIG)


def stream(model: LanguageModel, corpus: Corpus, **options: int) -> BufferedStream:
    return BufferedStream(model, corpus, (SITE,), CONFIG, **{"buffer": 600, **options})


def passes_of(batches: list[list[Batch]], passes: int) -> list[Batch]:
    """The batches of all ranks, put together a pass at a time."""
    cut = len(batches[0]) // passes
    return [
        Batch(
            *map(
                torch.cat, zip(*(b for rank in batches for b in rank[low : low + cut]), strict=True)
            )
        )
        for low in range(0, cut * passes, cut)
    ]


@settings(max_examples=5, deadline=None)
@given(
    buffer=st.integers(124, 6000),
    batch=st.integers(20, 120),
    ranks=st.integers(1, 3),
    seed=st.integers(0, 3),
)
def test_ranks_share_the_rows_of_a_store_once_a_pass(
    corpus: Corpus,
    tiny_llama: LanguageModel,
    stored: Activations,
    buffer: int,
    batch: int,
    ranks: int,
    seed: int,
) -> None:
    expected = [stored.read(name, 0, stored.rows) for name in (SITE, *ROW_FACTS)]
    streams = [
        stream(tiny_llama, corpus, buffer=buffer, rank=rank, ranks=ranks) for rank in range(ranks)
    ]
    drawn = [list(each.described(batch, 2, seed)) for each in streams]
    assert {len(batches) for batches in drawn} == {streams[0].steps(batch, 2)}
    assert max(len(b.inputs) for batches in drawn for b in batches) <= batch
    for found in passes_of(drawn, 2):
        order = found.place.argsort()
        for fact, wanted in zip(found[1:], expected[1:], strict=True):
            assert torch.equal(fact[order], wanted.long())
        torch.testing.assert_close(found.inputs[order], expected[0].float(), atol=2e-2, rtol=2e-3)


@settings(max_examples=5, deadline=None)
@given(start=st.floats(0, 1), batch=st.integers(20, 300), rank=st.integers(0, 1))
def test_starting_at_a_batch_equals_going_there(
    corpus: Corpus, tiny_llama: LanguageModel, start: float, batch: int, rank: int
) -> None:
    live = stream(tiny_llama, corpus, rank=rank, ranks=2)
    whole = list(live.batches(batch, 2, seed=1))
    first = round(start * len(whole))
    rest = list(live.batches(batch, 2, seed=1, start=first))
    assert len(rest) == len(whole) - first
    assert all(torch.equal(a, b) for a, b in zip(rest, whole[first:], strict=True))


def test_seeds_and_passes_shuffle_differently(corpus: Corpus, tiny_llama: LanguageModel) -> None:
    live = stream(tiny_llama, corpus)
    first = list(live.described(100, 2, seed=0))
    other = next(live.described(100, 2, seed=1))
    assert not torch.equal(first[0].place, other.place)
    assert not torch.equal(first[0].place, first[len(first) // 2].place)


def test_a_part_is_mixed_whatever_order_it_was_read_in(
    corpus: Corpus, tiny_llama: LanguageModel
) -> None:
    """The rows of one window are spread over the batches of a part as evenly as by chance."""
    live = stream(tiny_llama, corpus, buffer=6000)
    batches = list(live.described(200, 1, seed=0))
    documents = torch.cat([batch.document for batch in batches])
    counts = documents.bincount()
    expected = (1 - (1 - counts / len(documents)) ** 200).sum()
    found = sum(len(batch.document.unique()) for batch in batches[:-1]) / (len(batches) - 1)
    assert found == pytest.approx(float(expected), rel=0.05)


def test_the_model_reads_as_rows_are_used_and_never_holds_more_than_the_buffer(
    corpus: Corpus, tiny_llama: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = stream(tiny_llama, corpus)
    read = 0
    rows_of = BufferedStream._rows

    def counted(self, batch):
        nonlocal read
        rows, kept = rows_of(self, batch)
        read += len(rows.inputs)
        return rows, kept

    assert live.scales
    monkeypatch.setattr(BufferedStream, "_rows", counted)
    used, held = 0, []
    for rows in live.batches(50, 1, seed=0):
        used += len(rows)
        held.append(read - used)
    assert used == read
    assert max(held) <= live.buffer
    middle = held[len(held) // 4 : len(held) // 2]
    assert min(middle) > live.buffer // 4


def test_tokens_left_out_are_those_that_a_store_leaves_out(
    corpus: Corpus, tiny_llama: LanguageModel, stored: Activations
) -> None:
    live = stream(tiny_llama, corpus)
    assert live.tokens == {"read": 0, "special": 0, "sink": 0}
    for passes in (1, 2):
        assert sum(len(rows) for rows in live.batches(50, passes, 0)) == passes * stored.rows
        assert live.tokens == {"read": live.rows, **stored.manifest["left_out"]}
    assert live.tokens["sink"] > 0


class StoppedError(Exception):
    pass


class StopAt(Progress):
    def __init__(self, steps: int) -> None:
        self.left = steps

    def advance(self, amount, **live):
        self.left -= 1
        if not self.left:
            raise StoppedError


def test_training_stopped_and_gone_on_is_the_same_run_with_its_origin(
    corpus: Corpus, tiny_llama: LanguageModel, stored: Activations, tmp_path: Path
) -> None:
    config = TrainConfig(features=48, nonlinearity=TopK(3), batch=100, passes=2, checkpoint_every=4)
    whole = train(stream(tiny_llama, corpus), config, tmp_path / "whole")
    with pytest.raises(StoppedError):
        train(stream(tiny_llama, corpus), config, tmp_path / "cut", progress=StopAt(14))
    train(stream(tiny_llama, corpus), config, tmp_path / "cut")
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "cut" / path.name).read_bytes()
    assert whole.manifest["steps"] == stream(tiny_llama, corpus).steps(100, 2)
    origin = whole.manifest["made_from"]
    of_store = Stream(stored, (SITE,)).made_from
    assert {name: origin[name] for name in of_store if name != "activations"} == {
        name: value for name, value in of_store.items() if name != "activations"
    }
    assert origin["model"] == tiny_llama.hash
    with pytest.raises(Exception, match="made_from="):
        train(stream(tiny_llama, corpus, buffer=700), config, tmp_path / "whole")


def test_every_live_stream_says_what_it_is_made_from(
    corpus: Corpus, tiny_llama: LanguageModel, stored: Activations
) -> None:
    live = LiveStream(tiny_llama, corpus, (SITE,), CONFIG)
    assert live.made_from["corpus"] == corpus.hash
    assert TokenRules(**live.made_from["rules"]) == TokenRules.of(stored)


def test_impossible_buffers_are_refused(corpus: Corpus, tiny_llama: LanguageModel) -> None:
    for options, said in (
        ({"buffer": 100}, "buffer is 100; expected 124 or more"),
        ({"rank": 1}, "rank is 1; expected 0 to 0"),
        ({"ranks": 0}, "ranks is 0"),
    ):
        with pytest.raises(UsageError, match=said):
            stream(tiny_llama, corpus, **options)
    with pytest.raises(UsageError, match="batch 601: expected 1 to 600"):
        stream(tiny_llama, corpus).steps(601, 1)
    with pytest.raises(UsageError, match="context 100000"):
        BufferedStream(tiny_llama, corpus, (SITE,), replace(CONFIG, context=100_000))
