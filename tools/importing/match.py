"""Compare the items of a list with each other and with the catalog."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from tools.catalog import Catalog
from tools.importing.items import (
    OTHER_NAMES,
    STATUS,
    Document,
    Item,
    Link,
    Publication,
    host_and_path,
    posted,
    publication,
    repository,
    same_link,
    shown,
)
from tools.records import Paper
from tools.titles import near_same, words


@dataclass
class Match:
    """What each item is in the catalog: (kind, id), or None where it is new."""

    of: list[tuple[str, str] | None] = field(default_factory=list)
    first: list[int] = field(default_factory=list)  # the item's first appearance in the list


class Index:
    """The catalog by link, by title and by venue name."""

    def __init__(self, catalog: Catalog):
        self.catalog = catalog
        self.papers: dict[str, str] = {}  # link -> paper
        self.code: dict[str, list[tuple[str, bool]]] = defaultdict(list)  # link -> (paper, official)
        self.others: dict[str, tuple[str, str]] = {}  # link -> codebase or resource
        self.titles: list[tuple[str, str]] = []
        self.venues: dict[str, list[str]] = {}
        for id, paper in sorted(catalog.papers.items()):
            for link in links_of(paper):
                self.papers.setdefault(link, id)
            for code in paper.code:
                self.code[same_link(code.url)].append((id, code.official))
            self.titles.append((id, paper.title))
            self.titles += [(id, alias) for alias in paper.aliases if len(alias.split()) > 3]
        for kind in ("codebases", "resources"):
            for id, record in sorted(getattr(catalog, kind).items()):
                self.others.setdefault(same_link(record.url), (kind, id))
        for id, venue in catalog.venues.items():
            names = {" ".join(words(name)) for name in (venue.short, venue.name, id, *venue.aliases)}
            short = words(venue.short)
            if len(short) > 1 and short[0] == "ieee":
                names.add(" ".join(short[1:]))
            if len(short) == 2 and short[0] == "findings":
                names.add(f"{short[-1]} findings")
            if short[-1:] == ["workshops"]:
                names |= {" ".join([*short[:-1], "workshop"]), "".join(short[:-1]) + "w"}
            self.venues[id] = sorted(names)


def links_of(paper: Paper) -> set[str]:
    found = {f"arxiv {paper.arxiv}"} if paper.arxiv else set()
    found |= {f"doi {paper.doi.lower()}"} if paper.doi else set()
    found |= {f"openreview {paper.openreview}"} if paper.openreview else set()
    return found | ({same_link(paper.url)} if paper.url else set())


def ids_of(item: Item) -> list[str]:
    """The item's links in one spelling, the telling ones first."""
    found = [f"{name} {value}" for name, value in (("arxiv", item.arxiv), ("openreview", item.openreview)) if value]
    found += [f"doi {item.doi.lower()}"] if item.doi else []
    return list(dict.fromkeys(found + [same_link(url) for url in [item.url, *(link.url for link in item.links)] if url]))


def compare(document: Document, catalog: Catalog) -> Match:
    return _Comparison(document, Index(catalog)).run()


