"""Every generated page of the site: which there are, and what each template is given.

Pages are Markdown, so that any builder can read them; links between them are Markdown links, so that a dead one fails
the build. All paths are relative to the docs folder.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import groupby
from pathlib import Path

from markupsafe import Markup

from tools import confirmed, escape, explorer, field, figures, metadata, records
from tools.bibtex import bibtex_entry
from tools.catalog import Catalog, CatalogError
from tools.docstrings import Implementation, read_implementation, read_introduction
from tools.exporting import downloads
from tools.lab import Lab
from tools.notebooks import colab, notebook
from tools.records import Entry, Method, Paper
from tools.standalone import standalone
from tools.steps import read_steps

SAFE_ID = re.compile(r"[a-z0-9]+([-_][a-z0-9]+)*(/[a-z0-9]+(-[a-z0-9]+)*){0,2}")
INVERSE = {
    "builds on": "Basis of",
    "refines": "Refined by",
    "compares with": "Compares with",
    "special case of": "Has as special case",
}
HOW = {"builds on": "Builds on", "refines": "Refines", "compares with": "Compares with", "special case of": "Special case of"}
RELATED_PAPERS = 6
LIBRARIES = ("mergekit", "FusionBench", "PEFT", "MergeLM")  # of many methods; what else was compared is the code of a paper
VERDICTS = {"same": "the same", "option": "the same with an option", "differs": "different, with the reason stated"}

Page = tuple[str, str]  # path from the docs folder, and its Markdown


class Pages:
    """All pages of a catalog. `project` is where `reference_impls/` is; a catalog without code has only records."""

    def __init__(self, catalog: Catalog):
        self.catalog = catalog
        self.env = escape.environment()
        for kind in ("papers", "methods", "codebases", "resources", "reading_lists", "taxonomy", "venues"):
            for id in getattr(catalog, kind):
                if not SAFE_ID.fullmatch(id):
                    raise CatalogError(f"{ascii(id)} in {kind} is not an id; use lower-case letters, digits and - or _")
        for key in catalog.redirects:
            kind, _, id = key.partition("/")
            if kind not in (*records.KINDS, "taxonomy", "venues") or not SAFE_ID.fullmatch(id):
                raise CatalogError(f"{ascii(key)} in redirects is no kind and id; write papers/doe2020old")

    def all(self) -> Iterator[Page]:
        fixed = []  # pages that belong to no record; the search box finds them by their titles
        for path, text in self._pages():
            yield path, text
            if path.endswith(".md") and (path.count("/") == 1 or path.endswith("/index.md") or path.startswith("catalog/chapters/")):
                fixed.append((path, re.search(r"^# (.+)$", text, re.MULTILINE)[1]))
        for kind, (table, words) in (("papers", self.paper_data), ("methods", self.method_data)):
            yield f"catalog/{kind}.json", explorer.dump(table)
            yield f"catalog/{kind}-words.json", explorer.dump(words)
        yield "catalog/search.json", explorer.dump(explorer.search_index(self.catalog, fixed))

    def _pages(self) -> Iterator[Page]:
        yield self.home()
        yield self.method_index()
        yield from map(self.chapter_page, self.chapters)
        yield self.genealogy()
        yield self.field()
        yield self.parity_table()
        if self.costs:
            yield self.cost_table()
        yield from map(self.method, sorted(self.catalog.methods))
        for id in self.implementations:
            yield from self.method_files(id)
        yield self.paper_index()
        yield from map(self.paper, sorted(self.catalog.papers))
        yield from self.years()
        yield from self.venues()
        yield self.topic_index()
        yield from map(self.topic, self.catalog.taxonomy)
        yield self.heading_table()
        yield from self.reading_lists()
        yield from self.codebases()
        yield from self.resources()
        yield from self.redirects()
        yield self.downloads()
        yield from downloads.files(self.catalog)
        yield from self.lab.published()

    def render(self, template: str, path: str, **values: object) -> Page:
        return path, self.env.get_template(template).render(at=Here(self, path), **values)

    # --- what several pages need ---

    @cached_property
    def titles(self) -> dict[str, dict[str, Markup]]:
        """Kind -> id -> the name a link shows, escaped once."""
        catalog = self.catalog
        return {
            "papers": {id: escape.text(paper.title) for id, paper in catalog.papers.items()},
            "methods": {id: escape.text(method.name) for id, method in catalog.methods.items()},
            "codebases": {id: escape.text(codebase.name) for id, codebase in catalog.codebases.items()},
            "resources": {id: escape.text(resource.name) for id, resource in catalog.resources.items()},
            "reading_lists": {id: escape.text(reading_list.title) for id, reading_list in catalog.reading_lists.items()},
            "taxonomy": {id: escape.text(node.name) for id, node in catalog.taxonomy.items()},
            "venues": {id: escape.text(venue.short) for id, venue in catalog.venues.items()},
            "years": {str(year): escape.text(year) for year in self.papers_by_year},
        }

    @cached_property
    def bylines(self) -> dict[str, Markup]:
        return {id: escape.text(f"{explorer.short_authors(p)} · {self.venue_short(p)} {p.year}") for id, p in self.catalog.papers.items()}

    def venue_short(self, paper: Paper) -> str:
        venue = self.catalog.venues.get(paper.venue)
        return venue.short if venue else paper.venue

    def bibtex(self, paper: Paper) -> str:
        return bibtex_entry(paper, self.catalog.venues.get(paper.venue)).strip()

    @cached_property
    def confirmed(self) -> dict[str, list[str]]:
        return confirmed.places(self.catalog)

    @cached_property
    def orcids(self) -> dict[str, str]:
        return {name: person.orcid for name, person in self.catalog.people.items() if person.orcid}

    @cached_property
    def papers_by_year(self) -> dict[int, list[str]]:
        found = defaultdict(list)
        for id, paper in sorted(self.catalog.papers.items(), key=lambda item: (item[1].title.casefold(), item[0])):
            found[paper.year].append(id)
        return dict(sorted(found.items(), reverse=True))

    @cached_property
    def implementations(self) -> dict[str, Implementation]:
        """Only modules that define their method; a broken module is the business of the checks, not of the site."""
        c = self.catalog
        return {
            id: read_implementation(c.implementations[c.chapters[id], id].path, c.root)
            for id in sorted(c.methods)
            if c.implementation(id)
        }

    @cached_property
    def parity(self) -> list[dict]:
        """What the comparison with the recorded outputs of other libraries found; a test keeps the file current."""
        file = self.catalog.root / "tests" / "parity" / "matrix.json"
        rows = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
        return [row for row in rows if row["method"] in self.catalog.methods]

    @cached_property
    def runs(self) -> dict[str, dict]:
        """What the figures measured on the toy zoo, by method."""
        return figures.load(self.catalog.root / "docs" / "figures" / "data")

    @cached_property
    def lab(self) -> Lab:
        """The demos, for pictures and live runs."""
        return Lab(self.catalog.root)

    @cached_property
    def costs(self) -> dict:
        """Seconds of the matching methods by width; empty where nothing was measured."""
        file = self.catalog.root / "docs" / "figures" / "cost_of_matching.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}

    @cached_property
    def places_in_lists(self) -> dict[tuple[str, str], list[tuple[str, int, str]]]:
        """(kind, id) -> (reading list, number of its section, heading)."""
        found: dict[tuple[str, str], dict[tuple[str, int, str], None]] = defaultdict(dict)
        for list_id, reading_list in sorted(self.catalog.reading_lists.items()):
            for number, section in enumerate(reading_list.sections, start=1):
                for entry in section.entries:
                    target = _target(entry)
                    if target:
                        found[target][list_id, number, section.heading] = None
        return {target: list(places) for target, places in found.items()}

    @cached_property
    def related_papers(self) -> dict[str, list[str]]:
        """The papers that share the most and the rarest topics, then those nearest in time."""
        papers, within = self.catalog.papers, self.catalog.papers_by_taxonomy
        related = {}
        for id, paper in papers.items():
            score: Counter[str] = Counter()
            nodes = {"/".join(node.split("/")[:depth]) for node in paper.taxonomy for depth in range(1, node.count("/") + 2)}
            for node in sorted(nodes, key=lambda node: (len(within.get(node, [])), node)):
                crowd = within.get(node, [])
                if len(score) > 4 * RELATED_PAPERS and len(crowd) > 50:
                    break  # crowded topics say little, and leaving them out keeps the work linear
                for other in crowd:
                    score[other] += 1 / len(crowd)
            score.pop(id, None)
            rank = sorted(score, key=lambda other: (-score[other], abs(papers[other].year - paper.year), other))
            related[id] = rank[:RELATED_PAPERS]
        return related

    @cached_property
    def chapters(self) -> list[dict]:
        """The chapters with their introductions, and the methods of each by year."""
        found = []
        for id in records.CHAPTERS:
            name, about = id.replace("_", " ").capitalize(), ""
            introduction = self.catalog.root / "reference_impls" / id / "__init__.py"
            if introduction.is_file():
                name, about = read_introduction(introduction, name)
            methods = self.catalog.methods_by_chapter.get(id, [])
            found.append({"id": id, "name": name, "about": about, "methods": methods})
        return found

    def chapter(self, method: str) -> dict:
        return next(chapter for chapter in self.chapters if method in chapter["methods"])

    # --- home and methods ---

    def home(self) -> Page:
        c = self.catalog
        counts = [
            ("methods", len(c.methods)),
            ("implemented", len(self.implementations)),
            ("papers", len(c.papers)),
            ("topics", len(c.taxonomy)),
            ("reading lists", len(c.reading_lists)),
            ("codebases", len(c.codebases)),
        ]
        return self.render("home.md.j2", "index.md", counts=counts, chapters=self.chapters)

    @cached_property
    def method_data(self) -> explorer.Table:
        return explorer.methods(self.catalog, self.implementations, self.chapters)

    def method_index(self) -> Page:
        rows = self._first(self.method_data[0])
        total, ready = len(self.catalog.methods), len(self.implementations)
        return self.render("methods.md.j2", "catalog/methods/index.md", chapters=self.chapters, rows=rows, total=total, ready=ready)

    @staticmethod
    def _first(data: dict) -> list[dict]:
        """The rows of an explorer that the page shows before any script runs."""
        return [{"id": row[0], "line": row[2], "tags": explorer.tags(data, row)} for row in data["rows"][: explorer.FIRST]]

    def chapter_page(self, chapter: dict) -> Page:
        rows = [self._row(id) for id in chapter["methods"]]
        costs = bool(self.costs) and chapter["id"] == "alignment"
        return self.render("chapter.md.j2", f"catalog/chapters/{chapter['id']}.md", chapter=chapter, rows=rows, costs=costs)

    def _row(self, id: str) -> dict:
        method = self.catalog.methods[id]
        needs = method.requirements
        paper = self.catalog.papers.get(method.introduced_by or "")
        return {
            "id": id,
            "summary": method.summary,
            "ready": id in self.implementations,
            "needs": [_tag(label, value) for label, value, needed in _glance(method)[:-2] if needed and not _implied(label, needs)],
            "output": needs.output,
            "inference": needs.inference if needs.inference not in ("one model", "none") else None,
            "paper": method.introduced_by if paper else None,
            "paper_label": f"{explorer.short_authors(paper)}, {paper.year}" if paper else None,
        }

    def genealogy(self) -> Page:
        c = self.catalog
        hows = {id: [link.how in field.DIRECTED for link in method.related] for id, method in c.methods.items()}
        chapters = [
            (chapter, field.genealogy(c, chapter["id"], chapter["name"]), *_two_kinds(hows[id] for id in chapter["methods"]))
            for chapter in self.chapters
            if chapter["methods"]
        ]
        return self.render("genealogy.md.j2", "catalog/genealogy.md", chapters=chapters)

    def field(self) -> Page:
        c = self.catalog
        covered = field.covered(c, self.implementations, self.runs)
        largest = max(covered, key=lambda node: covered[node][0])
        years = sorted(paper.year for paper in c.papers.values())
        since = years[len(years) // 2]  # at least half of the papers are of this year or later
        made = [set(c.methods_by_paper.get(id, [])) for id in c.papers]
        return self.render(
            "field.md.j2",
            "catalog/field.md",
            total=len(c.papers),
            methods=len(c.methods),
            topics=field.topics(c),
            largest=(largest, covered[largest][0]),
            timeline=field.timeline(c),
            since=since,
            recent=sum(year >= since for year in years),
            preprints=sum(paper.venue == "arxiv" for paper in c.papers.values()),
            coverage=field.coverage(c, covered),
            code=sum(bool(paper.code) for paper in c.papers.values()),
            implemented=sum(bool(methods & set(self.implementations)) for methods in made),
            measured=sum(bool(methods & set(self.runs)) for methods in made),
        )

    def parity_table(self) -> Page:
        """All comparisons by library: those for several methods by name, the code of single papers together."""
        libraries, papers = defaultdict(list), []
        counts: Counter[str] = Counter()
        for row in self.parity:
            counts[row["verdict"]] += row["cases"]
            (libraries[row["library"]] if row["library"].split()[0] in LIBRARIES else papers).append(row)
        groups = sorted(libraries.items(), key=lambda group: LIBRARIES.index(group[0].split()[0]))
        groups = [*groups, ("Code of the papers", papers)] if papers else groups
        methods = sorted({row["method"] for row in self.parity})

        def cell(method: str, rows: list[dict]) -> list[dict]:
            """The comparisons of one method with one library, each finding once."""
            return list({(row["verdict"], row["detail"]): row for row in rows if row["method"] == method}.values())

        return self.render(
            "parity.md.j2",
            "catalog/parity.md",
            groups=groups,
            matrix=[(method, [cell(method, rows) for _, rows in groups]) for method in methods],
            counts=[(VERDICTS[verdict], counts[verdict]) for verdict in VERDICTS],
            total=counts.total(),
            methods=len(methods),
        )

    def cost_table(self) -> Page:
        """Time of the matching methods by width, each beside weight matching."""
        rows = [row for row in self.costs["rows"] if row["method"] in self.catalog.methods]
        reference = next(row["seconds"] for row in rows if row["method"] == "weight_matching")
        shown = [{**row, "cells": figures.costs(row["seconds"], reference, len(self.costs["widths"]))} for row in rows]
        return self.render("cost.md.j2", "catalog/cost-of-matching.md", widths=self.costs["widths"], rows=shown, costs=self.costs)

    def method(self, id: str) -> Page:
        c, method = self.catalog, self.catalog.methods[id]
        code = self.implementations.get(id)
        related: dict[str, dict[str, str | None]] = defaultdict(dict)
        for link in method.related:
            related[HOW[link.how]][link.method] = link.note
        for other in c.methods_by_related.get(id, []):
            for link in c.methods[other].related:
                if link.method == id:
                    related[INVERSE[link.how]].setdefault(other, link.note)
        paper = c.papers.get(method.introduced_by or "")
        return self.render(
            "method.md.j2",
            f"catalog/methods/{id}.md",
            head=_front_matter(self._head(method.name, method.summary, paper, method if code else None)),
            file=Markup(id),
            method=method,
            chapter=self.chapter(id),
            glance=_glance(method),
            code=code,
            steps=read_steps(c.root / code.path, c.root) if code else [],
            imports=f"import torch\n\nfrom {code.path[:-3].replace('/', '.')} import {id}\n\n" if code else "",
            parity=[row for row in self.parity if row["method"] == id],
            run=self.runs.get(id),
            picture=figures.svg(self.runs[id]) if id in self.runs else None,
            method_id=id,
            demo=self.lab.of(id),
            tables=figures.tables(self.runs[id]) if id in self.runs else [],
            costs=any(row["method"] == id for row in self.costs.get("rows", [])),
            related={how: list(links.items()) for how, links in related.items()},
            introduced_by=method.introduced_by if paper else None,
            papers=[other for other in method.papers if other in c.papers],
            resources=[other for other in c.resources_by_method.get(id, []) if other in c.resources],
            bibtex=self.bibtex(paper) if paper else None,
            software=_software(id, code) if code else None,
            colab=colab(f"catalog/methods/{id}.ipynb"),
        )

    def method_files(self, id: str) -> Iterator[Page]:
        """What a reader can take along: the method as one file and as a notebook."""
        c, code, method = self.catalog, self.implementations[id], self.catalog.methods[id]
        source = standalone(c.root / code.path, c.root)
        paper = c.papers.get(method.introduced_by or "")
        cited = f"{', '.join(paper.authors)}, {paper.title}, {self.venue_short(paper)} {paper.year}" if paper else None
        yield f"catalog/methods/{id}.py", source
        yield f"catalog/methods/{id}.ipynb", notebook(method, code, source, cited)

    # --- papers, years, venues ---

    @cached_property
    def paper_data(self) -> explorer.Table:
        return explorer.papers(self.catalog, self.implementations, self.runs)

    def paper_index(self) -> Page:
        c = self.catalog
        rows = self._first(self.paper_data[0])
        years = [(year, len(ids)) for year, ids in self.papers_by_year.items()]
        topics = [(id, len(c.papers_by_taxonomy[id])) for id in c.children.get("", [])]
        return self.render("papers.md.j2", "catalog/papers/index.md", rows=rows, years=years, topics=topics, total=len(c.papers))

    def paper(self, id: str) -> Page:
        c, paper = self.catalog, self.catalog.papers[id]
        methods = [method for method in c.methods_by_paper.get(id, []) if method in c.methods]
        introduces = [method for method in methods if c.methods[method].introduced_by == id]
        return self.render(
            "paper.md.j2",
            f"catalog/papers/{id}.md",
            paper=paper,
            head=_front_matter(self._head(paper.title, paper.summary, paper)),
            places=_places(paper),
            introduces=introduces,
            discusses=[method for method in methods if method not in introduces],
            orcids={name: f"https://orcid.org/{orcid}" for name, orcid in self.orcids.items()},
            confirmed=self.confirmed.get(id, []),
            bibtex=self.bibtex(paper),
            lists=self.places_in_lists.get(("papers", id), []),
            codebases=[other for other in c.codebases_by_paper.get(id, []) if other in c.codebases],
            resources=[other for other in c.resources_by_paper.get(id, []) if other in c.resources],
            related=self.related_papers[id],
        )

    def _head(self, title: str, summary: str, paper: Paper | None, method: Method | None = None) -> dict[str, object]:
        """What other programs read from a page: of a paper, or of a method and the paper that introduced it."""
        venue = self.catalog.venues.get(paper.venue) if paper else None
        if method:
            linked = metadata.software(method, paper, venue, self.orcids)
        else:
            linked = metadata.article(paper, venue, self.orcids) if paper else None
        citation = metadata.citation(paper, venue) if paper else {}
        return {"citation": citation, "social": metadata.social(title, summary), "linked": linked}

    def years(self) -> Iterator[Page]:
        for year, ids in self.papers_by_year.items():
            yield self.render("year.md.j2", f"catalog/years/{year}.md", year=year, ids=ids)
        here = Here(self, "catalog/years/index.md")
        rows = [(here.link("years", year), None, len(ids)) for year, ids in self.papers_by_year.items()]
        yield self.render(
            "groups.md.j2", here.path, title="Years", about="Papers by the year of their venue.", groups=[(None, rows)]
        )

    def venues(self) -> Iterator[Page]:
        by_venue: dict[str, list[str]] = defaultdict(list)
        for ids in self.papers_by_year.values():
            for id in ids:
                by_venue[self.catalog.papers[id].venue].append(id)
        here = Here(self, "catalog/venues/index.md")
        rows: dict[str, list] = defaultdict(list)
        for id, venue in sorted(self.catalog.venues.items(), key=lambda item: item[1].short.casefold()):
            papers = by_venue.get(id, [])
            by_year = [(year, list(ids)) for year, ids in groupby(papers, key=lambda paper: self.catalog.papers[paper].year)]
            yield self.render("venue.md.j2", f"catalog/venues/{id}.md", venue=venue, by_year=by_year)
            rows[venue.kind].append((here.link("venues", id), venue.name, len(papers)))
        groups = [(f"{kind.capitalize()}s", rows[kind]) for kind in ("conference", "journal", "workshop", "preprint server") if kind in rows]
        yield self.render("groups.md.j2", here.path, title="Venues", about="Papers by where they were published.", groups=groups)

    # --- topics and reading lists ---

    def topic_index(self) -> Page:
        c = self.catalog
        tree = []
        for top in c.children.get("", []):
            below = [
                (id, id.count("/"), c.taxonomy[id].summary, len(c.papers_by_taxonomy[id]))
                for id in self._below(top)
            ]
            tree.append(
                {
                    "id": top,
                    "name": c.taxonomy[top].name,
                    "summary": c.taxonomy[top].summary,
                    "papers": len(c.papers_by_taxonomy[top]),
                    "methods": len(c.methods_by_taxonomy[top]),
                    "below": below,
                }
            )
        return self.render("topics.md.j2", "catalog/taxonomy/index.md", tree=tree)

    def _below(self, node: str) -> Iterator[str]:
        for child in self.catalog.children.get(node, []):
            yield child
            yield from self._below(child)

    def topic(self, id: str) -> Page:
        c = self.catalog
        path = f"catalog/taxonomy/{id}.md"
        here = Here(self, path)
        parts = id.split("/")
        trail = [here.page("Topics", "catalog/taxonomy/index.md")]
        trail += [here.link("taxonomy", "/".join(parts[:depth])) for depth in range(1, len(parts))]
        direct = [paper for paper in self._newest(c.papers_by_taxonomy[id]) if id in c.papers[paper].taxonomy]
        below, shown = [], set(direct)
        for child in c.children.get(id, []):
            papers = [paper for paper in self._newest(c.papers_by_taxonomy[child]) if paper not in shown]
            shown.update(papers)
            if papers:
                below.append((child, papers))
        children = [(child, c.taxonomy[child].summary, len(c.papers_by_taxonomy[child])) for child in c.children.get(id, [])]
        return self.render(
            "topic.md.j2",
            path,
            node=c.taxonomy[id],
            began=c.papers.get(c.taxonomy[id].introduced_by),
            trail=trail,
            children=children,
            methods=c.methods_by_taxonomy[id],
            papers=direct,
            below=below,
            headings=self.headings_by_topic.get(id, []),
        )

    def _newest(self, ids: list[str]) -> list[str]:
        return sorted(ids, key=lambda id: (-self.catalog.papers[id].year, self.catalog.papers[id].title.casefold(), id))

    @cached_property
    def headings_by_topic(self) -> dict[str, list[tuple[str, int, str]]]:
        found = defaultdict(list)
        for list_id, reading_list in sorted(self.catalog.reading_lists.items()):
            for number, section in enumerate(reading_list.sections, start=1):
                for node in section.taxonomy:
                    found[node].append((list_id, number, section.heading))
        return dict(found)

    def heading_table(self) -> Page:
        lists = [self.catalog.reading_lists[id] for id in sorted(self.catalog.reading_lists)]
        return self.render("headings.md.j2", "catalog/headings.md", lists=lists)

    def reading_lists(self) -> Iterator[Page]:
        here = Here(self, "catalog/reading_lists/index.md")
        rows = []
        for id, reading_list in sorted(self.catalog.reading_lists.items()):
            shallowest = min((section.level for section in reading_list.sections), default=2)
            sections = [
                {**dict(section), "hashes": Markup("#" * min(6, section.level - shallowest + 2))} for section in reading_list.sections
            ]
            path, bib = f"catalog/reading_lists/{id}.md", downloads.of_list(id)
            yield self.render("reading_list.md.j2", path, list=reading_list, sections=sections, bib=bib)
            count = sum(len(section.entries) for section in reading_list.sections)
            rows.append((here.link("reading_lists", id), reading_list.summary, count))
        about = "Curated lists in their own order, with their marks and keywords. What was wrong in them is corrected beside the entry."
        yield self.render("groups.md.j2", here.path, title="Reading lists", about=about, groups=[(None, rows)])

    def downloads(self) -> Page:
        ids = sorted(self.catalog.reading_lists)
        lists = [(id, downloads.of_list(id), downloads.count(self.catalog, id)) for id in ids]
        files = [(path, what) for _, path, what in downloads.FILES]
        return self.render("downloads.md.j2", f"{downloads.FOLDER}/index.md", files=files, lists=lists)

    def redirects(self) -> Iterator[Page]:
        """Pages at the old addresses of records that moved; resources never had pages of their own."""
        for key, redirect in sorted(self.catalog.redirects.items()):
            kind, _, id = redirect.to.partition("/")
            if not key.startswith("resources/") and id in self.titles.get(kind, {}):
                path = f"catalog/{key}.md"
                link = Here(self, path).link(kind, id)
                place = Markup(re.sub(r"\.md(?=#|$)", "/", _place(self.catalog, kind, id)))
                yield self.render("moved.md.j2", path, key=key, link=link, target=place, why=redirect.why)

    # --- code and resources ---

    def codebases(self) -> Iterator[Page]:
        here = Here(self, "catalog/codebases/index.md")
        rows: dict[str, list] = defaultdict(list)
        for id, codebase in sorted(self.catalog.codebases.items(), key=lambda item: item[1].name.casefold()):
            yield self.render(
                "codebase.md.j2",
                f"catalog/codebases/{id}.md",
                codebase=codebase,
                papers=[paper for paper in codebase.papers if paper in self.catalog.papers],
                lists=self.places_in_lists.get(("codebases", id), []),
            )
            rows[codebase.kind].append((here.link("codebases", id), codebase.summary, None))
        names = {
            "library": "Libraries",
            "paper code": "Code of papers",
            "list": "Lists",
            "project page": "Project pages",
            "profile": "Profiles",
        }
        groups = [(names[kind], rows[kind]) for kind in names if kind in rows]
        yield self.render("groups.md.j2", here.path, title="Code", about="Toolkits, and the code that papers came with.", groups=groups)

    def resources(self) -> Iterator[Page]:
        here = Here(self, "catalog/resources/index.md")
        names = {
            "blog": "Blogs",
            "video": "Videos",
            "thread": "Threads",
            "models and datasets": "Models and datasets",
            "list": "Lists",
        }
        rows = []
        for kind, title in names.items():
            found = [
                {**dict(r), "id": id, "papers": [p for p in r.papers if p in self.catalog.papers]}
                | {"methods": [m for m in r.methods if m in self.catalog.methods]}
                for id, r in sorted(self.catalog.resources.items(), key=lambda item: item[1].name.casefold())
                if r.kind == kind
            ]
            if found:
                path = _resource_page(kind)
                yield self.render("resources.md.j2", path, title=title, resources=found)
                rows.append((here.page(title, path), None, len(found)))
        about = "Blogs, videos and threads about combining models, and where trained models are kept."
        yield self.render("groups.md.j2", here.path, title="Resources", about=about, groups=[(None, rows)])


class Here:
    """The page being written: links from it, and lines that show another record."""

    def __init__(self, pages: Pages, path: str):
        self.pages, self.path, self.up = pages, path, Markup("../" * path.count("/"))

    @cached_property
    def ids(self) -> dict[str, str]:
        """Ids of papers and methods that a docstring may name, and where their pages are."""
        c = self.pages.catalog
        own = Path(self.path).stem
        found = {id: f"{self.up}catalog/papers/{id}.md" for id in c.papers}
        return found | {id: f"{self.up}catalog/methods/{id}.md" for id in c.methods if id != own and "_" in id}

    def page(self, label: object, path: str) -> Markup:
        return Markup(f"[{escape.text(label)}]({self.up}{path})")

    def section(self, reading_list: str, number: int, heading: str) -> Markup:
        return self.page(heading, f"catalog/reading_lists/{reading_list}.md#s{number}")

    def name(self, kind: str, id: str) -> Markup:
        return self.pages.titles[kind].get(str(id)) or escape.text(id)

    def venue_name(self, id: str) -> str:
        venue = self.pages.catalog.venues.get(id)
        return venue.name if venue else id

    def link(self, kind: str, id: object, label: object = None) -> Markup:
        """A link to a record's page; a record that is not there shows as its id."""
        titles = self.pages.titles[kind]
        title = titles.get(str(id))
        if title is None:
            return escape.text(id)
        path = _place(self.pages.catalog, kind, str(id))
        return Markup(f"[{title if label is None else escape.text(label)}]({self.up}{path})")

    def sentence(self, value: str) -> Markup:
        """Plain text in which topics that it names ("which is under merging/averaging") are links."""
        out = []
        for part in re.split(r"((?<=under )[a-z0-9-]+(?:/[a-z0-9-]+)*|[a-z0-9-]+(?:/[a-z0-9-]+)+)", value):
            linked = part in self.pages.catalog.taxonomy
            out.append(self.link("taxonomy", part) if linked else _spaced(part))
        return Markup("".join(out))

    def difference(self, method: str, topic: str) -> Markup:
        """A link to a statement of how implementations of a method differ."""
        topics = [point.topic for point in self.pages.catalog.methods[method].differs]
        if topic not in topics:
            return escape.text(topic)
        place = f"#differs-{topics.index(topic) + 1}"
        path = f"catalog/methods/{method}.md"
        return Markup(f"[{escape.text(topic)}]({place if path == self.path else self.up + path + place})")

    def paper_line(self, id: str) -> Markup:
        return Markup(f'{self.link("papers", id)}<span class="by">{self.pages.bylines[id]}</span>')

    def method_line(self, id: str) -> Markup:
        summary = escape.text(self.pages.catalog.methods[id].summary)
        return Markup(f'{self.link("methods", id)}<span class="by">{summary}</span>')

    def entry_link(self, entry: Entry) -> Markup:
        target = _target(entry)
        return self.link(*target) if target else escape.text(entry.listed_as)

    def entry_byline(self, entry: Entry) -> Markup:
        if entry.paper in self.pages.catalog.papers:
            return Markup(f'<span class="by">{self.pages.bylines[entry.paper]}</span>')
        return Markup("")

    def differs(self, entry: Entry) -> bool:
        """Whether the list's own wording says something else than the record's title."""
        target = _target(entry)
        if target is None:
            return False
        record = getattr(self.pages.catalog, target[0]).get(target[1])
        title = getattr(record, "title", None) or getattr(record, "name", "")
        return _letters(title) not in _letters(entry.listed_as)


