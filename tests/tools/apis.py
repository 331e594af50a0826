"""A local server that answers as arXiv, Crossref, OpenAlex, Semantic Scholar, DBLP, OpenReview and the ACL Anthology do.

`Apis.works` is what they all know. A test gives one host another `reply` to make it fail or lie.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tools.titles import words

ARXIV, CROSSREF, OPENALEX, S2 = "export.arxiv.org", "api.crossref.org", "api.openalex.org", "api.semanticscholar.org"
DBLP, OPENREVIEW, OPENREVIEW_1, ACL = "dblp.org", "api2.openreview.net", "api.openreview.net", "aclanthology.org"
HOSTS = (ARXIV, CROSSREF, OPENALEX, S2, DBLP, OPENREVIEW, OPENREVIEW_1, ACL)


@dataclass(frozen=True)
class Work:
    """A paper and what each API calls its venue."""

    title: str = "Rotating Task Vectors: Merging Without Interference"
    authors: tuple[str, ...] = ("Ada Lovelace", "Jürgen Müller-Groß", "Wei Li")
    first: int = 2024  # on arXiv
    year: int = 2025
    arxiv: str | None = "2405.01234"
    doi: str | None = None
    openreview: str | None = "aB3dEf6hIj"
    acl: str | None = None
    dblp_venue: str = "ICLR"
    long_venue: str = "International Conference on Learning Representations"
    openreview_venue: str = "ICLR 2025 poster"
    volume: str | None = None
    issue: str | None = None
    pages: str | None = None
    comment: str = "ICLR 2025. Code: https://github.com/ada/rotating."
    abstract: str = "Task vectors interfere when models are merged. SECRET ABSTRACT words."


Reply = tuple[int, dict[str, str], bytes]


@dataclass
class Apis:
    works: list[Work] = field(default_factory=lambda: [Work()])
    replies: dict[str, Callable[[str, dict, bytes], Reply | None]] = field(default_factory=dict)  # host -> what it does instead
    asked: list[tuple[str, str, dict]] = field(default_factory=list)  # (host, path, query)
    methods: list[str] = field(default_factory=list)  # of the same questions
    headers: list[dict] = field(default_factory=list)
    base: str = ""

    def hosts(self) -> set[str]:
        return {host for host, _, _ in self.asked}

    def answer(self, host: str, path: str, query: dict, body: bytes) -> Reply:
        if host in self.replies and (reply := self.replies[host](path, query, body)) is not None:
            return reply
        return ANSWERS[host](self.works, path, query, body) if host in ANSWERS else (404, {}, b"no such host here")


def made(value: object, status: int = 200) -> Reply:
    return status, {"Content-Type": "application/json"}, json.dumps(value).encode()


def text(value: str, status: int = 200, **headers: str) -> Reply:
    return status, headers, value.encode()


def in_turn(*replies) -> Callable[..., Reply]:
    """One reply after the other; the last one for ever."""
    left = list(replies)
    return lambda *_, **__: left.pop(0) if len(left) > 1 else left[0]


# --- the formats ------------------------------------------------------------------------------------------------


def entry(work: Work) -> str:
    doi = f'<arxiv:doi xmlns:arxiv="http://arxiv.org/schemas/atom">{work.doi}</arxiv:doi>' if work.doi else ""
    people = "".join(f"<author><name>{escape(name)}</name></author>" for name in work.authors)
    return f"""<entry>
    <id>http://arxiv.org/abs/{work.arxiv}v2</id>
    <updated>{work.year}-02-01T10:00:00Z</updated><published>{work.first}-05-02T10:00:00Z</published>
    <title>{escape(work.title.replace(chr(7), ""))}</title><summary>  {escape(work.abstract)}
</summary>{people}{doi}
    <arxiv:comment xmlns:arxiv="http://arxiv.org/schemas/atom">{escape(work.comment)}</arxiv:comment>
    <link href="http://arxiv.org/abs/{work.arxiv}v2" rel="alternate" type="text/html"/>
    <arxiv:primary_category xmlns:arxiv="http://arxiv.org/schemas/atom" term="cs.LG" scheme="http://arxiv.org/schemas/atom"/>
  </entry>"""


def feed(entries: list[str]) -> Reply:
    return text(
        f"""<?xml version="1.0" encoding="UTF-8"?>
<feed xmlns="http://www.w3.org/2005/Atom">
  <title type="html">ArXiv Query: id_list</title><id>http://arxiv.org/api/cHxbiOdZaP56ODnBPIenZhzg5f8</id>
  <opensearch:totalResults xmlns:opensearch="http://a9.com/-/spec/opensearch/1.1/">{len(entries)}</opensearch:totalResults>
  {"".join(entries)}