class _Comparison:
    def __init__(self, document: Document, index: Index):
        self.document, self.items, self.index, self.say = document, document.items, index, document.say
        self.catalog = index.catalog
        self.by_title: list[str | None] = [None] * len(self.items)  # the paper whose title it has
        self.twins: list[int | None] = [None] * len(self.items)  # an earlier item with its title
        self.match = Match([None] * len(self.items), list(range(len(self.items))))
        understood = {pub: publication(pub, index.venues) for pub in {item.pub for item in self.items}}
        self.pubs = [understood[item.pub] for item in self.items]
        self.disagree: set[int] = set()  # items whose link is that of another work
        self.given: dict[str, list[int]] = defaultdict(list)  # code link -> papers of the list
        for number, item in enumerate(self.items):
            for link in {same_link(code.url) for code in item.code} if item.category == "paper" else ():
                self.given[link].append(number)

    def run(self) -> Match:
        self.titles()
        for number, item in enumerate(self.items):
            self.match.of[number] = self.known(number, item)
        self.twice()
        columns = self.missing_columns()
        for number, item in enumerate(self.items):
            known = self.match.of[number]
            paper = self.catalog.papers[known[1]] if known and known[0] == "papers" else None
            if item.category == "paper" or paper:
                self.paper(number, item, paper, known[1] if known else None, columns)
            elif known and self.by_title[number]:
                self.title(item, self.catalog.papers[self.by_title[number]])
            self.code(number, item, paper, known[1] if known else None)
            self.report_match(number, item, known)
        self.spellings()
        self.misplaced()
        self.document.findings = sorted(set(self.document.findings))
        return self.match

    # --- what is what

    def titles(self) -> None:
        listed = [(f"#{n}", item.title) for n, item in enumerate(self.items) if words(item.title)]
        for later, earlier in near_same([*self.index.titles, *listed]):
            if not later.startswith("#"):
                continue
            number = int(later[1:])
            if earlier.startswith("#"):
                if self.twins[number] is None:
                    self.twins[number] = int(earlier[1:])
            elif self.by_title[number] is None:
                self.by_title[number] = earlier

    def known(self, number: int, item: Item) -> tuple[str, str] | None:
        for link in ids_of(item):
            if link in self.index.papers:
                linked = self.index.papers[link]
                return "papers", self.titled(item, number, linked)
        if item.category != "paper":
            for link in ids_of(item):
                if link in self.index.others:
                    return self.index.others[link]
        if self.by_title[number] is not None:
            return "papers", self.by_title[number]
        for link in ids_of(item):
            if link in self.index.others:
                return self.index.others[link]
            if item.category == "project" and (owners := [id for id, official in self.index.code.get(link, []) if official]):
                return "papers", owners[0]
        return None

    def titled(self, item: Item, number: int, linked: str) -> str:
        """The paper an item means when its link leads to `linked`: the one of its title where that is another."""
        paper, named = self.catalog.papers[linked], self.by_title[number]
        if named is not None and named != linked and not _agrees(item.title, paper):
            other = self.catalog.papers[named]
            mend = f"link {_where(other)}" if _where(other) else "correct the link or the title"
            what = f"link and title disagree: the link is {linked} ({shown(paper.title, 60)}), the title that of {named}"
            self.say(item.line, "disagree", what, mend)
            self.disagree.add(number)
            return named
        if named is None and not _agrees(item.title, paper):
            now, whole = words(item.title), words(paper.title)
            if _is_cut(now, whole):
                self.say(item.line, "title", f"the title {shown(item.title)} is cut", f"write {shown(paper.title, 200)}")
            elif _overlap(now, whole) >= 0.5:
                self.say(item.line, "title", f"the title differs from that of {linked}", f"write {shown(paper.title, 200)}")
            else:
                what = (
                    f"link and title disagree: the link is {linked} ({shown(paper.title, 60)}), the title {shown(item.title, 60)}"
                )
                self.say(item.line, "disagree", what, "correct the link, or the title if the work was renamed")
                self.disagree.add(number)
        return linked

    def report_match(self, number: int, item: Item, known: tuple[str, str] | None) -> None:
        if known:
            what = f"known: {shown(item.title, 60)} is {known[0]}/{known[1]}"
            self.say(item.line, "known", what, "nothing to add")
        elif self.match.first[number] == number:
            kind = {"paper": "paper", "project": "codebase", "resource": "resource"}[item.category]
            link = next(iter(ids_of(item)), "no link")
            self.say(
                item.line,
                "new",
                f"new {kind}: {shown(item.title)} ({link})",
                "draft it with --write DIR, then fill in its blanks",
            )

    # --- within the list

    def twice(self) -> None:
        seen: dict[object, int] = {}
        by_link: dict[str, int] = {}
        repositories: dict[str, int] = {}
        for number, item in enumerate(self.items):
            known, links = self.match.of[number], ids_of(item)
            other = self.twins[number]
            if other is not None and known and self.match.of[other] and self.match.of[other] != known:
                other = None
            if known is not None:
                other = seen.setdefault(known, number) if other is None else other
            if other is None or other == number:
                other = next(
                    (by_link[link] for link in links if link in by_link and self.same_title(number, by_link[link])), None
                )
            if other is not None and other != number:
                other = self.match.first[other]
                before = self.items[other]
                self.match.first[number] = other
                if set(links) & set(ids_of(before)) or not links:
                    what, kind = f"{shown(item.title, 60)} stands in line {before.line} too", "twice"
                    self.say(item.line, kind, what, "delete one of the two")
                elif known and known[0] == "papers" and item.category == "project" != before.category:
                    what = f"the repository of {shown(before.title, 60)}, which stands in line {before.line}"
                    self.say(item.line, "twice", what, "keep one of the two")
                elif number not in self.disagree:
                    what = (
                        f"{shown(item.title, 60)} stands in line {before.line} too, under the link {before.url or 'of its code'}"
                    )
                    self.say(item.line, "two links", what, "keep one entry and the better link")
            for link in links:
                first = by_link.setdefault(link, number)
                if first != number and item.category == "paper" and not self.same_title(number, first):
                    before = self.items[first]
                    what = f"the link of {shown(item.title, 60)} is that of {shown(before.title, 60)} in line {before.line}"
                    self.say(item.line, "one link", what, "find out which of the two it is")
                    break
            if item.category == "project" and item.url:
                first = repositories.get(same_link(item.url))
                if first is not None and (other is None or other == number):
                    before = self.items[first]
                    what = f"the repository is already given to {shown(before.title, 60)} in line {before.line}"
                    self.say(item.line, "twice", what, "keep one of the two")
            for code in item.code:
                repositories.setdefault(same_link(code.url), number)

    def same_title(self, number: int, other: int) -> bool:
        a, b = words(self.items[number].title), words(self.items[other].title)
        joined, before = " ".join(a), " ".join(b)
        if (
            self.twins[number] == other
            or joined == before
            or (min(len(a), len(b)) > 3 and (joined in before or before in joined))
        ):
            return True
        known = self.match.of[number]
        titles = {t for n in (number, other) if (t := self.by_title[n])}
        return bool(
            known and known == self.match.of[other] and titles == {known[1]} and self.by_title[number] == self.by_title[other]
        )

    # --- papers

    def missing_columns(self) -> set[str]:
        """What the list gives for none of its papers is said once."""
        papers = [(n, item) for n, item in enumerate(self.items) if item.category == "paper"]
        never: set[str] = set()
        if not self.document.lists or len(papers) < 3:
            return never
        for name, given in (("venue", lambda n, item: item.pub), ("code", lambda n, item: item.code or item.code_text)):
            if any(given(n, item) for n, item in papers):
                continue
            never.add(name)
            known = [self.catalog.papers[m[1]] for n, _ in papers if (m := self.match.of[n]) and m[0] == "papers"]
            count = sum(
                1 for paper in known if (paper.venue != "arxiv" if name == "venue" else any(c.official for c in paper.code))
            )
            mend = f"the catalog knows it for {count} of the {len(papers)}" if count else "add it where it is known"
            self.say(papers[0][1].line, "missing", f"the list names no {name} for any paper", mend)
        return never

    def paper(self, number: int, item: Item, paper: Paper | None, id: str | None, never: set[str]) -> None:
        pub = self.pubs[number]
        if paper:
            self.title(item, paper)
            self.other_id(number, item, paper, id)
            self.venue(item, pub, paper, id)
        if not ids_of(item):
            place = "link" if self.document.lists else "link, DOI or arXiv id"
            mend = f"link {_where(paper)}" if paper and _where(paper) else "add one"
            self.say(item.line, "missing", f"{shown(item.title, 60)} has no {place}", mend)
        self.date(item, pub, paper)
        self.link_says(item, pub)
        if item.code_text:
            mend = _official(paper) or "link the repository or leave the cell empty"
            self.say(item.line, "missing", f"the code cell holds {shown(item.code_text, 40)} instead of a link", mend)
        if item.category != "paper" or not self.document.lists:
            return
        venue = f"{self.short(paper.venue)} {paper.year}" if paper else ""
        if not item.pub and "venue" not in never and ("pub" in item.cells or (paper and paper.venue != "arxiv")):
            what = "the publication cell is empty" if "pub" in item.cells else f"no venue for {shown(item.title, 60)}"
            self.say(item.line, "missing", what, f"write {venue}" if venue else "say where and when it appeared")
        if not item.code and not item.code_text and "code" not in never and (official := _official(paper)):
            what = "the code cell is empty" if "code" in item.cells else f"no code for {shown(item.title, 60)}"
            self.say(item.line, "missing", what, official)

    def other_id(self, number: int, item: Item, paper: Paper, id: str) -> None:
        """A link with the right title and an id that is not the paper's: a workshop paper, say, or another work."""
        if number in self.disagree or set(ids_of(item)) & links_of(paper):
            return
        for name, listed, known in (("arXiv id", item.arxiv, paper.arxiv), ("OpenReview id", item.openreview, paper.openreview)):
            if listed and known:
                what = f"the {name} {listed} is not that of {id}, which has this title"
                self.say(item.line, "disagree", what, f"link {known}, or say that it is another version")
                return
        if item.openreview and paper.arxiv and not paper.openreview:
            what = f"the OpenReview id {item.openreview} is not known for {id}, which has this title"
            self.say(item.line, "disagree", what, "see whether it is another version, such as a workshop paper")

    def title(self, item: Item, paper: Paper) -> None:
        """Old titles, lost prefixes, misspelt names in front."""
        now, right = words(item.title), words(paper.title)
        if "".join(now) == "".join(right):
            wrong = next((w for w in _cased(paper.title) if w.casefold() in item.title.casefold() and w not in item.title), None)
            if _marks(item.title) != _marks(paper.title):
                self.say(
                    item.line, "title", f"hyphens or marks differ in {shown(item.title)}", f"write {shown(paper.title, 200)}"
                )
            elif wrong:
                self.say(item.line, "title", f"capitals differ in {shown(item.title)}", f"write {shown(wrong)}")
            return
        old = any("".join(words(alias)) == "".join(now) for alias in paper.aliases if len(alias.split()) > 3)
        name, colon, tail = paper.title.partition(":")
        prefix = colon and len(name.split()) <= 4 and "".join(words(tail)) == "".join(now)
        if old:
            said = f"the title {shown(item.title)} is an old or another one of the work"
            self.say(item.line, "title", said, f"write {shown(paper.title, 200)}")
        elif prefix:
            self.say(item.line, "title", f"the title lacks {shown(name)} in front", f"write {shown(paper.title, 200)}")
        elif (head := item.title.partition(":")[0]) != item.title and "".join(words(item.title.partition(":")[2])) == "".join(
            right
        ):
            known = ["".join(words(alias)) for alias in [*paper.aliases, name]]
            folded = "".join(words(head))
            near = next((a for a in [*paper.aliases, name] if folded not in known and _misspelt(folded, "".join(words(a)))), None)
            if near:
                self.say(item.line, "title", f"the name {shown(head)} is misspelt", f"write {shown(near)}")
        elif len(now) == len(right) and sum(a != b for a, b in zip(now, right)) == 1 and not _contains(now, right):
            wrong, correct = next((a, b) for a, b in zip(now, right) if a != b)
            self.say(
                item.line,
                "title",
                f"{shown(wrong)} in the title is {shown(correct)} in the catalog",
                f"write {shown(paper.title, 200)}",
            )

    def venue(self, item: Item, pub: Publication, paper: Paper, id: str) -> None:
        if pub.venue is None or not item.pub:
            if pub.venue is None and pub.year and not pub.workshop and item.pub and self.differs(pub.year, paper):
                what = f"{shown(item.pub, 50)} disagrees with {id}"
                self.say(item.pub_line, "venue", what, f"write {self.short(paper.venue)} {paper.year}")
            return
        now = f"{self.short(paper.venue)} {paper.year}"
        if pub.venue == "arxiv" and paper.venue != "arxiv":
            self.say(item.pub_line, "venue", f"{shown(item.pub, 50)} is outdated, the work has appeared since", f"write {now}")
        elif pub.venue != paper.venue:
            what = f"the venue {shown(item.pub, 50)} disagrees with {id}"
            self.say(item.pub_line, "venue", what, f"write {now}")
        elif pub.year and pub.year != paper.year and pub.venue != "arxiv":
            self.say(item.pub_line, "venue", f"the year {pub.year} disagrees with {id}", f"write {now}")

    @staticmethod
    def differs(year: int, paper: Paper) -> bool:
        return abs(year - paper.year) > 1

    def date(self, item: Item, pub: Publication, paper: Paper | None) -> None:
        """The date against the month that is in the arXiv id."""
        if not item.arxiv or not pub.year:
            return
        year, month = posted(item.arxiv)
        when = f"{year}-{month:02}"
        if pub.venue == "arxiv" or re.search("arxiv", item.pub, re.I):
            if pub.year != year or (pub.month and pub.month != month):
                what = f"{shown(item.pub, 50)} disagrees with the arXiv id {item.arxiv}, which is of {when}"
                self.say(item.pub_line, "venue", what, f"write arXiv {when}")
        elif pub.year < year and not (paper and paper.year == pub.year):
            what = f"{shown(item.pub, 50)} is before the arXiv id {item.arxiv}, which is of {when}"
            self.say(item.pub_line, "venue", what, "correct the year or the link")

    def link_says(self, item: Item, pub: Publication) -> None:
        """A link to the proceedings says the year, and whether it is a workshop."""
        match = re.search(r"/(?:content_?)?(CVPR|ICCV|WACV|ECCV)_?((?:19|20)\d\d)(_?W(?=[/_]|orkshops))?", item.url or "")
        if not match or not pub.year:
            return
        if match[3] and not pub.workshop:
            what = f"{shown(item.pub, 50)}, but the link leads to a workshop of {match[1]} {match[2]}"
            self.say(item.pub_line, "venue", what, f"write {match[1]} {match[2]} workshop")
        elif int(match[2]) != pub.year:
            what = f"{shown(item.pub, 50)}, but the link leads to {match[1]} {match[2]}"
            self.say(item.pub_line, "venue", what, f"write {match[1]} {match[2]}")

    def short(self, venue: str) -> str:
        record = self.catalog.venues.get(venue)
        return record.short if record else venue

    # --- code

    def code(self, number: int, item: Item, paper: Paper | None, id: str | None) -> None:
        for code in item.code:
            if item.category == "paper":
                self.code_link(number, code, paper, id)
            found = repository(code.url)
            label = code.label.strip("[]() :")
            if found and label and "code" in item.cells:
                self.code_label(code, label, *found[:2])
        if item.category == "project" and item.url and not repository(item.url) and host_and_path(item.url)[0] == "github.com":
            self.say(item.line, "code", f"{shown(item.url)} is a profile and not a repository", "link the repository")

    def code_link(self, number: int, code: Link, paper: Paper | None, id: str | None) -> None:
        host, path = host_and_path(code.url)
        official = _official(paper)
        found = repository(code.url)
        if host in ("github.com", "gitlab.com") and found is None:
            self.say(code.line, "code", f"{shown(code.url)} is a profile and not a repository", official or "link the repository")
            return
        if host.endswith((".github.io", ".gitlab.io")):
            self.say(
                code.line, "code", f"{shown(code.url)} is a web page and not a repository", official or "link the repository"
            )
            return
        link = same_link(code.url)
        claims = self.index.code.get(link, [])
        mine = next((claim for claim in claims if claim[0] == id), None)
        if mine:
            if not mine[1]:
                note = next((c.note for c in paper.code if same_link(c.url) == link and c.note), None)
                what = f"the code {shown(code.url)} is not the authors'" + (f" ({note})" if note else "")
                self.say(code.line, "code", what, official or "say so, or leave it out")
            return
        owners = [owner for owner, is_official in claims if is_official]
        if owners:
            what = f"the code {shown(code.url)} is that of {', '.join(owners[:3])}"
            self.say(code.line, "code", what, official or "delete it or find the right one")
            return
        if paper and official:
            whose = next(c.url for c in paper.code if c.official)
            right = repository(whose)
            same = right and found and [p.lower() for p in right[:2]] == [p.lower() for p in found[:2]]
            what = f"the code {shown(code.url)} has another {'path' if same else 'place'} in the catalog"
            self.say(code.line, "code", what, official)
            return
        first = self.match.first
        other = next((self.items[n] for n in self.given[link][:20] if n < number and first[n] != first[number]), None)
        if other:
            what = f"the code {shown(code.url)} is also given to {shown(other.title, 60)} in line {other.line}"
            self.say(code.line, "code", what, "find out whose it is")

    def code_label(self, code: Link, label: str, owner: str, name: str) -> None:
        folded, own, repo = ("".join(words(part)) for part in (label, owner, name))
        if folded == own != repo:
            self.say(code.line, "label", f"the code is labelled with its owner {shown(label, 40)}", f"write {shown(name)}")
            return
        letters, right = (re.sub(r"[^A-Za-z0-9]", "", part) for part in (label, name))
        if letters != right and letters.lower() == right.lower() and not label.islower() and not right.islower():
            self.say(code.line, "label", f"capitals differ in the label {shown(label, 40)}", f"write {shown(name)}")
            return
        for right in (repo, own[: len(folded)], repo[: len(folded)]):
            if folded != right and _misspelt(folded, right) and folded not in repo and folded not in own:
                good = name if right == repo else (owner if right == own[: len(folded)] else name)
                self.say(code.line, "label", f"the label {shown(label, 40)} looks misspelt", f"the link says {shown(good)}")
                return

    # --- the list as a whole

    def spellings(self) -> None:
        """One venue in several spellings, misspelt words beside a venue, PDF and abstract links mixed."""
        if not self.document.lists:
            return
        written: dict[str, Counter[str]] = defaultdict(Counter)
        lines: dict[tuple[str, str], int] = {}
        for item, pub in zip(self.items, self.pubs):
            if item.category != "paper" or not item.pub:
                continue
            if pub.venue:
                names = {n.replace(" ", "") for n in self.index.venues[pub.venue]} | {
                    o for o, v in OTHER_NAMES.items() if v == pub.venue
                }
                name = next((w for w in re.findall(r"[A-Za-z]+", item.pub) if w.lower() in names), None)
                if name:
                    written[pub.venue][name] += 1
                    lines.setdefault((pub.venue, name), item.pub_line)
            for word in pub.rest[:5]:
                near = difflib.get_close_matches(word[:30], STATUS, n=1, cutoff=0.85)
                if word not in STATUS and near:
                    self.say(item.pub_line, "venue", f"{shown(word, 40)} looks misspelt", f"write {near[0]}")
        for venue, names in written.items():
            if len(names) > 1:
                right = self.short(venue)
                most = right if right in names else names.most_common(1)[0][0]
                for name, count in sorted((name, count) for name, count in names.items() if name != most):
                    what = f"{right} is written {name!r} ({count}) and {most!r} ({names[most]})"
                    self.say(lines[venue, name], "label", what, f"write {right}")
        forms: dict[str, list[int]] = {"abs": [], "pdf": []}
        for item in self.items:
            if match := re.search(r"arxiv\.org/(abs|pdf)/", item.url or "", re.I):
                forms[match[1].lower()].append(item.line)
        if all(forms.values()):
            fewer = min(forms, key=lambda form: len(forms[form]))
            what = f"arXiv links are mixed: {len(forms['pdf'])} to the PDF, {len(forms['abs'])} to the abstract"
            self.say(forms[fewer][0], "label", what, "choose one; the abstract always shows the newest version")

    def misplaced(self) -> None:
        """A paper below a heading whose nodes share nothing with the paper's own."""
        from tools.importing.topics import Topics

        if not self.document.lists:
            return
        topics = Topics(self.catalog)
        suggested = [topics.of(self.document, n) for n in range(len(self.document.headings))]
        filled = {item.heading for item in self.items}
        for n, heading in enumerate(self.document.headings):
            if n in filled:
                nodes, _ = suggested[n]
                what = (
                    f"the heading {shown(heading.text, 60)} has the topics {', '.join(nodes)}"
                    if nodes
                    else (f"no topic of the catalog resembles the heading {shown(heading.text, 60)}")
                )
                mend = "file its papers there" if nodes else "choose the topics of its papers by hand, or propose a new one"
                self.say(heading.line, "topic", what, mend)
        for number, item in enumerate(self.items):
            known = self.match.of[number]
            if item.heading is None or not known or known[0] != "papers":
                continue
            nodes, sure = suggested[item.heading]
            own = self.catalog.papers[known[1]].taxonomy
            if nodes and sure and not {node.split("/")[0] for node in nodes} & {node.split("/")[0] for node in own}:
                what = f"{shown(item.title, 60)} stands below {shown(self.document.headings[item.heading].text, 40)}"
                self.say(item.line, "placed", what, f"the catalog files it under {', '.join(own)}")


