"""Labelled sets inside a made-up package."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import zstandard

from sememe.corpora.labelled import binary_sets, labelled_set
from sememe.errors import SememeError


def package(path: Path, **tables: str) -> Path:
    with zipfile.ZipFile(path / "sets.whl", "w") as archive:
        for name, text in tables.items():
            folder = "" if name.startswith("probing") else "cleaned_data/"
            archive.writestr(
                f"sae_probes/data/{folder}{name}.csv.zst", zstandard.compress(text.encode())
            )
    return path / "sets.whl"


def test_texts_come_once_with_the_label_that_sorts_last_as_true(tmp_path: Path) -> None:
    rows = 'prompt,target\n"a, b",yes\nc,no\n"a, b",no\n  ,yes\n"d\n",yes\n'
    found = labelled_set("1_set", package(tmp_path, **{"1_set": rows}))
    assert found.texts == ["a, b", "c", "d\n"]
    np.testing.assert_array_equal(found.labels, [True, False, True])


def test_what_is_no_set_of_two_classes_is_refused(tmp_path: Path) -> None:
    path = package(tmp_path, **{"1_set": "prompt,target\na,x\nb,y\nc,z\n"})
    with pytest.raises(SememeError, match="1_set has 3 classes; expected 2"):
        labelled_set("1_set", path)
    with pytest.raises(SememeError, match="does not hold the labelled sets"):
        labelled_set("2_set", path)
    with pytest.raises(SememeError, match="does not hold the labelled sets"):
        binary_sets(path)


def test_the_sets_of_two_classes_are_those_that_the_package_lists(tmp_path: Path) -> None:
    table = (
        "Dataset save name,Data type\n"
        "cleaned_data/7_b.csv,Binary Classification\n"
        "cleaned_data/8_c.csv,Continuous Data\n"
        "cleaned_data/2_a.csv,Binary Classification\n"
    )
    path = package(tmp_path, probing_datasets_MASTER=table)
    assert binary_sets(path) == ["7_b", "2_a"]
