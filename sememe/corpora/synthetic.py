"""Text that packages lack and that is generated: HTTP requests and base64."""

import base64
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from urllib.parse import quote_plus, urlencode

DOCUMENTS = 4_000
"""Documents that a generator gives; all differ."""

_HOSTS = [
    "api",
    "shop",
    "www",
    "static",
    "auth",
    "cdn",
    "mail",
    "docs",
    "search",
    "img",
    "news",
    "blog",
    "status",
    "pay",
    "media",
]
_DOMAINS = [
    "example.com",
    "example.org",
    "example.net",
    "test.example",
    "shop.example",
    "app.invalid",
]
_PATHS = "users orders items login search cart images reports files events posts comments v1 v2 "
_NOUNS = (_PATHS + "products sessions invoices messages tags settings profile metrics").split()
_WORDS = [
    "blue",
    "shoes",
    "winter",
    "sale",
    "coffee",
    "maker",
    "garden",
    "chair",
    "python",
    "tutorial",
    "hotel",
    "berlin",
    "cheap",
    "flights",
    "new",
    "york",
    "weather",
    "today",
    "guitar",
    "strings",
    "history",
    "of",
    "rome",
    "running",
    "red",
    "bicycle",
    "birthday",
    "gift",
    "large",
]
_AGENTS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/{major}.0.0.0 Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64; rv:{major}.0) Gecko/20100101 Firefox/{major}.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_{minor} like Mac OS X) AppleWebKit/605.1.15 "
    "(KHTML, like Gecko) Version/17.{minor} Mobile/15E148 Safari/604.1",
    "curl/8.{minor}.0",
    "python-requests/2.{minor}.1",
    "Googlebot/2.1 (+http://www.google.com/bot.html)",
    "okhttp/4.{minor}.0",
)
_STATUS = {
    200: "OK",
    201: "Created",
    204: "No Content",
    301: "Moved Permanently",
    304: "Not Modified",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    429: "Too Many Requests",
    500: "Internal Server Error",
}


def http_messages(_path: Path) -> Iterator[str]:
    """Yield HTTP/1.1 exchanges: requests, often with the answer, as a log of a proxy shows them."""
    for number in range(DOCUMENTS):
        draw = random.Random(f"http {number}")
        exchange = []
        for _ in range(draw.randint(1, 3)):
            exchange.append(_request(draw))
            if draw.random() < 0.5:
                exchange.append(_answer(draw))
        yield "\n\n".join(exchange)


