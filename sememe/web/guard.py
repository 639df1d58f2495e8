"""Who may talk to the server: this machine's user, holding the token that was printed at start.

Any page in any tab can send requests to a loopback port, and a name that resolves to 127.0.0.1 can
read the answers. So every request must carry the token (as a bearer's, or the cookie it was
exchanged for), name this server as its host, and come from no other origin.
"""

import hmac
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types svelte-trusted-html"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}


class Guard:
    """Refuses strangers with 403 and puts the security headers on every answer."""

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self.app = app
        self.token = token
        self.cookie = f"sememe_{port}"
        suffix = "" if port == 80 else f":{port}"
        self.hosts = [f"127.0.0.1{suffix}", f"localhost{suffix}"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        app = self._answer(scope) or self.app
        await app(scope, receive, send_guarded)

    def _answer(self, scope: Scope) -> Response | None:
        """Return the refusal or redirect that this request gets, None when it may go on."""
        headers = Headers(scope=scope)
        if (host := headers.get("host", "")) not in self.hosts:
            return _refuse(f"host {host!r} is not this server: expected {' or '.join(self.hosts)}.")
        origin = headers.get("origin")
        if origin is not None and origin not in [f"http://{host}" for host in self.hosts]:
            return _refuse(f"origin {origin!r} is not this server: expected http://{host}.")
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = dict(query).get("token")
        if given is not None and self._is_token(given) and scope["method"] in ("GET", "HEAD"):
            return self._exchange(scope, [pair for pair in query if pair[0] != "token"])
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        held = bearer if scheme.lower() == "bearer" else _cookies(headers).get(self.cookie, "")
        if not self._is_token(held):
            return _refuse(
                "this address needs the token of this run. Open the whole address that "
                "`sememe serve` printed when it started."
            )
        return None

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self.token.encode())

    def _exchange(self, scope: Scope, query: list[tuple[str, str]]) -> Response:
        # A path that begins with two slashes would be another host in a Location header.
        path = "/" + scope.get("raw_path", scope["path"].encode()).decode("latin-1").lstrip("/\\")
        response = RedirectResponse(path + ("?" + urlencode(query) if query else ""), 303)
        response.set_cookie(self.cookie, self.token, httponly=True, samesite="strict", path="/")
        return response


def _cookies(headers: Headers) -> dict[str, str]:
    jar: SimpleCookie = SimpleCookie()
    try:
        jar.load(headers.get("cookie", ""))
    except CookieError:
        return {}
    return {name: morsel.value for name, morsel in jar.items()}


def _refuse(reason: str) -> Response:
    return PlainTextResponse(f"Refused: {reason}\n", 403)
