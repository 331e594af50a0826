"""Compare the items of a list with each other and with the catalog."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from tools.catalog import Catalog
from tools.importing import repositories, same, whole
from tools.importing.items import Document, Item, Publication, posted, publication, same_link, shown
from tools.importing.repositories import official_code
from tools.people import content, likeness
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
    return Comparison(document, Index(catalog)).run()


class Comparison:
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

        self.words: dict[str, list[str]] = defaultdict(list)  # word of a title -> works that have it
        self.like: dict[str, tuple[str, list[str], str]] = {}  # work -> title, authors, where it stands
        for id, paper in index.catalog.papers.items():
            self.remember(id, paper.title, paper.authors, f"which is {id}")

    def remember(self, work: str, title: str, authors: list[str], place: str) -> None:
        self.like[work] = title, authors, place
        for word in content(title):
            if len(self.words[word]) < 300:  # a word that many titles have says little
                self.words[word].append(work)

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
            repositories.code(self, number, item, paper, known[1] if known else None)
            self.report_match(number, item, known)
        whole.spellings(self)
        whole.misplaced(self)
        whole.capitals(self)
        whole.acronyms(self)
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
        if named is not None and named != linked and not same.agrees(item.title, paper):
            other = self.catalog.papers[named]
            mend = f"link {_where(other)}" if _where(other) else "correct the link or the title"
            what = f"link and title disagree: the link is {linked} ({shown(paper.title, 60)}), the title that of {named}"
            self.say(item.line, "disagree", what, mend)
            self.disagree.add(number)
            return named
        if named is None and not same.agrees(item.title, paper):
            now, whole = words(item.title), words(paper.title)
            if same.is_cut(now, whole):
                self.say(item.line, "title", f"the title {shown(item.title)} is cut", f"write {shown(paper.title, 200)}")
            elif same.overlap(now, whole) >= 0.5:
                self.say(item.line, "title", f"the title differs from that of {linked}", f"write {shown(paper.title, 200)}")
            else:
                what = (
                    f"link and title disagree: the link is {linked} ({shown(paper.title, 60)}), the title {shown(item.title, 60)}"
                )
                self.say(item.line, "disagree", what, "correct the link, or the title if the work was renamed")
                self.disagree.add(number)
        return linked

    def likely(self, number: int, item: Item) -> None:
        """A new title with most words of a known or an earlier one: perhaps the same work under another title."""
        seen: Counter[str] = Counter()
        for word in content(item.title):
            seen.update(self.words.get(word, ()))
        for other, _ in seen.most_common(5):
            title, who, place = self.like[other]
            a, b = content(item.title), content(title)
            if (a < b or b < a) and not same.share_authors(item.authors, who):
                continue  # "Improved X" is another work than "X"; a title that is cut is found by its link
            if likeness(item.title, title) >= (0.5 if same.share_authors(item.authors, who) else 0.65):
                what = f"{shown(item.title, 60)} has most words of {shown(title, 80)}, {place}"
                self.say(item.line, "alike", what, "see whether they are one work under two titles")
                break

    def report_match(self, number: int, item: Item, known: tuple[str, str] | None) -> None:
        if known:
            what = f"known: {shown(item.title, 60)} is {known[0]}/{known[1]}"
            self.say(item.line, "known", what, "nothing to add")
        elif self.match.first[number] == number:
            if item.category == "paper" and number not in self.disagree:
                self.likely(number, item)
                self.remember(f"#{number}", item.title, item.authors, f"in line {item.line}")
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
            if wrong := same.authors(item.authors, paper.authors, item.cut):
                self.say(item.line, "authors", f"the authors of {shown(item.title, 60)}: {wrong}", f"see {id}")
            self.other_id(number, item, paper, id)
            self.venue(item, pub, paper, id)
        if not ids_of(item):
            place = "link" if self.document.lists else "link, DOI or arXiv id"
            mend = f"link {_where(paper)}" if paper and _where(paper) else "add one"
            self.say(item.line, "missing", f"{shown(item.title, 60)} has no {place}", mend)
        self.date(item, pub, paper)
        self.link_says(item, pub)
        if item.code_text:
            mend = official_code(paper) or "link the repository or leave the cell empty"
            self.say(item.line, "missing", f"the code cell holds {shown(item.code_text, 40)} instead of a link", mend)
        if item.category != "paper" or not self.document.lists:
            return
        venue = f"{self.short(paper.venue)} {paper.year}" if paper else ""
        if not item.pub and "venue" not in never and ("pub" in item.cells or (paper and paper.venue != "arxiv")):
            what = "the publication cell is empty" if "pub" in item.cells else f"no venue for {shown(item.title, 60)}"
            self.say(item.line, "missing", what, f"write {venue}" if venue else "say where and when it appeared")
        if not item.code and not item.code_text and "code" not in never and (official := official_code(paper)):
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
            wrong = next(
                (w for w in same.cased(paper.title) if w.casefold() in item.title.casefold() and w not in item.title), None
            )
            if same.marks(item.title) != same.marks(paper.title):
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
            near = next(
                (a for a in [*paper.aliases, name] if folded not in known and same.misspelt(folded, "".join(words(a)))), None
            )
            if near:
                self.say(item.line, "title", f"the name {shown(head)} is misspelt", f"write {shown(near)}")
        elif len(now) == len(right) and sum(a != b for a, b in zip(now, right)) == 1 and not same.contains(now, right):
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


def _where(paper: Paper) -> str:
    if paper.arxiv:
        return f"https://arxiv.org/abs/{paper.arxiv}"
    if paper.openreview:
        return f"https://openreview.net/forum?id={paper.openreview}"
    return f"https://doi.org/{paper.doi}" if paper.doi else paper.url or ""
