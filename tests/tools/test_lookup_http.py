"""The way out to the network: patience, memory and limits, against a server on this machine that misbehaves."""

import json
import socket
import threading
import time
from email.utils import formatdate

import pytest

from tests.tools.apis import in_turn, made, text
from tools.lookup import guard, http
from tools.lookup.guard import Refused, Unavailable
from tools.lookup.http import Web

HOST = "api.crossref.org"
URL = f"https://{HOST}/works"


@pytest.fixture
def web(apis):
    return Web(say=lambda line: None)


def times(apis) -> int:
    return len(apis.asked)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(apis, web, status):
    apis.replies[HOST] = in_turn(text("busy", status), text("busy", status), made({"message": 7}))
    assert web.json(URL) == {"message": 7} and times(apis) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 410])
def test_a_refusal_is_taken_at_once(apis, web, status):
    apis.replies[HOST] = lambda *_: text("no", status)
    with pytest.raises(Unavailable, match=f"{HOST} answers {status}"):
        web.json(URL)
    assert times(apis) == 1


def test_what_is_not_there_is_none_and_not_remembered(apis, web):
    apis.replies[HOST] = in_turn(text("Resource not found.", 404), made([1]))
    assert web.json(URL) is None and web.json(URL) == [1]


def test_the_pauses_grow_and_end(apis, web, monkeypatch):
    pauses = []
    monkeypatch.setattr(http.time, "sleep", lambda seconds: pauses.append(seconds) if seconds else None)
    monkeypatch.setattr(http, "PAUSE", 1.0)
    apis.replies[HOST] = lambda *_: text("busy", 503)
    with pytest.raises(Unavailable, match="answers 503"):
        web.json(URL)
    assert times(apis) == http.TRIES and [int(pause) for pause in pauses] in ([1, 2, 4], [1, 2, 5])


@pytest.mark.parametrize("wait", [lambda: "7", lambda: formatdate(time.time() + 7, usegmt=True)])
def test_the_pause_that_a_server_asks_for_is_kept(apis, web, monkeypatch, wait):
    pauses = []
    monkeypatch.setattr(http.time, "sleep", lambda seconds: pauses.append(seconds) if seconds else None)
    apis.replies[HOST] = in_turn(text("slow down", 429, Retry_After=wait()), made([]))
    assert web.json(URL) == [] and len(pauses) == 1 and 5 < pauses[0] <= 7


@pytest.mark.parametrize("wait", ["3600", "Fri, 31 Dec 2100 23:59:59 GMT"])
def test_a_long_pause_is_not_waited_for(apis, web, wait):
    apis.replies[HOST] = lambda *_: text("slow down", 429, Retry_After=wait)
    with pytest.raises(Unavailable, match="answers 429, to be asked again after"):
        web.json(URL)
    assert times(apis) == 1


@pytest.mark.parametrize("wait", ["soon", "-5", "1e9", "\u0664"])
def test_a_pause_that_makes_no_sense_is_not_kept(apis, web, wait):
    apis.replies[HOST] = in_turn((429, {"Retry-After": wait.encode("ascii", "replace").decode()}, b""), made([]))
    assert web.json(URL) == [] and times(apis) == 2


def test_an_answer_is_kept_for_a_while(apis, web, monkeypatch):
    apis.replies[HOST] = in_turn(made([1]), made([2]))
    assert [web.json(URL), web.json(URL), Web().json(URL)] == [[1], [1], [1]] and times(apis) == 1
    assert web.json(URL, {"q": "other"}) == [2]
    now = time.time()
    monkeypatch.setattr(http.time, "time", lambda: now + http.AGE + 1)
    assert web.json(URL) == [2]
    monkeypatch.setattr(http.time, "time", lambda: now - 10)  # a clock that was set back
    assert web.json(URL) == [2] and times(apis) == 4


def test_a_broken_answer_is_not_kept(apis, web):
    apis.replies[HOST] = in_turn(text("{"), made([1]))
    with pytest.raises(Unavailable, match="cannot be read"):
        web.json(URL)
    assert web.json(URL) == [1]


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b'{"key": 1}', b"[" * 50_000, b'{"key": "?", "time": "x", "body": []}'])
def test_a_damaged_memory_is_no_memory(apis, web, project, content):
    apis.replies[HOST] = lambda *_: made([1])
    web.json(URL)
    (kept,) = (project / ".cache/lookup").iterdir()
    kept.write_bytes(content)
    assert web.json(URL) == [1] and times(apis) == 2 and json.loads(kept.read_text())["body"] == "[1]"


def test_where_nothing_can_be_kept_all_still_works(apis, project):
    (project / ".cache").write_text("a file")
    said = []
    apis.replies[HOST] = lambda *_: made([1])
    web = Web(say=said.append)
    assert web.json(URL) == web.json(URL) == [1] and times(apis) == 2 and len(said) == 1 and "cannot be kept" in said[0]


