"""Which paper is meant, and what every source says about it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tools.catalog import CatalogError
from tools.importing.items import arxiv_id, doi_of, openreview_id, shown
from tools.lookup import anthology, arxiv, crossref, dblp, found, openalex, openreview, semantic_scholar
from tools.lookup.found import Found
from tools.lookup.guard import Unavailable
from tools.lookup.http import Web
from tools.titles import near_same, words

SOURCES = (arxiv, openreview, anthology, dblp, crossref, openalex, semantic_scholar)
HOMES = {"arxiv": arxiv.NAME, "doi": crossref.NAME, "openreview": openreview.NAME, "acl": anthology.NAME}
FEWEST_WORDS = 3  # of a title; a single word is more likely a slip in an id
ROUNDS = 3  # an answer brings new ids, which are asked for in the next round


@dataclass(frozen=True)
class Wanted:
    kind: str  # arxiv, doi, openreview, acl or title
    value: str

    def __str__(self) -> str:
        return shown(self.value) if self.kind == "title" else f"{self.kind} {self.value}"


def understood(text: str) -> Wanted | None:
    """What a reader means by an id, a link or a title."""
    text = " ".join(text.split())
    if match := re.search(rf"aclanthology\.org/({anthology.ID})(?![\w-])|^({anthology.ID})$", text):
        return Wanted("acl", match[1] or match[2])
    if id := found.arxiv(text) or arxiv_id(text):
        return Wanted("arxiv", id)
    if id := openreview_id(text):
        return Wanted("openreview", id)
    if id := doi_of(text):
        return Wanted("doi", id.lower())
    if re.fullmatch(r"(openreview:)?[\w-]{9,11}", text) and re.search(r"\d|[a-z][A-Z]", text) and re.search(r"[A-Z]", text):
        return Wanted("openreview", text.removeprefix("openreview:"))
    return Wanted("title", text) if len(words(text)) >= FEWEST_WORDS and "://" not in text else None


def ask(web: Web, wanted: Wanted) -> list[Found]:
    """Every answer about the paper, that of the id's own source first. What can't be asked or doesn't fit is said."""
    papers: list[Found] = []
    asked: set[str] = set()
    for _ in range(ROUNDS):
        questions = {label: question for label, question in _questions(web, wanted, papers) if label not in asked}
        if not questions:
            break
        asked |= questions.keys()
        with ThreadPoolExecutor(len(questions)) as pool:
            answers = [paper for some in pool.map(lambda item: _answer(web, *item), questions.items()) for paper in some]
        papers = _fitting(web, wanted, papers, answers)
    return papers


def _answer(web: Web, label: str, question: Callable) -> list[Found]:
    try:
        answer = question()
    except Unavailable as error:
        web.say(f"{label.partition(':')[0]}: {error}")
        return []
    return [paper for paper in (answer if isinstance(answer, list) else [answer]) if paper]