# --- titles -----------------------------------------------------------------------------------------------------


def _agrees(title: str, paper: Paper) -> bool:
    """Whether a title, perhaps with a name or authors around it, is one of the paper's."""
    now = words(title)
    return any(
        "".join(now) == "".join(known) or _contains(now, known) or _contains(now, words(known_title.partition(":")[2]))
        for known_title in [paper.title, *paper.aliases]
        if (known := words(known_title))
    ) or any("".join(now) == "".join(words(t.partition(":")[2])) for t in [paper.title, *paper.aliases] if ":" in t)


def _marks(title: str) -> str:
    """The title with its hyphens and marks, without capitals and the kinds of quotes and dashes."""
    plain = unicodedata.normalize("NFKD", title).casefold().replace("–", "-").replace("—", "-").replace("--", "-")
    return "".join(c for c in plain if not unicodedata.combining(c) and c not in " '’‘`\"“”:.,;?!$^{}\\")


def _cased(title: str) -> list[str]:
    """The names in a title that have a capital inside: SAM-CLIP, ZipIt."""
    return [word for word in re.findall(r"[\w-]+", title) if re.search(r"[a-z0-9A-Z][A-Z]", word) and not title.isupper()]


def _contains(now: list[str], known: list[str]) -> bool:
    return len(known) > 3 and f" {' '.join(known)} " in f" {' '.join(now)} "


