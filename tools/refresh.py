"""`python -m tools refresh [--write]`: find what has become of the papers since their records were written.

- Preprints that have been published: proposed where two sources name the same venue and year, told where only one does.
- Papers that were renamed on arXiv, withdrawn, or retracted.
- Code that has moved to another repository.

The report is Markdown: the proposed edits as a diff, and what a person has to look at. `--write` makes the proposed edits;
ids and files keep their names. A record with a comment, or an edit that another record contradicts, is left alone and told.
The exit code is 2 where no source could be asked.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from tools import fmt
from tools.catalog import BLANK, Catalog, load_from, parse, validate
from tools.links import GAP, check_all, code
from tools.records import KINDS, Paper
from tools.titles import near_same, words

ALWAYS = {"arXiv", "Semantic Scholar", "DBLP"}  # Crossref is asked only where there are DOIs


def add_parser(commands) -> None:
    parser = commands.add_parser("refresh", help="find papers that were published, renamed or retracted since; needs a network")
    parser.add_argument("--write", action="store_true", help="make the proposed edits; without it they are only shown")
    parser.add_argument("--catalog", type=Path, default=Path("catalog"), metavar="DIR")
    parser.set_defaults(run=run)


def run(args) -> int:
    from tools.lookup.http import Web  # only here: it needs the network's libraries

    catalog = load_from(args.catalog)
    if catalog.problems:
        print(f"{len(catalog.problems)} problems in the catalog; their records are left out", file=sys.stderr)
    found = look(catalog, Web())
    edits = found.edits()
    if args.write:
        for (kind, id), text in edits.items():
            fmt.replace(catalog.source(kind, id).path, text)
    print(report(found, edits, args.write), end="")
    if found.silent >= ALWAYS:
        print("nobody answers: is there a network?", file=sys.stderr)
        return 2
    return 0


@dataclass
class Findings:
    catalog: Catalog
    changes: dict[tuple[str, str], dict[str, object]] = field(default_factory=lambda: defaultdict(dict))  # record -> new values
    why: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    told: list[tuple[str, str]] = field(default_factory=list)  # (id, what a person has to look at)
    silent: set[str] = field(default_factory=set)  # sources that could not be asked

    def propose(self, kind: str, id: str, why: str, **values: object) -> None:
        self.changes[kind, id] |= values
        self.why[kind, id].append(why)

    def tell(self, id: str, what: str) -> None:
        self.told.append((id, what))

    def not_asked(self, source: str, why: Exception, so: str) -> None:
        self.silent.add(source)
        self.tell("", f"{source}: {why}; {so}")

    def edits(self) -> dict[tuple[str, str], str]:
        """Record -> its new text. What can't be edited without loss, or would break a rule, is told instead."""
        texts = {}
        for (kind, id), values in sorted(self.changes.items()):
            source = self.catalog.source(kind, id)
            text = fmt.canonical(kind, {**source.value, **values})
            again, troubles = parse(source.path, text)
            troubles = troubles or validate(again, KINDS[kind])[0]
            if fmt.first_comment(source.text) or troubles:
                what = troubles[0].what if troubles else "a comment would be lost"
                self.tell(id, f"{'; '.join(self.why[kind, id])}; edit it by hand ({what})")
            elif text != source.text:
                texts[kind, id] = text
        return texts


# --- looking ----------------------------------------------------------------------------------------------------


def look(catalog: Catalog, web) -> Findings:
    found = Findings(catalog)
    on_arxiv = _arxiv(found, web)
    _crossref(found, web)
    _published(found, web, on_arxiv)
    _code(found, web)
    found.told.sort()
    return found