def _questions(web: Web, wanted: Wanted, papers: list[Found]) -> Iterator[tuple[str, Callable]]:
    """(source: id, what to call) for all that is known so far; the id's own source comes first."""
    ids = {
        kind: list(dict.fromkeys(id for paper in papers if (id := getattr(paper, kind))))[:2]
        for kind in ("arxiv", "doi", "openreview")
    }
    if wanted.kind in ids and not papers:
        ids[wanted.kind].append(wanted.value)
    acl = [doi.removeprefix("10.18653/v1/") for doi in ids["doi"] if re.fullmatch(rf"10\.18653/v1/({anthology.ID})", doi, re.I)]
    if wanted.kind == "acl":
        acl, ids["doi"] = [wanted.value], ids["doi"] or [f"10.18653/v1/{wanted.value.lower()}"]
    for id in acl:
        id = id.upper() if re.fullmatch(r"[a-z]\d\d-\d{4}", id) else id
        yield f"{anthology.NAME}: {id}", lambda id=id: anthology.by_id(web, id)
    for id in ids["openreview"]:
        yield f"{openreview.NAME}: {id}", lambda id=id: openreview.by_id(web, id)
    for id in ids["arxiv"]:
        yield f"{arxiv.NAME}: {id}", lambda id=id: list(arxiv.by_ids(web, [id]).values())
    for doi in ids["doi"]:
        yield f"{crossref.NAME}: {doi}", lambda doi=doi: crossref.by_doi(web, doi)
        yield f"{openalex.NAME}: {doi}", lambda doi=doi: openalex.by_doi(web, doi)
    for id in ids["arxiv"]:
        yield f"{openalex.NAME}: {id}", lambda id=id: openalex.by_arxiv(web, id)
    if not any(paper.source == semantic_scholar.NAME for paper in papers):
        names = [f"ARXIV:{id}" for id in ids["arxiv"]] + [f"ACL:{id}" for id in acl] + [f"DOI:{doi}" for doi in ids["doi"]]
        for name in names[:1]:
            yield f"{semantic_scholar.NAME}: {name}", lambda name=name: semantic_scholar.by_id(web, name)
    title = wanted.value if wanted.kind == "title" else papers[0].title if papers else ""
    if title:
        yield f"{dblp.NAME}: {title}", lambda: dblp.by_title(web, title)
        if not ids["arxiv"]:
            yield f"{arxiv.NAME}: {title}", lambda: arxiv.by_title(web, title)
    if wanted.kind == "title" and not papers:
        yield f"{crossref.NAME}: {title}", lambda: crossref.by_title(web, title)
        yield f"{semantic_scholar.NAME}: {title}", lambda: semantic_scholar.by_title(web, title)


def _fitting(web: Web, wanted: Wanted, papers: list[Found], answers: list[Found]) -> list[Found]:
    """The answers that are about the paper. The first one leads, and it is that of the id's own source where that answered."""
    answers = [paper for paper in answers if _has_id(web, wanted, paper)]
    if wanted.kind == "title":
        answers = [paper for paper in answers if paper.by_id or same_title(paper.title, wanted.value)]
        _refuse_namesakes(wanted, [*papers, *answers])
    elif not papers:
        answers.sort(key=lambda paper: (not paper.by_id, paper.source != HOMES[wanted.kind]))
    papers = list(papers)
    for paper in answers:
        if not papers or alike(paper, papers[0]):
            papers.append(paper)
        elif paper.by_id:
            what = f"{described(papers[0])}, {described(paper)}"
            if wanted.kind != "title" and papers[0].source != HOMES[wanted.kind]:
                raise CatalogError(f"the sources name different papers for {wanted}: {what}; nothing written")
            web.say(f"set aside, as it is about another paper: {what}")
    return papers


def _has_id(web: Web, wanted: Wanted, paper: Found) -> bool:
    """Whether an answer has the id that was asked for, where it names one of that kind."""
    other = getattr(paper, wanted.kind, None) if paper.source == HOMES.get(wanted.kind) and paper.by_id else None
    if other and other != wanted.value:
        web.say(f"set aside: {paper.source} was asked for {wanted.value} and answers with {other}")
    return not other or other == wanted.value


def _refuse_namesakes(wanted: Wanted, papers: list[Found]) -> None:
    for paper in papers[1:]:
        if not paper.by_id and not share_author(paper, papers[0]):
            what = f"{described(papers[0])}, {described(paper)}"
            raise CatalogError(f"several papers have the title {wanted}: {what}; give an id")


def described(paper: Found) -> str:
    who = ", ".join(paper.authors[:3]) + (" ..." if len(paper.authors) > 3 else "")
    return f"{paper.source} has {shown(paper.title)} by {who or 'nobody'}"


# --- one paper or two -------------------------------------------------------------------------------------------


def alike(a: Found, b: Found) -> bool:
    """Whether two answers may be about one paper: one title and an author, or one id and half of the authors."""
    if same_title(a.title, b.title):
        return share_author(a, b)
    mine, other = _families(a), _families(b)
    return a.by_id and 2 * len(mine & other) >= max(len(mine), len(other), 1)


def same_title(a: str, b: str) -> bool:
    return next(near_same([("a", a), ("b", b)]), None) is not None


def share_author(a: Found, b: Found) -> bool:
    mine, other = _families(a), _families(b)
    return not mine or not other or bool(mine & other)


def _families(paper: Found) -> set[str]:
    return {words(name)[-1] for name in paper.authors if words(name)}
