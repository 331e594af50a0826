"""What is wrong with a list as a whole: mixed spellings and links, and papers below a heading that is not theirs."""

from __future__ import annotations

import difflib
import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from tools.importing.items import OTHER_NAMES, STATUS, shown
from tools.importing.topics import Topics
from tools.titles import words

if TYPE_CHECKING:
    from tools.importing.match import Comparison


def spellings(c: Comparison) -> None:
    """One venue in several spellings, misspelt words beside a venue, PDF and abstract links mixed."""
    if not c.document.lists:
        return
    written: dict[str, Counter[str]] = defaultdict(Counter)
    lines: dict[tuple[str, str], int] = {}
    for item, pub in zip(c.items, c.pubs):
        if item.category != "paper" or not item.pub:
            continue
        if pub.venue:
            names = {n.replace(" ", "") for n in c.index.venues[pub.venue]} | {
                o for o, v in OTHER_NAMES.items() if v == pub.venue
            }
            name = next((w for w in re.findall(r"[A-Za-z]+", item.pub) if w.lower() in names), None)
            if name:
                written[pub.venue][name] += 1
                lines.setdefault((pub.venue, name), item.pub_line)
        for word in pub.rest[:5]:
            near = difflib.get_close_matches(word[:30], STATUS, n=1, cutoff=0.85)
            if word not in STATUS and near:
                c.say(item.pub_line, "venue", f"{shown(word, 40)} looks misspelt", f"write {near[0]}")
    for venue, names in written.items():
        if len(names) > 1:
            right = c.short(venue)
            most = right if right in names else names.most_common(1)[0][0]
            for name, count in sorted((name, count) for name, count in names.items() if name != most):
                what = f"{right} is written {name!r} ({count}) and {most!r} ({names[most]})"
                c.say(lines[venue, name], "label", what, f"write {right}")
    forms: dict[str, list[int]] = {"abs": [], "pdf": []}
    for item in c.items:
        if match := re.search(r"arxiv\.org/(abs|pdf)/", item.url or "", re.I):
            forms[match[1].lower()].append(item.line)
    if all(forms.values()):
        fewer = min(forms, key=lambda form: len(forms[form]))
        what = f"arXiv links are mixed: {len(forms['pdf'])} to the PDF, {len(forms['abs'])} to the abstract"
        c.say(forms[fewer][0], "label", what, "choose one; the abstract always shows the newest version")


def misplaced(c: Comparison) -> None:
    """A paper below a heading whose nodes share nothing with the paper's own."""
    if not c.document.lists:
        return
    topics = Topics(c.catalog)
    suggested = [topics.of(c.document, n) for n in range(len(c.document.headings))]
    filled = {item.heading for item in c.items}
    for n, heading in enumerate(c.document.headings):
        if n in filled:
            nodes, _ = suggested[n]
            what = (
                f"the heading {shown(heading.text, 60)} has the topics {', '.join(nodes)}"
                if nodes
                else (f"no topic of the catalog resembles the heading {shown(heading.text, 60)}")
            )
            mend = "file its papers there" if nodes else "choose the topics of its papers by hand, or propose a new one"
            c.say(heading.line, "topic", what, mend)
    for number, item in enumerate(c.items):
        known = c.match.of[number]
        if item.heading is None or not known or known[0] != "papers":
            continue
        nodes, sure = suggested[item.heading]
        own = c.catalog.papers[known[1]].taxonomy
        named, kind = _kinds(c.document.headings[item.heading].text), c.catalog.papers[known[1]].kind
        if named and kind not in named:
            what = f"{shown(item.title, 60)} stands below {shown(c.document.headings[item.heading].text, 40)}"
            c.say(item.line, "placed", what, f"the catalog calls it a paper of the kind {kind}")
        elif nodes and sure and not {node.split("/")[0] for node in nodes} & {node.split("/")[0] for node in own}:
            what = f"{shown(item.title, 60)} stands below {shown(c.document.headings[item.heading].text, 40)}"
            c.say(item.line, "placed", what, f"the catalog files it under {', '.join(own)}")


def _kinds(heading: str) -> set[str]:
    """The kinds of papers that a heading is for, where it says so: "Surveys and Benchmarks"."""
    names = {"survey": "survey", "benchmark": "benchmark", "toolkit": "tool", "toolbox": "tool", "library": "tool"}
    return {kind for word in words(heading) if (kind := names.get(re.sub(r"ies$", "y", word).removesuffix("s")))}


def capitals(c: Comparison) -> None:
    """Titles in sentence case, said once for the list."""
    lines = []
    for item, known in zip(c.items, c.match.of):
        if known and known[0] == "papers" and c.document.lists:
            title = c.catalog.papers[known[1]].title
            now, right = re.findall(r"[^\W_]+", item.title), re.findall(r"[^\W_]+", title)
            lower = sum(a != b and a == b.lower() for a, b in zip(now, right))
            if [word.lower() for word in now] == [word.lower() for word in right] and lower >= 2:
                lines.append((item.line, title))
    if len(lines) > 2:
        line, title = lines[0]
        what = f"{len(lines)} titles are in small letters that the publications have in capitals"
        c.say(line, "label", what, f"write {shown(title, 120)} here, and so on")


def acronyms(c: Comparison) -> None:
    """Short names in headings whose letters are out of order: LCM for LMC."""
    if not c.document.lists:
        return
    records = (source.text for (kind, _), source in c.catalog.sources.items() if kind != "reading_lists")
    known = {word for text in records for word in words(text) if 3 <= len(word) <= 5}
    for heading in c.document.headings:
        for word in re.findall(r"\b[A-Z]{3,5}\b", heading.text):
            swapped = [word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(len(word) - 1)]
            right = [other for other in swapped if other != word and other.lower() in known]
            if right and word.lower() not in known:
                what = f"{word!r} in the heading {shown(heading.text, 60)} is not in the catalog"
                c.say(heading.line, "heading", what, f"did you mean {right[0]!r}?")
