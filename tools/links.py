"""`python -m tools links`: ask for every link of the catalog and of the hand-written pages; print a report in Markdown.

A link is
- dead: 404 or 410, or an arXiv id or DOI that nobody registered;
- refused: it leads to a private address, which is never asked for;
- moved: redirected for good, so that the new address should be written;
- unreachable: no answer, or an error of the server; perhaps tomorrow;
- blocked: the server doesn't answer programs (403, 429); a reader may well see the page;
- redirected: for the time being, which is no fault.

The exit code is 1 where a link is dead or refused, and 2 where no link could be asked for. What is well is remembered for some
days under .cache/.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from tools.catalog import Catalog, files_below, load_from

KINDS = ("dead", "refused", "moved", "unreachable", "blocked", "redirected", "well")
AGE = 5 * 24 * 3600.0  # seconds; a weekly look never meets the last one's
WORKERS = 16
GAP = 1.0  # seconds between two questions to one host
LINK = re.compile(r"https?://[^\s<>\"'`{}|\\^\[\]]+")
OWN = re.compile(r"^https?://(localhost|127\.0\.0\.1|([\w-]+\.)*example(\.(org|com|net))?)(?=[:/]|$)")  # examples in our pages
BLOCKED = {401, 402, 403, 405, 406, 418, 429, 451, 999}
GONE = {404, 410}
RESOLVERS = ("doi.org", "dx.doi.org")


@dataclass(frozen=True)
class Outcome:
    kind: str
    what: str = ""
    to: str = ""  # where it has moved


def add_parser(commands) -> None:
    parser = commands.add_parser("links", help="ask for every link and report those that fail; needs a network")
    parser.add_argument("--catalog", type=Path, default=Path("catalog"), metavar="DIR")
    parser.set_defaults(run=run)


def run(args) -> int:
    from tools.lookup.http import Web  # only here: it needs the network's libraries

    links = collect(load_from(args.catalog))
    print(f"{len(links)} links", file=sys.stderr)
    outcomes = check_all(Web(tries=2, gap=GAP), list(links))
    print(report(links, outcomes), end="")
    if links and all(outcome.kind == "unreachable" for outcome in outcomes.values()):
        print("nobody answers: is there a network?", file=sys.stderr)
        return 2
    return 1 if any(outcome.kind in ("dead", "refused") for outcome in outcomes.values()) else 0


# --- where links stand ------------------------------------------------------------------------------------------


def collect(catalog: Catalog) -> dict[str, list[str]]:
    """Link -> the places where it stands, as file:line."""
    found: dict[str, list[str]] = {}
    for (kind, _), source in sorted(catalog.sources.items()):
        for keys, url in _in_record(kind, source.value, ()):
            found.setdefault(url, []).append(f"{source.path}:{source.line(*keys)}")
    for path in _pages(catalog.root):
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            for url in in_text(line):
                if not OWN.match(url):
                    found.setdefault(url, []).append(f"{path}:{number}")
    return found


def in_text(text: str) -> Iterator[str]:
    """The links in a text, without the marks of the sentence around them."""
    for match in LINK.finditer(text):
        url = match[0].rstrip(".,;:!?*_")
        while url.endswith(")") and url.count(")") > url.count("("):
            url = url[:-1].rstrip(".,;:!?*_")
        if re.match(r"https?://[\w-]", url):
            yield url


def _in_record(kind: str, value: object, keys: tuple) -> Iterator[tuple[tuple, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            where = (*keys, key)
            if kind == "papers" and not keys and isinstance(item, str) and key in IDS:
                yield where, IDS[key] + (quote(item, safe="/:;()") if key == "doi" else item)
            elif key != "was":  # a correction's wrong value
                yield from _in_record(kind, item, where)
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from _in_record(kind, item, (*keys, position))
    elif isinstance(value, str):
        yield from ((keys, url) for url in ([value] if re.fullmatch(LINK, value) else in_text(value)))


IDS = {"arxiv": "https://arxiv.org/abs/", "doi": "https://doi.org/", "openreview": "https://openreview.net/forum?id="}


def _pages(root: Path) -> Iterator[Path]:
    """The hand-written Markdown."""
    yield from sorted(root.glob("*.md"))
    for path in files_below(root / "docs"):
        if path.suffix == ".md" and path.relative_to(root / "docs").parts[0] != "catalog":
            yield path


# --- asking -----------------------------------------------------------------------------------------------------


def check_all(web, urls: list[str]) -> dict[str, Outcome]:
    """Every link's outcome. Hosts take turns, so that one with many links holds nobody up."""
    from tools.importing.items import arxiv_id

    preprints = {url: id for url in urls if (id := arxiv_id(url)) and urlsplit(url).hostname in ("arxiv.org", "www.arxiv.org")}
    outcomes = {url: Outcome(**kept) for url in urls if (kept := _recalled(web, url))}
    left = [url for url in urls if url not in outcomes]
    seen: Counter[str] = Counter()
    order = {}
    for url in left:
        host = url.split("/")[2]
        order[url] = seen[host]
        seen[host] += 1
    outcomes |= _known_to_arxiv(web, {url: id for url, id in preprints.items() if url in order})
    with ThreadPoolExecutor(WORKERS) as pool:
        rest = sorted((url for url in left if url not in outcomes), key=order.get)
        outcomes |= dict(zip(rest, pool.map(lambda url: check(web, url), rest)))
    for url in left:
        if outcomes[url].kind in ("well", "moved", "redirected"):
            web.keep(f"link {url}", json.dumps(asdict(outcomes[url])))
    return outcomes


