import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sememe import cli
from sememe.activations.own import harvest_module
from sememe.activations.store import Activations
from sememe.activations.stream import Stream
from sememe.dictionaries.dictionary import Dictionary
from sememe.errors import SememeError, UsageError

CONV, POOLED, LAST = "module:conv", "module:pool", "module:last"


class Small(nn.Module):
    """Convolution, pooling to one place, a linear layer; counts how often it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, kernel_size=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.last = nn.Linear(3, 4)
        self.runs = 0

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        return self.last(self.pool(self.conv(x).relu_()).flatten(1))


def small() -> Small:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Small().eval()


def images(sizes: tuple[int, ...] = (4, 4, 3, 5)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(size, 1, 4, 5, generator=generator) for size in sizes]


def hooked(module: nn.Module, target: nn.Module, batches: list[Tensor]) -> list[Tensor]:
    seen: list[Tensor] = []
    handle = target.register_forward_hook(lambda _m, _a, output: seen.append(output.clone()))
    with torch.no_grad():
        for batch in batches:
            module(batch)
    handle.remove()
    return seen


def test_a_conv_map_gives_a_row_a_place(tmp_path: Path) -> None:
    module, batches = small(), images()
    store = harvest_module(module, batches, [CONV], tmp_path, shard_rows=50)
    maps = torch.cat(hooked(module, module.conv, batches))
    assert maps.shape == (16, 3, 3, 4)
    assert store.rows == 16 * 12
    assert [shard["rows"] for shard in store.manifest["shards"]] == [50, 50, 50, 42]
    rows, document, position, place = (
        store.read(name, 0, store.rows) for name in (CONV, "document", "position", "place")
    )
    y, x = position // 4, position % 4
    assert torch.equal(rows, maps[document.long(), :, y.long(), x.long()])
    assert place.tolist() == list(range(16 * 12))
    assert document.tolist() == [number for number in range(16) for _ in range(12)]
    assert set(store.read("token", 0, store.rows).tolist()) == {-1}
    square = maps.double().square().sum() / store.rows
    assert store.scale(CONV) == pytest.approx(float((3 / square) ** 0.5))
    again = Activations.open(tmp_path)
    assert again.hash == store.hash


def test_several_sites_side_by_side_have_a_row_an_input(tmp_path: Path) -> None:
    module, batches = small(), images()
    sites = ["module:last:in", LAST]
    store = harvest_module(module, iter(batches), sites, tmp_path)
    entering, out = (store.read(site, 0, store.rows) for site in sites)
    assert torch.equal(out, torch.cat(hooked(module, module.last, batches)))
    torch.testing.assert_close(module.last(entering), out)
    assert store.manifest["made_from"]["model_name"] == "Small"


def test_only_valid_places_of_padded_sequences_are_kept(tmp_path: Path) -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(9, 6)

        def forward(self, *, ids: Tensor, mask: Tensor) -> Tensor:
            return self.embed(ids) * mask[..., None]

    module = Reader().eval()
    ids = torch.tensor([[1, 2, 3, 0], [4, 0, 0, 0], [5, 6, 7, 8]])
    batches = [{"ids": ids[:2], "mask": ids[:2] > 0}, {"ids": ids[2:], "mask": ids[2:] > 0}]
    store = harvest_module(
        module, batches, ["module:embed"], tmp_path, valid=lambda batch: batch["mask"]
    )
    assert torch.equal(
        store.read("module:embed", 0, 8), module.embed.weight[[1, 2, 3, 4, 5, 6, 7, 8]]
    )
    assert store.read("document", 0, 8).tolist() == [0, 0, 0, 1, 2, 2, 2, 2]
    assert store.read("position", 0, 8).tolist() == [0, 1, 2, 0, 0, 1, 2, 3]
    assert store.read("place", 0, 8).tolist() == [0, 1, 2, 4, 8, 9, 10, 11]
    assert store.manifest["left_out"] == {"not valid": 4}


def test_the_axis_of_the_numbers_can_be_said(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv1d(2, 5, 3)).eval()
    batch = torch.randn(3, 2, 8, generator=torch.Generator().manual_seed(0))
    store = harvest_module(module, [batch], ["module:0"], tmp_path, channel_axis=1)
    expected = module(batch).detach().transpose(1, 2).reshape(-1, 5)
    assert torch.equal(store.read("module:0", 0, 18), expected)


def stop_at(batches: list[Tensor], number: int) -> Iterator[Tensor]:
    yield from batches[:number]
    raise KeyboardInterrupt


@pytest.mark.parametrize("shard_rows", [1, 24, 50, 100, 500])
@pytest.mark.parametrize("number", [0, 1, 2, 3, 4])
def test_a_stopped_harvest_ends_with_the_same_bytes(
    tmp_path: Path, shard_rows: int, number: int
) -> None:
    batches = images()
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    harvest_module(small(), batches, [CONV], whole, shard_rows=shard_rows)
    with pytest.raises(KeyboardInterrupt):
        harvest_module(small(), stop_at(batches, number), [CONV], cut, shard_rows=shard_rows)
    done = len(list(cut.glob("shard-*")))
    module = small()
    store = harvest_module(module, batches, [CONV], cut, shard_rows=shard_rows)
    rows = [batch.shape[0] * 12 for batch in batches]
    skipped = sum(sum(rows[: n + 1]) <= done * shard_rows for n in range(4))
    assert module.runs == 4 - skipped
    names = sorted(path.name for path in whole.iterdir())
    assert sorted(path.name for path in cut.iterdir()) == names
    for name in names:
        assert (cut / name).read_bytes() == (whole / name).read_bytes(), name
    assert harvest_module(module, batches, [CONV], cut, shard_rows=shard_rows).hash == store.hash
    assert module.runs == 4 - skipped


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_other_batches_are_refused_when_it_goes_on(tmp_path: Path, changed: int) -> None:
    batches = images()
    with pytest.raises(KeyboardInterrupt):
        harvest_module(small(), stop_at(batches, 3), [CONV], tmp_path, shard_rows=50)
    assert len(list(tmp_path.glob("shard-*"))) == 2  # 100 of the first 132 rows
    others = [batch.clone() for batch in batches]
    others[changed][0, 0, 0, 0] += 1
    with pytest.raises(SememeError, match=r"begun with other batches|with first_batch="):
        harvest_module(small(), others, [CONV], tmp_path, shard_rows=50)
    with pytest.raises(SememeError, match="begun with other batches"):
        harvest_module(small(), batches[:1], [CONV], tmp_path, shard_rows=50)
    assert harvest_module(small(), batches, [CONV], tmp_path, shard_rows=50).rows == 192


def test_other_weights_are_refused(tmp_path: Path) -> None:
    harvest_module(small(), images(), [CONV], tmp_path)
    other = small()
    other.last.bias.data += 1
    with pytest.raises(SememeError, match="was made with model="):
        harvest_module(other, images(), [CONV], tmp_path)


def test_a_dictionary_is_trained_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = harvest_module(small(), images((64, 64)), [CONV], tmp_path / "store")
    batch = next(Stream(store, (CONV,)).batches(256, 1, 0))
    assert batch.shape == (256, 3)
    out = str(tmp_path / "dictionary")
    flags = ["--features", "8", "--k", "2", "--batch", "256", "--json"]
    cli.main(["train", str(tmp_path / "store"), "--out", out, *flags])
    assert json.loads(capsys.readouterr().out)["out"] == out
    dictionary = Dictionary.load(tmp_path / "dictionary")
    assert dictionary.manifest["made_from"]["model_name"] == "Small"
    assert dictionary.encode(batch).indices.shape == (256, 2)


class Broken(nn.Module):
    """Gives whatever it is told to."""

    def __init__(self, output: object) -> None:
        super().__init__()
        self.output = output
        self.inner = nn.Identity()
        self.idle = nn.Identity()

    def forward(self, x: Tensor) -> object:
        return self.inner(self.output)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("text", "'module:inner' gives no tensor: expected floats"),
        (torch.ones(4), "torch.float32 (4,): expected floats (inputs, ..., width)"),
        (torch.ones(4, 2, dtype=torch.int), "torch.int32 (4, 2): expected floats"),
        (torch.ones(8, 2), "(8, 2) for 4 inputs: its first axis must be theirs"),
        (torch.full((4, 2), torch.nan), "batch 0 gives NaN or infinity at module:inner"),
        (torch.zeros(4, 2), "every activation at module:inner is zero"),
        (torch.full((4, 2), 1e6), "an activation of 1e+06 at module:inner is too large"),
    ],
)
def test_what_a_module_may_not_give(tmp_path: Path, output: object, message: str) -> None:
    with pytest.raises(SememeError, match=re.escape(message)):
        harvest_module(
            Broken(output).eval(), [torch.ones(4, 1)], ["module:inner"], tmp_path, dtype="fp16"
        )
    assert not (tmp_path / "manifest.json").exists()


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    module, batches = small(), images()
    cases = {
        r"no module 'cnv'; did you mean conv": {"sites": ["module:cnv"]},
        r"sites is empty": {"sites": []},
        r"batches is empty": {"batches": []},
        r"batch 0 is str without a tensor": {"batches": ["text"]},
        r"shard_rows is 0": {"shard_rows": 0},
        r"channel_axis is 4, but site 'module:conv' gives": {"channel_axis": 4},
        r"channel_axis is 0": {"channel_axis": 0},
        r"valid gives torch.bool \(4, 1\) for batch 0: expected torch.bool \(4, 12\)": {
            "valid": lambda batch: torch.ones(len(batch), 1, dtype=torch.bool)
        },
        r"no rows: valid leaves out": {
            "valid": lambda batch: torch.zeros(len(batch), 12, dtype=torch.bool)
        },
        r"different numbers of places in an input, \{'module:conv': 12, 'module:pool': 1\}": {
            "sites": [CONV, POOLED]
        },
    }
    for number, (message, given) in enumerate(cases.items()):
        arguments = {"batches": batches, "sites": [CONV], **given}
        with pytest.raises(SememeError, match=message):
            harvest_module(module, out=tmp_path / str(number), **arguments)
    with pytest.raises(SememeError, match="does not run"):
        harvest_module(Broken(None).eval(), batches, ["module:idle"], tmp_path / "idle")
    with pytest.raises(UsageError, match=r"training mode.*call eval"):
        harvest_module(module.train(), batches, [CONV], tmp_path / "training")


def test_batches_of_another_width_are_refused(tmp_path: Path) -> None:
    class Grows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.same = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return self.same(x)

    batches = [torch.ones(2, 3), torch.ones(2, 4)]
    with pytest.raises(SememeError, match=r"batch 1 gives widths .*4.*, those before it .*3"):
        harvest_module(Grows().eval(), batches, ["module:same"], tmp_path)
