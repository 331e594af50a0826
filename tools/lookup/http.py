"""The one way out to the network: polite, patient, cached, and never to an address inside the house.

- Every host waits its turn; a server that says 429 or 503 is asked again after the time it names, with growing pauses.
- An answer has a largest size and a longest time as a whole, so that nobody keeps us by sending one byte a minute.
- Private addresses are refused at every hop of a redirect (`guard`). No proxy, no cookies, no stored passwords.
- `ATLAS_LOOKUP=http://host:port` sends all API calls to that server, under the API's host name as first folder; it is the one
  private address that is then allowed. The tests use it.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.parse import SplitResult, urljoin, urlsplit

import requests
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from tools import fmt
from tools.catalog import CatalogError
from tools.lookup.guard import LIVE, Guard, Refused, Silent, Unavailable, cut

CACHE = Path(".cache/lookup")
AGE = 7 * 24 * 3600.0  # seconds for which an answer is kept
TIMEOUT = (10, 20)  # seconds to connect, and between two pieces of an answer
WHOLE = 60.0  # seconds for an answer as a whole
PATIENCE = 60.0  # a server that asks for a longer pause is given up
PAUSE = 1.0  # before the second try; doubled before each further one
TRIES = 4
LARGEST = 10_000_000  # bytes of an answer
HOPS = 5
SILENT = 3  # questions that a host may leave without an answer before it is left alone
GAPS = {"export.arxiv.org": 3.0, "api.semanticscholar.org": 1.1, "dblp.org": 1.0}  # seconds between two calls, by their terms
GAP = 0.25  # for all other hosts
BUSY = {429, 500, 502, 503, 504}
MOVED = {301, 302, 303, 307, 308}


@dataclass(frozen=True)
class Answer:
    url: str  # where it came from, after all redirects
    status: int
    body: bytes = b""
    hops: tuple[tuple[int, str], ...] = ()  # (status, next address) of each redirect
    wait: str = ""  # Retry-After


def agent() -> str:
    """Who asks. On GitHub the repository's address is known and said."""
    repository = os.environ.get("GITHUB_REPOSITORY", "")
    known = re.fullmatch(r"[\w.-]+/[\w.-]+", repository)
    about = f"https://github.com/{repository}" if known else "catalog of model fusion papers"
    return f"ModelFusionAtlas/0.1 ({about}) python-requests/{requests.__version__}"