def _recalled(web, url: str) -> dict | None:
    try:
        kept = json.loads(web.recall(f"link {url}", AGE) or "null")
        return kept if kept and kept["kind"] in KINDS and set(kept) == {"kind", "what", "to"} else None
    except (ValueError, KeyError, TypeError):
        return None


def _known_to_arxiv(web, preprints: dict[str, str]) -> dict[str, Outcome]:
    """arXiv wants programs to ask its API, which takes many ids at once."""
    from tools.lookup import arxiv
    from tools.lookup.guard import Unavailable

    try:
        known = arxiv.by_ids(web, sorted(set(preprints.values())))
    except Unavailable as error:
        return dict.fromkeys(preprints, Outcome("unreachable", str(error)))
    return {url: Outcome("well") if id in known else Outcome("dead", f"arXiv has no {id}") for url, id in preprints.items()}


def check(web, url: str) -> Outcome:
    from tools.lookup.guard import Refused, Unavailable
    from tools.lookup.http import MOVED

    try:
        if urlsplit(url).hostname in RESOLVERS:  # registered or not; what the publisher answers to programs is another matter
            answer = web.fetch("HEAD", url, look=True, follow=False)
            if answer.status in MOVED:
                return Outcome("well")
        else:
            answer = web.fetch("HEAD", url, look=True)
        if answer.status >= 400 and answer.status != 429:  # not every server knows HEAD
            answer = web.fetch("GET", url, look=True)
    except Refused as error:
        return Outcome("refused", str(error))
    except Unavailable as error:
        return Outcome("unreachable", str(error))
    to = url
    for status, onward in answer.hops:
        if status not in (301, 308):
            break
        to = onward
    if answer.status in GONE:
        return Outcome("dead", f"answers {answer.status}")
    if answer.status in BLOCKED:
        return Outcome("blocked", f"answers {answer.status}")
    if not 200 <= answer.status < 300:
        return Outcome("unreachable", f"answers {answer.status}")
    if to.rstrip("/") != url.rstrip("/"):
        return Outcome("moved", "redirects for good", to)
    if answer.url.rstrip("/") != url.rstrip("/"):
        return Outcome("redirected", "redirects for the time being", answer.url)
    return Outcome("well")


# --- the report -------------------------------------------------------------------------------------------------


def report(links: dict[str, list[str]], outcomes: dict[str, Outcome]) -> str:
    """Markdown for an issue. Whatever comes from elsewhere stands in code, where it can do nothing."""
    counts = Counter(outcome.kind for outcome in outcomes.values())
    out = ["# Links", "", ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind]) or "none"]
    for kind in KINDS[:-1]:
        found = [(url, outcome) for url, outcome in sorted(outcomes.items(), key=lambda item: item[0]) if outcome.kind == kind]
        if found:
            out += ["", f"## {kind.capitalize()}", ""]
        for url, outcome in found:
            to = f" to {code(outcome.to)}" if outcome.to else ""
            out.append(f"- {code(url)} {plain(outcome.what)}{to}: {', '.join(code(place) for place in links[url][:5])}")
    return "\n".join(out) + "\n"


def code(text: str) -> str:
    """A stranger's text as inline code of printable ASCII."""
    return "`" + "".join(c if " " <= c < "\x7f" and c != "`" else quote(c, errors="replace") for c in text[:500]) + "`"


def plain(text: str) -> str:
    """A message of ours in which a stranger's host name may stand."""
    return re.sub(r"[^\w .,:;/()'-]", "?", text)