def base64_messages(_path: Path) -> Iterator[str]:
    """Yield base64 of text, JSON and random bytes: bare, in data URLs, tokens, PEM blocks, mail."""
    for number in range(DOCUMENTS):
        draw = random.Random(f"base64 {number}")
        size = draw.choice((48, 200, 600, 1_200))
        content = (
            draw.randbytes(size)
            if draw.random() < 0.5
            else _sentence(draw, size // 6).encode()
            if draw.random() < 0.5
            else json.dumps(_record(draw)).encode()
        )
        yield _wrapped(draw, content)


def _wrapped(draw: random.Random, content: bytes) -> str:
    code = base64.b64encode(content).decode()
    lines = "\n".join(code[place : place + 64] for place in range(0, len(code), 64))
    kind = draw.randrange(6)
    if kind == 0:
        return lines
    if kind == 1:
        name = draw.choice(("CERTIFICATE", "PUBLIC KEY", "PGP MESSAGE", "CERTIFICATE REQUEST"))
        return f"-----BEGIN {name}-----\n{lines}\n-----END {name}-----"
    if kind == 2:
        image = draw.choice(("image/png", "image/gif", "image/jpeg", "font/woff2", "image/webp"))
        return f'<img src="data:{image};base64,{code}" alt="{_sentence(draw, 2)}">'
    if kind == 3:
        parts = (b'{"alg":"HS256","typ":"JWT"}', json.dumps(_record(draw)).encode(), content[:32])
        token = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
        return f"Authorization: Bearer {token}"
    if kind == 4:
        suffix = draw.choice(("pdf", "zip", "docx", "png"))
        name = f"{draw.choice(_NOUNS)}-{draw.randint(1, 99)}.{suffix}"
        return (
            f'Content-Type: application/octet-stream; name="{name}"\n'
            f'Content-Disposition: attachment; filename="{name}"\n'
            f"Content-Transfer-Encoding: base64\n\n{lines}"
        )
    return f"$ echo '{_sentence(draw, 6)}' | base64\n{code}"


def _request(draw: random.Random) -> str:
    method = draw.choices(("GET", "POST", "PUT", "DELETE", "HEAD", "PATCH"), (12, 6, 2, 1, 1, 1))[0]
    path = "/" + "/".join(draw.sample(_NOUNS, draw.randint(1, 2)))
    if draw.random() < 0.5:
        path += f"/{draw.randint(1, 99_999)}"
    if draw.random() < 0.4:
        path += f"?q={quote_plus(_sentence(draw, 3))}&page={draw.randint(1, 40)}"
    agent = draw.choice(_AGENTS).format(major=draw.randint(90, 128), minor=draw.randint(0, 9))
    headers = {
        "Host": f"{draw.choice(_HOSTS)}.{draw.choice(_DOMAINS)}",
        "User-Agent": agent,
        "Accept": draw.choice(("*/*", "application/json", "text/html,application/xhtml+xml")),
    }
    optional = {
        "Accept-Language": draw.choice(("en-GB,en;q=0.9", "de-DE,de;q=0.8", "fr", "ja,en;q=0.5")),
        "Accept-Encoding": "gzip, deflate, br",
        "Cookie": f"session={draw.getrandbits(96):024x}; theme={draw.choice(('dark', 'light'))}",
        "Referer": f"https://{draw.choice(_HOSTS)}.{draw.choice(_DOMAINS)}/",
        "If-None-Match": f'"{draw.getrandbits(64):016x}"',
        "Cache-Control": draw.choice(("no-cache", "max-age=0")),
        "X-Forwarded-For": f"192.0.2.{draw.randint(1, 254)}",
        "Connection": draw.choice(("keep-alive", "close")),
    }
    headers |= {name: value for name, value in optional.items() if draw.random() < 0.45}
    return _message(
        f"{method} {path} HTTP/1.1", headers, _body(draw, method in ("POST", "PUT", "PATCH"))
    )


def _answer(draw: random.Random) -> str:
    status = draw.choices(list(_STATUS), (14, 2, 1, 2, 2, 2, 2, 3, 1, 1))[0]
    moment = datetime(2015, 1, 1, tzinfo=UTC) + timedelta(seconds=draw.randrange(11 * 31_557_600))
    headers = {
        "Date": format_datetime(moment, usegmt=True),
        "Server": draw.choice(("nginx/1.24.0", "Apache/2.4.57 (Debian)", "cloudfront", "gunicorn")),
    }
    if draw.random() < 0.4:
        headers["Set-Cookie"] = f"id={draw.getrandbits(64):016x}; Path=/; HttpOnly; Secure"
    if status == 301:
        headers["Location"] = f"https://{draw.choice(_DOMAINS)}/{draw.choice(_NOUNS)}"
    return _message(f"HTTP/1.1 {status} {_STATUS[status]}", headers, _body(draw, status < 300))


def _body(draw: random.Random, wanted: bool) -> tuple[str, str]:
    """Return a content type and a body, both empty when there is none."""
    if not wanted or draw.random() < 0.2:
        return "", ""
    record = _record(draw)
    if draw.random() < 0.7:
        return "application/json", json.dumps(record, indent=draw.choice((None, 2)))
    return "application/x-www-form-urlencoded", urlencode(record)


def _message(first: str, headers: dict[str, str], body: tuple[str, str]) -> str:
    if body[1]:
        headers |= {"Content-Type": body[0], "Content-Length": str(len(body[1].encode()))}
    lines = [first, *(f"{name}: {value}" for name, value in headers.items())]
    return "\n".join(lines) + (f"\n\n{body[1]}" if body[1] else "")


def _record(draw: random.Random) -> dict[str, object]:
    fields: dict[str, object] = {
        "id": draw.randint(1, 10**6),
        "name": _sentence(draw, 2),
        "price": round(draw.uniform(1, 500), 2),
        "active": draw.random() < 0.5,
        "email": f"{draw.choice(_WORDS)}.{draw.choice(_WORDS)}@{draw.choice(_DOMAINS)}",
        "created": f"20{draw.randint(15, 25)}-{draw.randint(1, 12):02d}-{draw.randint(1, 28):02d}",
        "token": f"{draw.getrandbits(128):032x}",
        "quantity": draw.randint(1, 20),
        "comment": _sentence(draw, 7),
    }
    return {name: fields[name] for name in draw.sample(list(fields), draw.randint(2, 6))}


def _sentence(draw: random.Random, words: int) -> str:
    return " ".join(draw.choice(_WORDS) for _ in range(max(1, words)))