class Web:
    def __init__(
        self, cache: Path | None = CACHE, say: Callable[[str], None] | None = None, tries: int = TRIES, gap: float | None = None
    ):
        self.cache, self.tries, self.gap = cache, tries, gap
        self.say = say or (lambda line: print(line, file=sys.stderr))
        self.instead = os.environ.get("ATLAS_LOOKUP", "").rstrip("/")
        self.lock, self.turns, self.silent = threading.Lock(), {}, Counter()
        allowed = urlsplit(self.instead)
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers = {"User-Agent": agent(), "Accept-Encoding": "identity"}
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, Guard((allowed.hostname, allowed.port) if self.instead else None))

    # --- answers of APIs, kept on disk

    def json(self, url: str, params: dict | None = None, post: object = None):
        """The parsed answer; None where the server says that there is no such thing."""
        return self._kept(url, params, post, json.loads)

    def text(self, url: str, params: dict | None = None) -> str | None:
        return self._kept(url, params, None, str)

    def _kept(self, url: str, params: dict | None, post: object, parse: Callable):
        key = json.dumps([url, params, post], sort_keys=True)
        if (kept := self.recall(key, AGE)) is not None:
            try:
                return parse(kept)
            except (ValueError, RecursionError):
                pass  # a damaged file: ask again
        host = urlsplit(url).hostname
        answer = self.fetch("POST" if post is not None else "GET", self._address(url), params=params, post=post)
        if answer.status == 404:
            return None
        if not 200 <= answer.status < 300:
            wait = f", to be asked again after {shown(answer.wait, 40)}" if answer.wait else ""
            raise Unavailable(f"{host} answers {answer.status}{wait}")
        try:
            text = answer.body.decode("utf-8")
            value = parse(text)
        except (ValueError, RecursionError):
            raise Unavailable(f"{host} answers with something that cannot be read") from None
        self.keep(key, text)
        return value

    def _address(self, url: str) -> str:
        return f"{self.instead}/{url.partition('://')[2]}" if self.instead else url

    def recall(self, key: str, age: float) -> str | None:
        """What was kept under a key, while it is younger than `age` seconds."""
        if self.cache is None:
            return None
        try:
            kept = json.loads(self._file(key).read_text(encoding="utf-8"))
            fresh = kept["key"] == key and 0 <= time.time() - kept["time"] < age
            return kept["body"] if fresh and isinstance(kept["body"], str) else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def keep(self, key: str, body: str) -> None:
        if self.cache is not None:
            try:
                self.cache.mkdir(parents=True, exist_ok=True)
                fmt.replace(self._file(key), json.dumps({"key": key, "time": time.time(), "body": body}))
            except (OSError, CatalogError) as error:
                self.say(f"{self.cache}: answers cannot be kept ({error})")
                self.cache = None

    def _file(self, key: str) -> Path:
        return self.cache / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"

    # --- one request, with its redirects and repetitions

    def fetch(
        self, method: str, url: str, *, params: dict | None = None, post: object = None, look: bool = False, follow: bool = True
    ) -> Answer:
        """The answer, whatever its status; Unavailable where there is none. `look` leaves its body unread."""
        host = _split(url).hostname or ""
        if self.silent[host] >= SILENT:
            raise Silent(f"{host} has not answered {SILENT} times and is left alone")
        for number in range(1, self.tries + 1):
            try:
                answer = self._followed(method, url, params, post, look, follow)
                self.silent[host] = 0
                if answer.status not in BUSY:
                    return answer
                why = f"{host} answers {answer.status}"
            except Refused:
                raise
            except Unavailable as error:
                answer, why, trouble = None, str(error), error
            pause = PAUSE * 2 ** (number - 1) * random.uniform(1, 1.25)
            pause = max(pause, _asked(answer.wait)) if answer else pause
            if number == self.tries or pause > PATIENCE:
                break
            self.say(f"{why}; asked again in {pause:.0f} s")
            time.sleep(pause)
        if answer is None:
            self.silent[host] += isinstance(trouble, Silent)
            raise trouble
        return answer

    def _followed(self, method: str, url: str, params: dict | None, post: object, look: bool, follow: bool) -> Answer:
        hops: list[tuple[int, str]] = []
        while True:
            answer = self._once(method, url, params, post, look)
            if answer.status not in MOVED or not answer.hops or not follow:
                return Answer(answer.url, answer.status, answer.body, tuple(hops), answer.wait)
            hops.append((answer.status, _joined(answer.url, answer.hops[0][1])))
            if len(hops) > HOPS:
                raise Unavailable(f"{urlsplit(url).hostname} redirects more than {HOPS} times")
            url, params = hops[-1][1], None  # the next address is complete
            if answer.status == 303:
                method, post = "GET", None

    def _once(self, method: str, url: str, params: dict | None, post: object, look: bool) -> Answer:
        parts = _split(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise Refused(f"{shown(url)} is no plain http(s) address")
        self._turn(parts.hostname)
        late, LIVE.socket = threading.Event(), None
        watch = threading.Timer(WHOLE, cut, (late, LIVE.__dict__))
        watch.daemon = True
        watch.start()
        try:
            request = self.session.prepare_request(requests.Request(method, url, params=params, json=post))
            # Not through the session, which would read the body of every redirect, however long.
            response = self.session.get_adapter(url).send(request, timeout=TIMEOUT, stream=True)
            with response:
                content = b"" if look else response.raw.read(LARGEST + 1, decode_content=False)
                if len(content) > LARGEST:
                    raise Unavailable(f"{parts.hostname} answers with more than {LARGEST} bytes")
                onward = response.headers.get("Location")
                hops = ((response.status_code, onward),) if onward else ()
                answer = Answer(response.url, response.status_code, content, hops, response.headers.get("Retry-After", ""))
        except Unavailable:
            raise
        except (requests.RequestException, HTTPError, HTTPException, OSError, ValueError, AttributeError) as error:
            why = f"takes longer than {WHOLE:.0f} s" if late.is_set() else _why(error)
            raise Silent(f"{parts.hostname} {why}") from None
        finally:
            watch.cancel()
        if late.is_set():
            raise Silent(f"{parts.hostname} takes longer than {WHOLE:.0f} s")
        return answer

    def _turn(self, host: str) -> None:
        with self.lock:
            now = time.monotonic()
            start = max(now, self.turns.get(host, 0.0))
            self.turns[host] = start + max(GAP if self.gap is None else self.gap, GAPS.get(host, 0.0))
        time.sleep(start - now)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - read, because it is only checked when read
    except ValueError:
        raise Refused(f"{shown(url)} is no address") from None
    return parts


def _joined(url: str, onward: str) -> str:
    try:
        return urljoin(url, onward)
    except ValueError:
        raise Refused(f"{urlsplit(url).hostname} redirects to {shown(onward)}, which is no address") from None


def shown(text: str, limit: int = 120) -> str:
    """A stranger's text as one line of plain characters."""
    return ascii(text if len(text) <= limit else text[: limit - 3] + "...")


def _asked(wait: str) -> float:
    """Seconds that a Retry-After names, as a number or as a date."""
    try:
        return Retry().parse_retry_after(wait) if wait else 0.0
    except (HTTPError, ValueError, OverflowError):
        return 0.0


def _why(error: Exception) -> str:
    name = type(error).__name__
    if isinstance(error, requests.Timeout) or "Timeout" in name:
        return "does not answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "has no valid certificate"
    return "cannot be reached" if isinstance(error, (requests.ConnectionError, OSError)) else f"cannot be asked ({name})"
