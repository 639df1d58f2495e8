"""A server on loopback whose application may be exchanged while it runs."""

import errno
import secrets
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from sememe.errors import SememeError, UsageError

HOST = "127.0.0.1"
SWITCH = 0.0005
"""Seconds that a page waits for the thread of a search, each time it needs the interpreter."""


def bind(port: int) -> socket.socket:
    """Return a socket that listens on loopback ``port`` (0: any free one).

    Raises UsageError for a number that is no port, SememeError when the port is taken.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"--port {port}: expected a number from 0 to 65535")
    # Only where the protocol is named does asyncio turn Nagle's algorithm off: 40 ms an answer.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            reason = "another program is using it"
        else:
            reason = error.strerror or str(error)
        raise SememeError(
            f"cannot listen on {HOST}:{port} ({reason}): give another with --port, or --port 0 "
            "for any free one"
        ) from error
    return listener


class Listener:
    """Holds a port from the begin on, and serves ``app`` there, in this thread or another.

    Attributes:
        token: What requests must carry.
        port: The port it has.
        app: The application that answers; another may take its place at any time.
    """

    app: ASGIApp

    def __init__(self, port: int, stop: threading.Event | None = None) -> None:
        """Take ``port`` (0: any free one); UsageError or SememeError as :func:`bind`."""
        self._socket = bind(port)
        self.port: int = self._socket.getsockname()[1]
        self.token = secrets.token_urlsafe(24)
        self._stop = stop or threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"http://{HOST}:{self.port}/?token={self.token}"

    def __enter__(self) -> "Listener":
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread:
            self._stop.set()
            self._thread.join(timeout=5)
        self._socket.close()

    def run(self) -> None:
        """Serve until Ctrl-C, or until it is stopped."""
        config = uvicorn.Config(
            self._answer,
            interface="asgi3",
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            timeout_keep_alive=60,  # longer than people look at a page
            timeout_graceful_shutdown=2,
        )
        sys.setswitchinterval(SWITCH)
        with suppress(KeyboardInterrupt):
            _Server(config, self._stop).run(sockets=[self._socket])

    def start(self, say: Callable[[str], None]) -> None:
        """Serve in a thread of its own; what ends it too soon is told to ``say``, no more."""

        def run() -> None:
            try:
                self.run()
            except (Exception, SystemExit) as error:
                say(f"the pages are no longer served ({type(error).__name__}: {error})")
            finally:
                self._ended.set()

        self._thread = threading.Thread(target=run, name="pages", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until the thread that serves has ended."""
        # Not join: Ctrl-C in the middle of one has Python 3.11 take the thread for ended.
        while not self._ended.wait(timeout=1):
            pass

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class _Server(uvicorn.Server):
    """A uvicorn server that also ends when ``stop`` is set."""

    def __init__(self, config: uvicorn.Config, stop: threading.Event) -> None:
        super().__init__(config)
        self.stop = stop

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self.stop.is_set()