def test_who_asks_is_said_and_nothing_else(apis, web, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    apis.replies[HOST] = lambda *_: (200, {"Set-Cookie": "id=1; Path=/"}, b"[]")
    web.json(URL)
    web.json(URL, {"q": "2"})
    for headers in apis.headers:
        assert headers["User-Agent"].startswith("ModelFusionAtlas/")
        assert not {"Cookie", "Authorization"} & headers.keys()
    monkeypatch.setenv("GITHUB_REPOSITORY", "someone/atlas")
    assert "https://github.com/someone/atlas" in http.agent()
    monkeypatch.setenv("GITHUB_REPOSITORY", "some one/\r\nX: y")
    assert "\n" not in http.agent() and "X: y" not in http.agent()


def test_each_host_waits_its_turn(apis, monkeypatch):
    apis.replies[HOST] = lambda *_: made([])
    web = Web(cache=None, gap=0.05)
    start = time.monotonic()
    threads = [threading.Thread(target=web.json, args=(URL,)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - start >= 4 * 0.05 and times(apis) == 5


# --- too much, too slow -----------------------------------------------------------------------------------------


def test_a_large_answer_is_not_read_to_its_end(apis, web, monkeypatch):
    monkeypatch.setattr(http, "LARGEST", 1000)
    apis.replies[HOST] = lambda *_: (200, {}, b"[" + b" " * 5000 + b"]")
    with pytest.raises(Unavailable, match="more than 1000 bytes"):
        web.json(URL)


def test_a_silent_server_is_left(apis, monkeypatch):
    monkeypatch.setattr(http, "TIMEOUT", (1, 0.1))
    apis.replies[HOST] = lambda *_: time.sleep(0.5) or made([])
    with pytest.raises(Unavailable, match="does not answer in time"):
        Web(tries=1).json(URL)


def test_a_server_that_sends_one_byte_at_a_time_is_left(apis, monkeypatch):
    monkeypatch.setattr(http, "WHOLE", 0.3)
    apis.replies[HOST] = lambda *_: (200, {"X-Slowly": "0.05"}, b"[" + b" " * 500 + b"]")
    start = time.monotonic()
    with pytest.raises(Unavailable, match="takes longer than"):
        Web(tries=1).json(URL)
    assert time.monotonic() - start < 5


def test_a_server_that_never_ends_its_headers_is_left(monkeypatch):
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]

    def drip():
        connection, _ = listener.accept()
        try:
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            for _ in range(200):
                connection.sendall(b"X-A: b\r\n"[:4])
                time.sleep(0.05)
        except OSError:
            pass

    threading.Thread(target=drip, daemon=True).start()
    monkeypatch.setenv("ATLAS_LOOKUP", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(http, "WHOLE", 0.3)
    with pytest.raises(Unavailable, match="takes longer than"):
        Web(cache=None, tries=1, say=lambda line: None).json(URL)
    listener.close()


def test_nobody_there_is_said(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("ATLAS_LOOKUP", f"http://127.0.0.1:{port}")
    with pytest.raises(Unavailable, match="127.0.0.1 cannot be reached"):
        Web(cache=None, tries=1).json(URL)


def test_a_host_that_never_answers_is_left_alone(monkeypatch):
    asked = []

    def nowhere(host, *_, **__):
        asked.append(host)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    web = Web(cache=None, tries=1, gap=0.0)
    for number in range(http.SILENT + 3):
        with pytest.raises(Unavailable, match="is not a known host" if number < http.SILENT else "is left alone"):
            web.fetch("GET", f"http://gone.example/{number}")
    assert len(asked) == http.SILENT


# --- addresses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    "127.0.0.1 127.8.8.8 10.0.0.1 172.16.5.5 192.168.1.1 169.254.169.254 100.64.0.1 0.0.0.0 224.0.0.1 255.255.255.255 192.0.2.1 "
    "::1 :: fe80::1 fc00::1 fd12::1 ff02::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 64:ff9b::7f00:1 2002:7f00:1:: "
    "2001:0:7f00:1:: nonsense".split(),
)
def test_private_addresses_are_known(address):
    assert not guard.public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "140.82.121.4", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses_are_known(address):
    assert guard.public(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/x",
        "http://127.0.0.1:1/x",
        "http://2130706433/x",
        "http://0x7f.1/x",
        "http://[::1]/x",
        "http://[::ffff:127.0.0.1]/x",
        "http://user:pass@127.0.0.1/x",
        "ftp://127.0.0.1/x",
        "file:///etc/passwd",
        "http://[bad/x",
        "http://a:99999999/",
        "//x",
        "",
    ],
)
def test_addresses_in_the_house_are_refused(apis, url):
    web = Web(cache=None, say=lambda line: None, tries=2)
    with pytest.raises(Refused):
        web.fetch("GET", url)
    apis.replies[HOST] = lambda *_: text("", 302, Location=url or "file:")
    if url != "//x":
        with pytest.raises(Refused):
            web.json(URL)
    assert times(apis) <= 1


def test_a_name_that_leads_into_the_house_is_refused(monkeypatch):
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 80)) for ip in ("93.184.216.34", "10.0.0.7")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(Refused, match=r"rebound.example has the address 10.0.0.7, which is not of the public internet"):
        Web(cache=None).fetch("GET", "http://rebound.example/")


def test_a_name_that_changes_its_address_is_refused(apis, monkeypatch):
    """The name resolves to a public address when it is looked at, and to this machine when it is connected to."""
    port = int(apis.base.rpartition(":")[2])
    monkeypatch.delenv("ATLAS_LOOKUP")
    answers = [[(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port))] for ip in ("93.184.216.34", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", in_turn(*answers))
    with pytest.raises(Refused, match="not of the public internet"):
        Web(cache=None).fetch("GET", f"http://rebound.example:{port}/api.crossref.org/works")
    assert not apis.asked


def test_a_redirect_is_followed_and_told(apis, web):
    apis.replies[HOST] = in_turn(text("", 301, Location="/api.crossref.org/new?x=1"), made([1]))
    answer = web.fetch("GET", f"{apis.base}/{HOST}/old", params={"q": "2"})
    assert answer.hops == ((301, f"{apis.base}/api.crossref.org/new?x=1"),) and answer.body == b"[1]"
    assert apis.asked[1] == (HOST, "/new", {"x": "1"})


def test_redirects_in_a_circle_end(apis, web):
    apis.replies[HOST] = lambda *_: text("", 302, Location="/api.crossref.org/again")
    with pytest.raises(Unavailable, match="redirects more than 5 times"):
        web.json(URL)
    assert times(apis) <= http.TRIES * (http.HOPS + 1)
