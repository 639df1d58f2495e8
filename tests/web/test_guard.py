import httpx
import pytest

ADDRESSES = [
    "/",
    "/feature/1",
    "/prompt",
    "/index.json",
    "/features.json",
    "/assets/theme.js",
    "/x",
]


def test_the_token_is_exchanged_for_a_cookie_that_scripts_and_other_sites_cannot_use(address):
    url = httpx.URL(address)
    answer = httpx.get(address)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/"
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"sememe_{url.port}={url.params['token']};")
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie


def test_the_redirect_keeps_the_page_and_drops_the_token(address, stranger):
    token = httpx.URL(address).params["token"]
    answer = stranger.get(f"/feature/3?interval=2&token={token}")
    assert answer.headers["location"] == "/feature/3?interval=2"
    stranger.cookies.clear()


def test_the_redirect_never_leaves_this_server(address, stranger):
    token = httpx.URL(address).params["token"]
    base = str(stranger.base_url).rstrip("/")
    answer = stranger.get(f"{base}//elsewhere.example/?token={token}")
    assert answer.headers["location"] == "/elsewhere.example/"
    stranger.cookies.clear()


@pytest.mark.parametrize("path", ADDRESSES)
@pytest.mark.parametrize("query", ["", "?token=", "?token=wrong", "?token=%F0%9F"])
def test_without_the_token_every_address_is_refused_in_a_readable_line(stranger, path, query):
    answer = stranger.get(path + query)
    assert answer.status_code == 403
    assert answer.text.startswith("Refused: this address needs the token")
    assert "sememe serve" in answer.text
    assert "set-cookie" not in answer.headers


def test_a_wrong_cookie_is_refused(stranger):
    name = f"sememe_{stranger.base_url.port}"
    for value in ["", "wrong", '"', "\\303"]:
        assert stranger.get("/", headers={"cookie": f"{name}={value}"}).status_code == 403


def test_a_post_cannot_carry_the_token_in_its_address(address):
    assert httpx.post(address.replace("/?", "/prompt.json?"), json={"text": "a"}).status_code == 403


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost", ""])
def test_other_hosts_are_refused_even_with_the_cookie(client, host):
    answer = client.get("/index.json", headers={"host": host})
    assert answer.status_code == 403
    assert repr(host) in answer.text


def test_localhost_is_this_server(client):
    answer = client.get("/index.json", headers={"host": f"localhost:{client.base_url.port}"})
    assert answer.status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1", ""])
def test_other_origins_are_refused_even_with_the_cookie(client, origin):
    for method, path in [("GET", "/index.json"), ("POST", "/prompt.json")]:
        answer = client.request(method, path, headers={"origin": origin})
        assert answer.status_code == 403
        assert repr(origin) in answer.text


def test_this_origin_may_post(client):
    origin = str(client.base_url).rstrip("/")
    answer = client.post("/prompt.json", json={"text": "the sea"}, headers={"origin": origin})
    assert answer.status_code == 200


@pytest.mark.parametrize("path", [*ADDRESSES, "/feature/999999.json", "/feature/999999"])
def test_every_answer_carries_the_security_headers(client, stranger, path):
    for answer in (client.get(path), stranger.get(path)):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "server" not in answer.headers
