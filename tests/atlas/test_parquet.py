from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sememe.atlas.parquet import write_parquet
from sememe.atlas.store import STATUSES, Atlas
from sememe.cli import main
from sememe.run import Run


def test_every_number_and_example_of_an_atlas_is_in_its_tables(
    small_run: Path, tmp_path: Path
) -> None:
    atlas = Atlas.open(Run(small_run).atlas)
    features, examples = map(pq.read_table, write_parquet(atlas, tmp_path))
    assert features["feature"].to_pylist() == [*range(atlas.features)]
    for name in ("frequency", "mean_square", "norm", "x", "cluster"):
        found = features[name].to_numpy()
        assert found.tobytes() == atlas.columns[name].tobytes()
    rows = examples.to_pylist()
    for page, row in zip(
        map(atlas.feature, range(atlas.features)), features.to_pylist(), strict=True
    ):
        assert row["status"] == page["status"] == STATUSES[atlas.columns["status"][row["feature"]]]
        assert row["histogram"] == page["histogram"]
        assert [pair["feature"] for pair in row["cofiring"]] == [n for n, _ in page["cofiring"]]
        for pair, (token, share) in zip(row["tokens"], page["tokens"], strict=True):
            assert (pair["token"], pair["share"]) == (token, pytest.approx(share))
            assert pair["text"] == atlas.token_bytes([token])[0].decode("utf-8", "replace")
        mine = [example for example in rows if example["feature"] == page["feature"]]
        assert len([e for e in mine if e["kind"] == "top"]) == len(page["top"])
        assert len([e for e in mine if e["kind"] == "inactive"]) == len(page["inactive"])
        for number, interval in enumerate(reversed(page["intervals"])):
            inside = [e for e in mine if e["interval"] == number]
            assert [e["value"] for e in inside] == pytest.approx(
                [e["value"] for e in interval["examples"]]
            )
            for example in inside:
                text = b"".join(atlas.token_bytes(example["tokens"]))
                assert example["text"] == text.decode("utf-8", "replace")


def test_an_export_without_a_form_is_refused(
    small_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["export", str(small_run)])
    assert ended.value.code == 2
    assert "--parquet" in capsys.readouterr().err