</feed>"""
    )


def arxiv(works: list[Work], path: str, query: dict, body: bytes) -> Reply:
    if "id_list" in query:
        return feed([entry(work) for id in query["id_list"].split(",") for work in works if work.arxiv == id])
    phrase = query["search_query"].removeprefix('ti:"').removesuffix('"')
    return feed([entry(work) for work in works if work.arxiv and phrase in " ".join(words(work.title))])


def crossref_work(work: Work) -> dict:
    authors = [
        {
            "given": name.rpartition(" ")[0],
            "family": name.rpartition(" ")[2],
            "sequence": "first" if not n else "additional",
            "affiliation": [],
        }
        for n, name in enumerate(work.authors)
    ]
    found = {
        "DOI": work.doi,
        "type": "journal-article" if work.volume else "proceedings-article",
        "title": [work.title],
        "author": authors,
        "container-title": [work.long_venue],
        "issued": {"date-parts": [[work.year, 4, 24]]},
        "relation": {},
    }
    return found | {key: value for key, value in (("volume", work.volume), ("issue", work.issue), ("page", work.pages)) if value}


def crossref(works: list[Work], path: str, query: dict, body: bytes) -> Reply:
    known = [work for work in works if work.doi]
    if path.startswith("/works/"):
        work = next((work for work in known if work.doi == unquote(path[7:]).lower()), None)
        if work is None:
            return text("Resource not found.", 404)
        return made({"status": "ok", "message-type": "work", "message": crossref_work(work)})
    if "filter" in query:
        wanted = {part.removeprefix("doi:") for part in query["filter"].split(",")}
        known = [work for work in known if work.doi in wanted]
    items = [crossref_work(work) for work in known]
    return made({"status": "ok", "message-type": "work-list", "message": {"total-results": len(items), "items": items}})


def openalex_work(work: Work) -> dict:
    place = {
        "source": {"display_name": work.long_venue, "type": "conference"},
        "version": "publishedVersion",
        "landing_page_url": None,
    }
    preprint = {
        "source": {"display_name": "arXiv (Cornell University)", "type": "repository"},
        "version": "submittedVersion",
        "landing_page_url": f"http://arxiv.org/abs/{work.arxiv}",
    }
    return {
        "id": "https://openalex.org/W4392837465",
        "doi": f"https://doi.org/{work.doi or f'10.48550/arxiv.{work.arxiv}'}",
        "title": work.title,
        "display_name": work.title,
        "publication_year": work.year if work.doi else work.first,
        "is_retracted": False,
        "primary_location": place if work.doi else preprint,
        "locations": [place, preprint] if work.doi and work.arxiv else [place if work.doi else preprint],
        "authorships": [
            {"author_position": "middle", "author": {"display_name": name}, "raw_author_name": name} for name in work.authors
        ],
    }


def openalex(works: list[Work], path: str, query: dict, body: bytes) -> Reply:
    id = unquote(path).removeprefix("/works/doi:").lower()
    work = next((work for work in works if id in (work.doi, f"10.48550/arxiv.{work.arxiv}")), None)
    return made(openalex_work(work)) if work else made({"error": "404 Not Found"}, 404)


def s2_paper(work: Work) -> dict:
    ids = {"CorpusId": 269502234} | {
        key: value for key, value in (("ArXiv", work.arxiv), ("DOI", work.doi), ("ACL", work.acl)) if value
    }
    return {
        "paperId": "649def34f8be52c8b66281af98ae884c09aef38b",
        "externalIds": ids,
        "title": work.title,
        "venue": work.long_venue,
        "publicationVenue": {
            "id": "939c6e1d",
            "name": work.long_venue,
            "type": "conference",
            "alternate_names": [work.dblp_venue],
        },
        "year": work.first if work.arxiv else work.year,
        "authors": [{"authorId": str(n), "name": name} for n, name in enumerate(work.authors)],
    }


def s2(works: list[Work], path: str, query: dict, body: bytes) -> Reply:
    def known(id: str) -> Work | None:
        kind, _, value = id.partition(":")
        return next((w for w in works if value and value == {"ARXIV": w.arxiv, "DOI": w.doi, "ACL": w.acl}.get(kind)), None)

    if path.endswith("/batch"):
        return made([s2_paper(work) if (work := known(id)) else None for id in json.loads(body)["ids"]])
    if path.endswith("/search/match"):
        work = next((w for w in works if w.title.casefold() == query["query"].casefold()), None)
        return made({"data": [s2_paper(work) | {"matchScore": 222.1}]}) if work else made({"error": "Title match not found"}, 404)
    work = known(unquote(path).partition("/paper/")[2])
    return made(s2_paper(work)) if work else made({"error": "Paper with id not found"}, 404)


def dblp_info(work: Work, preprint: bool = False) -> dict:
    authors = [{"@pid": f"10/{n}", "text": f"{name} 0001" if name == "Wei Li" else name} for n, name in enumerate(work.authors)]
    info = {
        "authors": {"author": authors if len(authors) > 1 else authors[0]},
        "title": f"{escape(work.title)}.",
        "access": "open",
    }
    if preprint:
        ee = f"https://doi.org/10.48550/arXiv.{work.arxiv}"
        return info | {
            "venue": "CoRR",
            "volume": f"abs/{work.arxiv}",
            "year": str(work.first),
            "type": "Informal and Other Publications",
            "ee": ee,
        }
    ee = f"https://openreview.net/forum?id={work.openreview}" if work.openreview else f"https://doi.org/{work.doi}"
    info |= {"venue": work.dblp_venue, "year": str(work.year), "type": "Conference and Workshop Papers", "ee": ee}
    return info | {
        k: v for k, v in (("volume", work.volume), ("number", work.issue), ("pages", work.pages), ("doi", work.doi)) if v
    }


def dblp(works: list[Work], path: str, query: dict, body: bytes) -> Reply:
    wanted = set(query["q"].split())
    near = [work for work in works if wanted & set(work.title.lower().replace(":", "").split())]
    infos = [
        info
        for work in near
        for info in ([dblp_info(work)] if work.dblp_venue else []) + ([dblp_info(work, True)] if work.arxiv else [])
    ]
    hits = {"@total": str(len(infos)), "@sent": str(len(infos))}
    hits |= {"hit": [{"@score": "9", "@id": str(n), "info": info} for n, info in enumerate(infos)]} if infos else {}
    return made({"result": {"query": query["q"], "status": {"@code": "200", "text": "OK"}, "hits": hits}})


def openreview(works: list[Work], path: str, query: dict, body: bytes) -> Reply:
    work = next((work for work in works if work.openreview and work.openreview == query["id"]), None)
    if work is None:
        return made({"name": "NotFoundError", "message": "The Note was not found", "status": 404}, 404)
    content = {
        "title": {"value": work.title},
        "authors": {"value": list(work.authors)},
        "abstract": {"value": work.abstract},
        "venue": {"value": work.openreview_venue},
        "venueid": {"value": "ICLR.cc/2025/Conference"},
    }
    return made(
        {"notes": [{"id": work.openreview, "forum": work.openreview, "pdate": 1737600000000, "content": content}], "count": 1}
    )


def anthology(works: list[Work], path: str, query: dict, body: bytes) -> Reply:
    work = next((work for work in works if work.acl and path == f"/{work.acl}.bib"), None)
    if work is None:
        return text("<html>Not found</html>", 404)
    people = "  and\n      ".join(f"{name.rpartition(' ')[2]}, {name.rpartition(' ')[0]}" for name in work.authors)
    return text(
        f"""@inproceedings{{lovelace-etal-2025,
    title = "{{R}}otating{work.title.removeprefix("Rotating")}",
    author = "{people}",
    editor = "Someone, Else",
    booktitle = "{work.long_venue}",
    month = nov,
    year = "{work.year}",
    address = "Vienna, Austria",
    publisher = "Association for Computational Linguistics",
    url = "https://aclanthology.org/{work.acl}/",
    doi = "{work.doi}",
    pages = "1--12",
}}
"""
    )


ANSWERS = {
    ARXIV: arxiv,
    CROSSREF: crossref,
    OPENALEX: openalex,
    S2: s2,
    DBLP: dblp,
    OPENREVIEW: openreview,
    OPENREVIEW_1: lambda works, path, query, body: made({"notes": [], "count": 0}),
    ACL: anthology,
}


# --- the server -------------------------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    apis: Apis

    def do_GET(self):
        parts = urlsplit(self.path)
        host, _, rest = parts.path.lstrip("/").partition("/")
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.apis.asked.append((host, f"/{rest}", query))
        self.apis.methods.append(self.command)
        self.apis.headers.append(dict(self.headers))
        status, headers, answer = self.apis.answer(host, f"/{rest}", query, body)
        slowly = float(headers.get("X-Slowly", 0))  # seconds between two bytes
        try:
            self.send_response(status)
            for key, value in ({"Content-Length": str(len(answer))} | headers).items():
                self.send_header(key.replace("_", "-"), value)
            self.end_headers()
            if self.command == "HEAD":
                return
            if not slowly:
                self.wfile.write(answer)
            for byte in answer if slowly else b"":
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(slowly)
        except OSError:
            pass  # the asker went away

    do_POST = do_HEAD = do_GET

    def log_message(self, *args):
        pass


def serve(apis: Apis) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"apis": apis}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    apis.base = f"http://127.0.0.1:{server.server_port}"
    return server
