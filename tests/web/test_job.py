"""`sememe map --serve` as a person sees it: a process of its own, and a real Chromium."""

import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from sememe.training.history import read_history
from tests.prose import prose
from tests.web.conftest import admitted
from tests.web.test_browser import browser  # noqa: F401 - the fixture

MAIN = "from sememe import cli; cli.main()"
CURVE = "figure path.line"
GROWN = "length => document.querySelector('figure path.line')?.getAttribute('d').length > length"


@dataclass
class Child:
    """A running `sememe map --serve`."""

    process: subprocess.Popen[str]
    lines: queue.Queue[str] = field(default_factory=queue.Queue)
    address: str = ""
    errors: list[str] = field(default_factory=list)

    def told(self, pattern: str) -> None:
        """Wait for a line on standard error."""
        while not re.search(pattern, line := self.lines.get(timeout=120)):
            assert line, f"ended without {pattern!r}: {self.errors}"

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=60)


@contextmanager
def mapping(model: Path, text: Path, out: Path, *words: str) -> Iterator[Child]:
    """Start the job on the tiny model, with some ten seconds of training, and serve it."""
    command = [sys.executable, "-c", MAIN, "map", str(model), "--text", str(text), "--serve"]
    command += ["--tokens", "8000", "--context", "64", "--features", "128", "--k", "8"]
    command += ["--batch", "64", "--passes", "48", "--out", str(out), "--port", "0", *words]
    environment = {**os.environ, "JAXTYPING_DISABLE": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        child = Child(process)

        def read() -> None:
            assert process.stderr is not None
            for line in process.stderr:
                child.errors.append(line)
                child.lines.put(line)
            child.lines.put("")

        threading.Thread(target=read, daemon=True).start()
        assert process.stdout is not None
        for line in process.stdout if "--json" not in words else ():
            if found := re.search(r"http://\S+", line):
                child.address = found[0]
                break
        try:
            yield child
        finally:
            process.kill()


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prose(tmp_path_factory.mktemp("job") / "text")


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:  # noqa: F811
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    shown = context.new_page()
    shown.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    yield shown
    expect.set_options(timeout=5_000)
    context.close()


@pytest.mark.slow
@pytest.mark.browser
def test_curves_and_early_features_grow_through_a_kill_until_the_atlas_is_there(
    tiny_directory: Path, text: Path, tmp_path: Path, page: Page
) -> None:
    out = tmp_path / "run"
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    with mapping(tiny_directory, text, out) as child:
        page.goto(child.address)
        expect(page).to_have_url(re.compile(r"/job$"))
        expect(page.locator("h1")).to_have_text(f"Taking {tiny_directory.name} apart")
        expect(page.locator("li.running .stage")).to_have_text("train")
        expect(page.locator("li.running")).to_contain_text(
            re.compile(r"of [\d,]+ activations, .*/s")
        )
        expect(page.locator("li.done .stage")).to_have_text(
            ["corpus", "harvest", "harvest held-out"]
        )
        expect(page.locator(CURVE)).to_have_count(4)
        length = page.evaluate(f"document.querySelector('{CURVE}').getAttribute('d').length")
        page.wait_for_function(GROWN, arg=length)
        expect(page.locator("#early")).to_contain_text("most frequent on")
        expect(page.locator("ul.cards li").first).to_be_visible()
        assert child.end(signal.SIGKILL) == -signal.SIGKILL
        expect(page.get_by_role("alert")).to_contain_text("the server does not answer")
    before = read_history(out / "dictionary")
    assert before

    with mapping(tiny_directory, text, out) as child:
        page.goto(child.address)
        expect(page.locator("li.done .stage").first).to_have_text("corpus")
        expect(page).to_have_url(re.compile(r"127\.0\.0\.1:\d+/$"), timeout=120_000)
        expect(page.locator("h1")).to_contain_text("128 features of")
        with admitted(child.address) as client:
            job = client.get("/job.json").json()
            assert client.get("/feature/0.json").status_code == 200
        assert job["ready"]
        assert {stage["state"] for stage in job["stages"]} == {"done"}
        points = read_history(out / "dictionary")
        assert points[: len(before) // 2] == before[: len(before) // 2]
        steps = [point["step"] for point in points]
        assert steps == sorted(set(steps))
        assert job["curves"]["fvu"] == [point["fvu"] for point in points]
        assert job["activations"] == points[-1]["tokens"]
        page.goto(child.address.partition("?")[0] + "job")
        expect(page.locator("h1")).to_have_text(f"How {out} came to be")
        page.get_by_role("link", name="Look at the features").click()
        expect(page.locator("h1")).to_contain_text("128 features of")
        assert child.end(signal.SIGINT) == 0
    assert wrong == []
    assert not [line for line in child.errors if "Traceback" in line]


def test_ctrl_c_while_it_trains_ends_both_and_nothing_but_the_job_is_served_before(
    tiny_directory: Path, text: Path, tmp_path: Path
) -> None:
    with mapping(tiny_directory, text, tmp_path / "run") as child:
        child.told("train: 0 of")
        with admitted(child.address) as client:
            for path in ("/index.json", "/feature/0.json", "/openapi.json", "/map.bin"):
                answer = client.get(path)
                assert (answer.status_code, list(answer.json())) == (503, ["error"]), path
            for path in ("/", "/feature/3", "/prompt"):
                answer = client.get(path)
                assert (answer.status_code, answer.headers["location"]) == (303, "/job"), path
            assert client.post("/job.json").status_code == 405
            assert client.get("/job.json?x=1").status_code == 400
            job = client.get("/job.json").json()
            assert job["ready"] is False
            assert [stage["name"] for stage in job["stages"]][-1] == "describe"
        assert httpx.get(child.address.partition("?")[0] + "job.json").status_code == 403
        assert child.end(signal.SIGINT) == 130
    assert "interrupted; run the same command" in child.errors[-1]
    assert not [line for line in child.errors if "Traceback" in line]


def test_a_taken_port_and_wrong_arguments_end_as_without_the_browser(
    tiny_directory: Path, text: Path, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with mapping(tiny_directory, text, tmp_path / "run", "--port", port) as child:
            assert child.process.wait(timeout=60) == 1
            child.told(rf"sememe: cannot listen on 127\.0\.0\.1:{port} .*--port 0")
    assert not (tmp_path / "run").exists()
    with mapping(tiny_directory, text, tmp_path / "run", "--site", "layers.99.resid") as child:
        child.told("sememe: .*layers.99.resid")
        assert child.process.wait(timeout=60) == 2


def test_with_json_the_figures_stand_alone_on_standard_output(
    tiny_directory: Path, text: Path, tmp_path: Path
) -> None:
    words = ["--json", "--passes", "1", "--batch", "256"]
    with mapping(tiny_directory, text, tmp_path / "run", *words) as child:
        child.told("Ctrl-C ends it")
        assert sum("http://127.0.0.1:" in line for line in child.errors) == 2
        assert child.end(signal.SIGINT) == 0
        assert child.process.stdout is not None
        assert json.loads(child.process.stdout.read())["features"] == 128
