"""What `import sememe` gives, and that it gives it only when asked."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import sememe


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def seen_by_type_checkers() -> dict[str, str]:
    """Return the public names that the guarded imports define, as module:name."""
    tree = ast.parse(Path(sememe.__file__).read_text())
    (guarded,) = [node for node in tree.body if isinstance(node, ast.If)]
    return {
        alias.asname or alias.name: f"{line.module}:{alias.name}"
        for line in guarded.body
        if isinstance(line, ast.ImportFrom)
        for alias in line.names
    }


def test_the_import_brings_nothing_heavy_and_names_come_when_asked() -> None:
    out = run(
        "import sys, sememe\n"
        "heavy = {'torch', 'transformers', 'numpy', 'numba', 'rich', 'starlette'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert not [name for name in sys.modules if name.startswith('sememe.')]\n"
        "assert {'load_model', 'map', 'Atlas'} <= set(dir(sememe))\n"
        "assert not heavy & set(sys.modules), 'dir() imports'\n"
        "print(sememe.SememeError.__name__, 'torch' in sys.modules)\n"
        "print(sememe.TrainConfig.__name__, 'torch' in sys.modules)\n"
    )
    assert out.split() == ["SememeError", "False", "TrainConfig", "True"]


def test_every_name_is_what_type_checkers_are_told() -> None:
    places = seen_by_type_checkers()
    assert sorted(places) == sorted(sememe.__all__)
    for name, place in places.items():
        module, _, there = place.partition(":")
        assert getattr(sememe, name) is getattr(importlib.import_module(module), there), name


def test_no_name_hides_a_submodule() -> None:
    submodules = {module.name for module in pkgutil.iter_modules(sememe.__path__)}
    assert {"atlas", "corpora", "training"} <= submodules
    assert not submodules & set(sememe.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'transcode'"):
        _ = sememe.transcode
    with pytest.raises(ImportError, match="transcode"):
        exec("from sememe import transcode")