# --- small things -----------------------------------------------------------------------------------------------


def _target(entry: Entry) -> tuple[str, str] | None:
    for kind, id in (("papers", entry.paper), ("codebases", entry.codebase), ("resources", entry.resource)):
        if id:
            return kind, id
    return None


def _spaced(part: str) -> str:
    """Escaped, with the space at either end kept."""
    return " " * part.startswith(" ") + escape.text(part) + " " * (part.endswith(" ") and bool(part.strip()))


def _two_kinds(marks: Iterable[list[bool]]) -> tuple[int, int]:
    """How many are true, and how many are not."""
    counts = Counter(mark for some in marks for mark in some)
    return counts[True], counts[False]


def _letters(value: str) -> str:
    return "".join(character for character in value.casefold() if character.isalnum())


def _place(catalog: Catalog, kind: str, id: str) -> str:
    """The page of a record, from the docs folder; resources of a kind share one."""
    if kind == "resources":
        return f"{_resource_page(catalog.resources[id].kind)}#{escape.anchor(id)}"
    return f"catalog/{kind}/{id}.md"


def _resource_page(kind: str) -> str:
    return f"catalog/resources/{kind.replace(' ', '-')}.md"


def _places(paper: Paper) -> list[tuple[str, str]]:
    found = [
        (f"arXiv:{paper.arxiv}", f"https://arxiv.org/abs/{paper.arxiv}" if paper.arxiv else None),
        (f"doi:{paper.doi}", f"https://doi.org/{paper.doi}" if paper.doi else None),
        ("OpenReview", f"https://openreview.net/forum?id={paper.openreview}" if paper.openreview else None),
        (paper.url or "", paper.url),
    ]
    return [(name, url) for name, url in found if url]