def _arxiv(found: Findings, web) -> dict:
    """Renamed or withdrawn on arXiv; id -> what arXiv says."""
    from tools.lookup import arxiv
    from tools.lookup.ask import alike
    from tools.lookup.guard import Unavailable

    papers = {paper.arxiv: id for id, paper in found.catalog.papers.items() if paper.arxiv}
    try:
        answers = arxiv.by_ids(web, sorted(papers))
    except Unavailable as error:
        found.not_asked(arxiv.NAME, error, "nothing is said about new titles and withdrawals")
        return {}
    for number, id in papers.items():
        paper, answer = found.catalog.papers[id], answers.get(number)
        if answer is None:
            found.tell(id, f"arXiv has no {number}")
            continue
        if not alike(answer, _as_found(paper)):
            found.tell(id, f"arXiv has another paper under {number}: {answer.title!a}")
            del answers[number]
            continue
        if _fold(answer.title) not in {_fold(title) for title in [paper.title, *paper.aliases]}:
            _renamed(found, id, paper, answer.title)
        if answer.gone and not re.search(r"withdrawn", paper.note or "", re.I):
            note = " ".join(part for part in (paper.note, "Withdrawn from arXiv by its authors.") if part)
            found.propose("papers", id, f"withdrawn from arXiv: {answer.gone!a}", note=note)
    return {papers[number]: answer for number, answer in answers.items()}


def _renamed(found: Findings, id: str, paper: Paper, title: str) -> None:
    others = [
        (other, known)
        for other, record in found.catalog.papers.items()
        if other != id
        for known in [record.title, *record.aliases]
    ]
    twin = next((other for one, other in near_same([*others, ("?", title)]) if one == "?"), None)
    if twin:
        found.tell(id, f"called {title!a} on arXiv, nearly the title of {twin}")
    elif paper.venue == "arxiv":
        found.propose("papers", id, f"renamed on arXiv to {title!a}", title=title, aliases=[*paper.aliases, paper.title])
    else:
        found.propose("papers", id, f"called {title!a} on arXiv", aliases=[*paper.aliases, title])


def _crossref(found: Findings, web) -> None:
    """Retracted according to the publisher; DOIs of other papers."""
    from tools.lookup import crossref
    from tools.lookup.ask import alike
    from tools.lookup.guard import Unavailable

    papers = {paper.doi.lower(): id for id, paper in found.catalog.papers.items() if paper.doi}
    try:
        answers = crossref.by_dois(web, sorted(papers))
    except Unavailable as error:
        found.not_asked(crossref.NAME, error, "nothing is said about retractions")
        return
    for doi, answer in answers.items():
        id = papers[doi]
        paper = found.catalog.papers[id]
        if not alike(answer, _as_found(paper)):
            found.tell(id, f"Crossref has another paper under {doi}: {answer.title!a}")
        elif answer.gone and not re.search(r"retract|withdrawn", paper.note or "", re.I):
            note = " ".join(part for part in (paper.note, f"Retracted: Crossref has a notice for the DOI {doi}.") if part)
            found.propose("papers", id, answer.gone, note=note)


def _published(found: Findings, web, on_arxiv: dict) -> None:
    """Preprints for which a venue is known now."""
    from tools.importing.match import Index
    from tools.lookup import crossref, dblp, semantic_scholar
    from tools.lookup.agree import Agreement
    from tools.lookup.ask import alike
    from tools.lookup.guard import Unavailable

    catalog, index = found.catalog, Index(found.catalog)
    preprints = {id: paper for id, paper in catalog.papers.items() if paper.venue == "arxiv" and paper.arxiv}
    answers = defaultdict(list)

    def asked(source, question) -> object:
        try:
            return question()
        except Unavailable as error:
            found.not_asked(source.NAME, error, "some publications may be missed")
            return {}

    names = {f"ARXIV:{paper.arxiv}": id for id, paper in sorted(preprints.items())}
    for name, answer in asked(semantic_scholar, lambda: semantic_scholar.by_ids(web, names)).items():
        answers[names[name]].append(answer)
    dois = {on_arxiv[id].doi: id for id in preprints if id in on_arxiv and on_arxiv[id].doi}
    for doi, answer in asked(crossref, lambda: crossref.by_dois(web, sorted(dois))).items():
        answers[dois[doi]].append(answer)
    for id, paper in sorted(preprints.items()):
        hits = asked(dblp, lambda paper=paper: dblp.by_title(web, paper.title))
        if hits == {}:
            break  # it has said that it can't answer
        answers[id] += hits
    for id, paper in sorted(preprints.items()):
        fitting = [answer for answer in answers[id] if alike(answer, _as_found(paper))]
        agreement = Agreement([*fitting, *([on_arxiv[id]] if id in on_arxiv else [])], catalog)
        if agreement.version != "arxiv" and fitting:
            _propose_publication(found, index, id, agreement)