def _is_cut(now: list[str], whole: list[str]) -> bool:
    return 0 < len(now) < len(whole) and (whole[: len(now)] == now or whole[-len(now) :] == now)


def _overlap(a: list[str], b: list[str]) -> float:
    return len(set(a) & set(b)) / max(1, len(set(a) | set(b)))


def _misspelt(word: str, right: str) -> bool:
    """One letter wrong, missing, too much or out of place, in words that are long enough to tell."""
    if word == right or min(len(word), len(right)) < 4 or max(len(word), len(right)) > 60:
        return False
    if sorted(word) == sorted(right):
        return len(word) > 4
    short = min(len(word), len(right))
    start = next((i for i in range(short) if word[i] != right[i]), short)
    end = next((i for i in range(short - start) if word[-1 - i] != right[-1 - i]), short - start)
    return max(len(word), len(right)) - start - end == 1 and not (word.rstrip("s") == right.rstrip("s"))


def _where(paper: Paper) -> str:
    if paper.arxiv:
        return f"https://arxiv.org/abs/{paper.arxiv}"
    if paper.openreview:
        return f"https://openreview.net/forum?id={paper.openreview}"
    return f"https://doi.org/{paper.doi}" if paper.doi else paper.url or ""


def _official(paper: Paper | None) -> str:
    url = next((code.url for code in paper.code if code.official), None) if paper else None
    return f"the authors' code is {url}" if url else ""
