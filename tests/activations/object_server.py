"""An S3-compatible server on loopback whose requests go wrong as a test likes."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import httpx
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

Choice = Callable[[str, str], str]
"""Given method and path, what goes wrong: "" or a fault of :class:`Server`."""
SIGNED = {
    "Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, "
    "SignedHeaders=host, Signature=0"
}
"""Names who asks; the server does not check the signature."""


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        pass


@dataclass
class Server:
    """The server, what goes wrong with a request, and what was asked of it.

    Faults: a status such as "503"; "half sent", a body cut short with its whole length announced;
    "half", a body cut short with no sign of it; "flipped", one bit of the answer; "half stored",
    a request whose body is cut short on the way to the server.
    """

    choose: Choice = lambda _method, _path: ""
    url: str = ""
    asked: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        fault = self.choose(method, path)
        self.asked[method, path] += 1
        self.faults[fault] += 1
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if fault.isdigit():
            start(f"{fault} Fault", [("Content-Length", "0")])
            return []
        if fault == "half stored":
            body = body[: len(body) // 2]
            environ["CONTENT_LENGTH"] = str(len(body))
        environ["wsgi.input"] = BytesIO(body)
        answer: list[Any] = []
        whole = b"".join(self.app(environ, lambda *given: answer.extend(given)))
        sent = bytearray(whole)
        if fault in ("half", "half sent"):
            sent = sent[: len(sent) // 2]
        if fault == "flipped" and sent:
            sent[len(sent) // 2] ^= 1
        if fault == "half":
            answer[1] = [
                (name, str(len(sent)) if name.lower() == "content-length" else value)
                for name, value in answer[1]
            ]
        start(*answer[:2])
        return [bytes(sent)]

    def __post_init__(self) -> None:
        self.app = DomainDispatcherApplication(create_backend_app)

    def request(self, method: str, path: str, data: bytes = b"") -> bytes:
        """Ask the server itself, past every fault."""
        choose, self.choose = self.choose, lambda _method, _path: ""
        try:
            answer = httpx.request(method, f"{self.url}/{path}", content=data, headers=SIGNED)
            return answer.raise_for_status().content
        finally:
            self.choose = choose

    def objects(self, bucket: str) -> set[str]:
        """Return the names of all objects of a bucket, by its last folder."""
        listing = self.request("GET", f"{bucket}?list-type=2").decode()
        keys = [part.partition("</Key>")[0] for part in listing.split("<Key>")[1:]]
        return {key.rpartition("/")[2] for key in keys}


@contextmanager
def serving() -> Iterator[Server]:
    """Run a server on a free port of loopback."""
    server = Server()
    http = make_server("127.0.0.1", 0, server, threaded=True, request_handler=_Quiet)
    server.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
