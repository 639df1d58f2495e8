"""Models that tests of several packages share, loaded once a session."""

from pathlib import Path

import pytest

from sememe.job import map_model
from sememe.models.load import LanguageModel, load_model
from tests.prose import prose, small_job
from tests.tiny import tiny_model


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tiny_llama(tiny_directory: Path) -> LanguageModel:
    return load_model(str(tiny_directory), dtype="fp32")


@pytest.fixture(scope="session")
def smollm2() -> LanguageModel:
    return load_model("smollm2-135m", dtype="fp32")


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory, tiny_directory: Path) -> Path:
    """A whole run of the main job on the tiny model and made-up text."""
    path = tmp_path_factory.mktemp("run")
    map_model(small_job(tiny_directory, prose(path / "text")), path / "run")
    return path / "run"
