"""The server in a thread of its own: applications take turns, and the work never notices."""

import threading

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from sememe.web.listener import Listener


def saying(text: str) -> Starlette:
    async def answer(_: Request) -> PlainTextResponse:
        return PlainTextResponse(text)

    return Starlette(routes=[Route("/", answer)])


def test_an_application_takes_the_place_of_another_under_the_same_address() -> None:
    with Listener(0) as listener:
        listener.app = saying("first")
        listener.start(pytest.fail)
        assert httpx.get(listener.address).text == "first"
        listener.app = saying("second")
        assert httpx.get(listener.address).text == "second"
    with pytest.raises(httpx.ConnectError):
        httpx.get(listener.address)


def test_requests_that_come_before_the_thread_serves_are_answered_then() -> None:
    with Listener(0) as listener:
        found: list[str] = []
        asker = threading.Thread(
            target=lambda: found.append(httpx.get(listener.address, timeout=20).text)
        )
        asker.start()
        listener.app = saying("late")
        listener.start(pytest.fail)
        asker.join(timeout=20)
        assert found == ["late"]


def test_an_error_in_the_application_is_an_answer_and_the_server_goes_on() -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("broken")

    with Listener(0) as listener:
        listener.app = broken
        listener.start(pytest.fail)
        assert httpx.get(listener.address).status_code == 500
        listener.app = saying("whole")
        assert httpx.get(listener.address).text == "whole"


def test_what_ends_the_server_too_soon_is_told_and_no_more() -> None:
    told: list[str] = []
    with Listener(0) as listener:
        listener.app = saying("")
        listener._socket.close()
        listener.start(told.append)
        listener.wait()
    (message,) = told
    assert message.startswith("the pages are no longer served (")
