"""The code links of a list: whose they are, and whether they are repositories and labelled so."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tools.importing import same
from tools.importing.items import Item, Link, host_and_path, repository, same_link, shown
from tools.records import Paper
from tools.titles import words

if TYPE_CHECKING:
    from tools.importing.match import Comparison


def code(c: Comparison, number: int, item: Item, paper: Paper | None, id: str | None) -> None:
    for code in item.code:
        if item.category == "paper":
            _link(c, number, code, paper, id)
        found = repository(code.url)
        label = code.label.strip("[]() :")
        if found and label and "code" in item.cells:
            _label(c, code, label, *found[:2])
    if item.category == "project" and item.url and not repository(item.url) and host_and_path(item.url)[0] == "github.com":
        c.say(item.line, "code", f"{shown(item.url)} is a profile and not a repository", "link the repository")


def _link(c: Comparison, number: int, code: Link, paper: Paper | None, id: str | None) -> None:
    host, path = host_and_path(code.url)
    official = official_code(paper)
    found = repository(code.url)
    if host in ("github.com", "gitlab.com") and found is None:
        c.say(code.line, "code", f"{shown(code.url)} is a profile and not a repository", official or "link the repository")
        return
    if host.endswith((".github.io", ".gitlab.io")):
        c.say(code.line, "code", f"{shown(code.url)} is a web page and not a repository", official or "link the repository")
        return
    link = same_link(code.url)
    claims = c.index.code.get(link, [])
    mine = next((claim for claim in claims if claim[0] == id), None)
    if mine:
        if not mine[1]:
            note = next((c.note for c in paper.code if same_link(c.url) == link and c.note), None)
            what = f"the code {shown(code.url)} is not the authors'" + (f" ({note})" if note else "")
            c.say(code.line, "code", what, official or "say so, or leave it out")
        return
    owners = [owner for owner, is_official in claims if is_official]
    if owners:
        what = f"the code {shown(code.url)} is that of {', '.join(owners[:3])}"
        c.say(code.line, "code", what, official or "delete it or find the right one")
        return
    if paper and official:
        whose = next(c.url for c in paper.code if c.official)
        right = repository(whose)
        same = right and found and [p.lower() for p in right[:2]] == [p.lower() for p in found[:2]]
        what = f"the code {shown(code.url)} has another {'path' if same else 'place'} in the catalog"
        c.say(code.line, "code", what, official)
        return
    first = c.match.first
    other = next((c.items[n] for n in c.given[link][:20] if n < number and first[n] != first[number]), None)
    if other:
        what = f"the code {shown(code.url)} is also given to {shown(other.title, 60)} in line {other.line}"
        c.say(code.line, "code", what, "find out whose it is")


def _label(c: Comparison, code: Link, label: str, owner: str, name: str) -> None:
    folded, own, repo = ("".join(words(part)) for part in (label, owner, name))
    if folded == own != repo:
        c.say(code.line, "label", f"the code is labelled with its owner {shown(label, 40)}", f"write {shown(name)}")
        return
    letters, right = (re.sub(r"[^A-Za-z0-9]", "", part) for part in (label, name))
    if letters != right and letters.lower() == right.lower() and not label.islower() and not right.islower():
        c.say(code.line, "label", f"capitals differ in the label {shown(label, 40)}", f"write {shown(name)}")
        return
    for right in (repo, own[: len(folded)], repo[: len(folded)]):
        if folded != right and same.misspelt(folded, right) and folded not in repo and folded not in own:
            good = name if right == repo else (owner if right == own[: len(folded)] else name)
            c.say(code.line, "label", f"the label {shown(label, 40)} looks misspelt", f"the link says {shown(good)}")
            return


def official_code(paper: Paper | None) -> str:
    url = next((code.url for code in paper.code if code.official), None) if paper else None
    return f"the authors' code is {url}" if url else ""