def _glance(method: Method) -> list[tuple[str, str, bool]]:
    """(label, value, whether it asks for something): the requirements, the result and the cost last."""
    r = method.requirements
    data = {"none": "not needed", "unlabeled": "unlabeled", "labeled": "labeled"}[r.data]
    return [
        ("Base model", "needed" if r.base else "not needed", r.base),
        ("Data", data, r.data != "none"),
        ("Gradients", "needed" if r.gradients else "not needed", r.gradients),
        ("Training", "needed" if r.training else "not needed", r.training),
        ("Same initialisation", "needed" if r.same_init else "not needed", r.same_init),
        ("Same architecture", "needed" if r.same_architecture else "not needed", r.same_architecture),
        ("Gives", r.output, False),
        ("At inference", r.inference, False),
    ]


def _front_matter(value: dict[str, object]) -> Markup:
    """As YAML on one line, in ASCII; it is never read as Markdown, and the theme prints it with `| e`."""
    written = json.dumps(value, ensure_ascii=False)
    return Markup("".join(c if " " <= c <= "~" else f"\\U{ord(c):08x}" for c in written))


def _implied(label: str, needs: records.Requirements) -> bool:
    """One initialisation implies one architecture; the method table says it once."""
    return label == "Same architecture" and needs.same_init


def _tag(label: str, value: str) -> str:
    return f"{value} data" if label == "Data" else label.lower()


def _software(id: str, code: Implementation) -> str:
    def plain(value: str) -> str:
        return value.replace("_", "\\_")

    return "\n".join(
        [
            f"@software{{atlas_{id},",
            "  author = {{The Model Fusion Atlas authors}},",
            f"  title = {{{{Model Fusion Atlas: {plain(id)}}}}},",
            f"  version = {{{_version()}}},",
            f"  note = {{{plain(code.path)}}},",
            "}",
        ]
    )


def _version() -> str:
    project = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    return re.search(r'^version = "([^"]+)"', project, re.MULTILINE)[1]
