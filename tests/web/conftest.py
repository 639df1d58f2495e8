"""A small real atlas, served by the real server on a real loopback port."""

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from sememe.atlas.store import Atlas
from sememe.web.prompt import Prompt
from sememe.web.server import serve
from tests.web.small_atlas import REPORT, run_prompt, small_atlas


@contextmanager
def serving(atlas: Atlas, prompt: Prompt | None = run_prompt, **more: object) -> Iterator[str]:
    """Serve ``atlas`` in a thread; yields the address that a user would see."""
    addresses: queue.Queue[str] = queue.Queue()
    stop = threading.Event()
    thread = threading.Thread(
        target=serve,
        args=(atlas,),
        kwargs={
            "port": 0,
            "prompt": prompt,
            "report": REPORT,
            "announce": addresses.put,
            "stop": stop,
            **more,
        },
    )
    thread.start()
    try:
        yield addresses.get(timeout=20)
    finally:
        stop.set()
        thread.join(timeout=20)
        assert not thread.is_alive()


@contextmanager
def admitted(address: str) -> Iterator[httpx.Client]:
    """Yield a client that has exchanged the token of ``address`` for the cookie."""
    url = httpx.URL(address)
    with httpx.Client(base_url=url.copy_with(path="/", query=None), timeout=20) as client:
        assert client.get(address).status_code == 303
        yield client


@pytest.fixture(scope="session")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    return small_atlas(tmp_path_factory.mktemp("web") / "atlas")


@pytest.fixture(scope="session")
def address(atlas: Atlas) -> Iterator[str]:
    with serving(atlas) as found:
        yield found


@pytest.fixture(scope="session")
def client(address: str) -> Iterator[httpx.Client]:
    with admitted(address) as found:
        yield found


@pytest.fixture(scope="session")
def stranger(address: str) -> Iterator[httpx.Client]:
    """Yield a client on this machine that knows the port and nothing else."""
    url = httpx.URL(address)
    with httpx.Client(base_url=url.copy_with(path="/", query=None), timeout=20) as found:
        yield found


@pytest.fixture
def empty_assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("sememe.web.server.ASSETS", tmp_path)
    return tmp_path