def _propose_publication(found: Findings, index, id: str, agreement) -> None:
    record = agreement.record
    leading = [paper for paper in agreement.leading if agreement.label(paper) == agreement.version]
    sources = sorted({paper.source for paper in leading})
    new = {key: record[key] for key in ("year", "venue", "where", "doi", "openreview") if key in record}
    open_ = [key for key in ("year", "venue", "doi", "openreview") if str(new.get(key, "")).startswith(BLANK)]
    if open_:
        found.tell(id, f"perhaps published; {'; '.join(str(new[key]).removeprefix(f'{BLANK}: ') for key in open_)}")
        return
    what = f"published at {new['venue']} {new['year']} according to {', '.join(sources)}"
    other = next((index.papers[link] for key in ("doi", "openreview") if (link := f"{key} {new.get(key)}") in index.papers), id)
    if other != id:
        found.tell(id, f"{what}, under an id that {other} has")
    elif len(sources) < 2:
        found.tell(id, f"{what} alone; confirm it and edit the record")
    else:
        found.propose("papers", id, what, **new)


def _code(found: Findings, web) -> None:
    """Repositories that redirect to another place for good."""
    from tools.importing.items import repository

    papers, codebases = found.catalog.papers, found.catalog.codebases
    links = [link.url for paper in papers.values() for link in paper.code] + [codebase.url for codebase in codebases.values()]
    outcomes = check_all(
        type(web)(cache=web.cache, say=web.say, tries=2, gap=GAP), sorted({url for url in links if repository(url)})
    )
    moved = {url: outcome.to for url, outcome in outcomes.items() if outcome.kind == "moved"}
    good = {url: to for url, to in moved.items() if repository(to) and url.split("/")[2] == to.split("/")[2]}
    for id, paper in sorted(papers.items()):
        for link in paper.code:
            if link.url in moved and link.url not in good:
                found.tell(id, f"the code {link.url!a} leads to {moved[link.url]!a}")
            elif outcomes.get(link.url) and outcomes[link.url].kind == "dead":
                found.tell(id, f"the code {link.url!a} is gone")
        if changed := [link.url for link in paper.code if link.url in good]:
            items = [
                dict(item, url=good.get(item["url"], item["url"])) for item in found.catalog.source("papers", id).value["code"]
            ]
            found.propose("papers", id, f"the code moved from {', '.join(changed)}", code=items)
    for id, codebase in sorted(codebases.items()):
        if codebase.url in good:
            found.propose("codebases", id, f"moved from {codebase.url}", url=good[codebase.url])


def _as_found(paper: Paper):
    from tools.lookup.found import Found

    return Found("catalog", paper.title, tuple(paper.authors))


def _fold(title: str) -> str:
    return "".join(words(title))


# --- the report -------------------------------------------------------------------------------------------------


def report(found: Findings, edits: dict[tuple[str, str], str], written: bool) -> str:
    """Markdown for an issue. What comes from elsewhere stands in code, where it can do nothing."""
    out = ["# Refresh", "", f"{len(edits)} edits {'made' if written else 'proposed'}, {len(found.told)} things to look at"]
    for (kind, id), text in edits.items():
        source = found.catalog.source(kind, id)
        diff = difflib.unified_diff(
            source.text.splitlines(), text.splitlines(), str(source.path), str(source.path), lineterm="", n=0
        )
        ticks = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
        out += ["", f"## {id}", "", *(f"- {code(why)}" for why in found.why[kind, id]), "", f"{ticks}diff", *diff, ticks]
    if found.told:
        out += ["", "## To look at", "", *(f"- {code(id) + ' ' if id else ''}{code(what)}" for id, what in found.told)]
    return "\n".join(out) + "\n"
