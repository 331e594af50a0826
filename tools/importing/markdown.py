"""Read a list in Markdown: the entries of its bullets, tables and paragraphs, with the line of each.

The text becomes blocks (tools/importing/blocks.py), and blocks become items here. Nothing here knows the catalog.
"""

from __future__ import annotations

import re
from dataclasses import replace as changed

from tools.importing import faults
from tools.importing.blocks import Block, Bullet, Paragraph, Row, Table, blocks_of, lines_of, references_of
from tools.importing.inline import Part, parts, unmarked
from tools.importing.items import (
    LONGEST_TITLE,
    Document,
    Heading,
    Item,
    Link,
    arxiv_id,
    clean,
    doi_of,
    is_paper_link,
    openreview_id,
    repository,
    shown,
)


def read(text: str) -> Document:
    document = Document()
    lines = lines_of(text, document)
    references = dict(references_of(lines))
    blocks = list(blocks_of(lines, document))
    _Reader(document, references).read(blocks)
    faults.bold(lines, document)
    faults.headings(document)
    faults.anchors(lines, references, document)
    document.findings.sort()
    return document


# --- from blocks to items ---------------------------------------------------------------------------------------

GENERIC = set(
    "paper papers pdf arxiv link links abs abstract html openreview proceedings doi url page here read "
    "full text version preprint "
    "code github official repo repository implementation project homepage home website site pytorch "
    "tensorflow jax unofficial source "
    "dataset data datasets models model demo video slides blog poster bibtex cite colab notebook "
    "supplementary supp appendix star stars "
    "simple hugging huggingface hf weights checkpoints talk youtube twitter the and of acl anthology "
    "download webpage web gitlab".split()
)
CODE_WORDS = set(
    "code github repo repository implementation official codebase pytorch tensorflow jax gitlab unofficial source".split()
)
OTHER_WORDS = set(
    "dataset data datasets models demo video slides blog poster bibtex cite colab notebook hugging huggingface hf talk".split()
)
KEYS = {
    "code": "code github repo repository official implementation codebase",
    "keywords": "keyword keywords tags tag",
    "pub": "venue publication publisher published conference journal pub date",
    "authors": "author authors by",
    "paper": "paper pdf arxiv link url",
    "other": "task tasks tldr abstract note summary notes description env environment experiment dataset datasets",
}
COLUMNS = {
    "title": "title",
    "code": "code github repo repository implementation codebase",
    "pub": "pub publication venue conference journal published publisher where",
    "date": "date year time",
    "authors": "author authors",
    "link": "link links pdf url arxiv",
    "paper": "paper papers work reference article",
    "name": "name method model approach",
}
_DATED = re.compile(
    r"^[A-Za-z][\w .,&'’()*/-]{0,60}?['’ ]?(?:(?:19|20)?\d\d)"
    r"(?:[ ,-]+(?:spotlight|oral|poster|workshop|findings|best paper)[\w ]*)?$",
    re.I,
)


def _is_date_or_venue(text: str) -> bool:
    """Whether a tag such as ICLR23, NeurIPS 2024 or arXiv 24.05 says where a work appeared."""
    text = text.strip(" *_[]()")
    return len(text) <= 70 and bool(_DATED.match(text) or re.fullmatch(r"(?i)arxiv[ ,]*(\d\d[./]\d\d)?", text))


def _words(label: str) -> set[str]:
    return set(re.findall(r"[^\W\d_]+", label.casefold()))


def _is_generic(part: Part) -> bool:
    """Whether a label only says what kind of link it is."""
    label = unmarked(part.text).strip("[]() ")
    words = _words(label) | set(re.findall(r"[a-z]+", " ".join(re.findall(r":([\w-]+):", part.text)).lower()))
    return part.image or words <= GENERIC or not words or (len(words) <= 4 and _is_date_or_venue(label))


def _is_code(part: Part) -> bool:
    words = _words(unmarked(part.text)) | _words(" ".join(re.findall(r":([\w-]+):", part.text)))
    if words & OTHER_WORDS:
        return False
    return bool(words & CODE_WORDS) or (repository(part.url) is not None and not is_paper_link(part.url))


class _Reader:
    def __init__(self, document: Document, references: dict[str, str]):
        self.document, self.references = document, references
        self.heading: int | None = None
        self.said: set[int] = set()  # headings with something below them

    def read(self, blocks: list[Block]) -> None:
        seen = -1
        for block in blocks:
            if isinstance(block, Heading):
                seen += 1
                self.heading = seen
            elif isinstance(block, Table):
                self.table(block)
            elif isinstance(block, Bullet):
                self.bullet(block, self.heading, 0)
            else:
                self.paragraph(block)
        self.empty_sections()

    def parts(self, text: str, line: int) -> list[Part]:
        found = parts(text, self.references)
        for part in found:
            if part.url is None:
                continue
            if not part.target and not part.image:
                self.document.say(
                    line, "markdown", f"the link {shown(part.text, 50)} leads nowhere", "give it an address or delete it"
                )
            if part.text != part.text.strip():
                self.document.say(line, "markdown", f"space at the edge of the link text {shown(part.text, 50)}", "delete it")
            if part.url.startswith("http://") and (is_paper_link(part.url) or repository(part.url)):
                self.document.say(line, "markdown", f"{shown(part.url)} is an http link", "write https")
        return [changed(part, url=None, text=part.text) if part.url is not None and not part.target else part for part in found]

    # --- tables

    def table(self, table: Table) -> None:
        names = [unmarked(cell) for cell in table.header]
        roles = _roles(names)
        for row in table.rows:
            if not any(cell.strip() for cell in row.cells):
                self.document.say(row.line, "markdown", "a blank row in the table", "delete it")
                continue
            if len(row.cells) > len(names):
                what = f"a row of {len(row.cells)} cells in a table of {len(names)}"
                self.document.say(row.line, "markdown", what, "what is too much is not shown: mend the row")
            self.said.add(-1 if self.heading is None else self.heading)
            self.row(row, roles)

    def row(self, row: Row, roles: dict[str, int]) -> None:
        cells = {role: row.cells[at] if at < len(row.cells) else "" for role, at in roles.items()}
        found = {role: self.parts(cell, row.line) for role, cell in cells.items()}
        title = found.get("title", [])
        item = _entry(title, row.line) or Item(row.line, _title(cells.get("title", "")))
        if not item.title:
            return
        item.links += [Link(part.text, part.url, row.line) for part in found.get("link", []) if part.url and not _is_code(part)]
        code = found.get("code", []) + [part for part in found.get("name", []) if part.url and repository(part.url)]
        item.code += [
            Link(part.text, part.url, row.line)
            for part in code + found.get("link", [])
            if part.url and (part in code or _is_code(part))
        ]
        if not any(part.url for part in code):
            words = clean(unmarked("".join(part.text for part in code))).strip("-–—/ ")
            item.code_text = "" if words.lower() in ("null", "none", "n/a", "na", "no", "tbd", "x", "✗", "❌") else words
        pubs = [unmarked("".join(part.text for part in found.get(role, []))) for role in ("pub", "date")]
        item.pub = clean(" ".join(text for text in pubs if text)).strip("-–—/ ") or item.pub
        item.authors = item.authors or _authors(unmarked("".join(part.text for part in found.get("authors", []))))
        item.cells = frozenset(role for role in ("code", "pub") if role in roles or (role == "pub" and "date" in roles))
        self.add(item, self.heading, " ".join(row.cells))

    # --- bullets

    def bullet(self, bullet: Bullet, heading: int | None, depth: int) -> None:
        found = self.parts(bullet.text, bullet.line)
        if bullet.text.strip():
            self.said.add(-1 if heading is None else heading)
        if all(part.url is None or part.url.startswith("#") for part in found) and any(part.url for part in found):
            for child in bullet.children[:500] if depth < 30 else []:
                self.bullet(child, heading, depth + 1)
            return  # an entry of a table of contents
        item = _entry(found, bullet.line)
        if item is None:
            if bullet.children and depth < 6:
                below = self.bullet_heading(bullet, found, heading, depth)
                for child in bullet.children:
                    self.bullet(child, below, depth + 1)
            return
        later = []
        for child in bullet.children:
            if not self.attribute(item, child):
                later.append(child)
        self.add(item, heading, " ".join([bullet.text, *(child.text for child in bullet.children)]))
        for child in later if depth < 30 else []:
            self.bullet(child, heading, depth + 1)

    def bullet_heading(self, bullet: Bullet, found: list[Part], heading: int | None, depth: int) -> int:
        """A bullet without a link that has bullets below it is a heading of the list."""
        text = clean(unmarked("".join(part.text for part in found))).rstrip(":")
        level = min(6, (self.document.headings[heading].level if heading is not None else 0) + 1)
        self.document.headings.append(Heading(bullet.line, level, text, heading))
        self.said.add(len(self.document.headings) - 1)
        return len(self.document.headings) - 1

    def attribute(self, item: Item, child: Bullet) -> bool:
        """Take what a bullet below an entry says about it; false where it is an entry of its own."""
        key, colon, _ = child.text.partition(":")
        words = _words(unmarked(key)) if colon and len(key) < 40 else set()
        role = next((role for role, names in KEYS.items() if words and words <= set(names.split())), None)
        found = self.parts(child.text, child.line)
        plain = clean(unmarked("".join(part.text for part in found if part.url is None)))
        links = [Link(part.text, part.url, child.line) for part in found if part.url and not part.image]
        value = plain.partition(":")[2].strip() if role else plain
        if role == "code":
            item.code += links
        elif role == "keywords":
            item.keywords += [word.strip() for word in value.split(",") if word.strip()]
        elif role == "pub":
            item.pub, item.pub_line = value or item.pub, child.line
        elif role == "paper":
            item.links += [link for link in links if not repository(link.url)]
        elif role == "authors":
            item.authors = item.authors or _authors(value)
        elif role is None and not links:
            if _is_date_or_venue(plain):
                item.pub, item.pub_line = item.pub or plain, child.line
            else:
                item.authors = item.authors or _authors(plain)
        elif role is None:
            if found and found[0].url and is_paper_link(found[0].url) and not _is_generic(found[0]):
                return False
            item.code += [link for part, link in zip([p for p in found if p.url and not p.image], links) if _is_code(part)]
            item.links += [link for link in links if is_paper_link(link.url)]
        return True

    # --- paragraphs

    def paragraph(self, paragraph: Paragraph) -> None:
        self.said.add(-1 if self.heading is None else self.heading)
        lines = paragraph.text.split("\n")
        if len(lines) > 1 and re.fullmatch(r"\s*\*\*[^*]{10,300}\*\*\s*\\?", lines[0]):
            lines = [" . ".join(line.rstrip("\\ ") for line in lines)]  # a title, its authors and its links, one below the other
        for offset, text in enumerate(lines):
            found = self.parts(text, paragraph.line + offset)
            papers = [part for part in found if part.url and is_paper_link(part.url)]
            lead = next((part for part in found if part.url or part.text.strip()), None)
            whole = "".join(part.text for part in found if not part.url)
            for bracket in re.findall(r"\[([^\[\]]{20,200})\]", whole):
                if len(bracket.split()) > 3:
                    mend = "link it or delete the brackets"
                    self.document.say(paragraph.line + offset, "markdown", f"{shown(bracket)} in brackets is no link", mend)
            named = next((part for part in papers if not _is_generic(part) and len(_words(part.text)) > 2), None)
            entry = papers and (
                (named and (re.match(r"\s*\[?\d{1,3}[\].)]\s", text) or _authors(_before(found, named))))
                or (lead in papers and len(_words(lead.text)) > 2)
                or (_is_generic(papers[0]) and (len(whole) < 250 and len(_words(whole)) > 3))
            )
            if entry and (item := _entry(found, paragraph.line + offset)):
                self.add(item, self.heading, text)

    # --- all of them

    def add(self, item: Item, heading: int | None, text: str) -> None:
        paper = bool(item.url and is_paper_link(item.url)) or any(is_paper_link(link.url) for link in item.links)
        item.cut = bool(re.search(r"\bet\.? ?al\b", text, re.I))
        if item.url:
            text = ""  # ids of other works may stand in what is said about it
        if not paper and not item.pub and not (arxiv_id(text) or openreview_id(text) or doi_of(text)):
            first = item.url or (item.code[0].url if item.code else None)
            if item.url is None and item.code:
                item.url = item.code[0].url
            item.category = "project" if first and repository(first) else "resource" if first else "paper"
        elif item.url is None and item.code and not item.links and not paper and not re.search(r"\d", item.pub):
            item.category, item.url = "project", item.code[0].url
        if match := re.match(r"\(\d{1,4}\+?\) ", item.title):
            what = f"the label begins with a count of notifications, {match[0].strip()}"
            self.document.say(item.line, "label", what, f"write {shown(item.title[match.end() :])}")
            item.title = item.title[match.end() :]
        item.heading, item.text = heading, text[:2000]
        item.__post_init__()
        self.document.items.append(item)

    def empty_sections(self) -> None:
        document = self.document
        inner = {heading.parent for heading in document.headings}
        for index, heading in enumerate(document.headings):
            if index not in inner and index not in self.said:
                document.say(
                    heading.line, "section", f"the section {shown(heading.text)} is empty", "fill it or delete its heading"
                )


def _roles(names: list[str]) -> dict[str, int]:
    roles: dict[str, int] = {}
    for at, name in enumerate(names):
        words = _words(name)
        for role, known in COLUMNS.items():
            if words & set(known.split()) and role not in roles:
                roles[role] = at
                break
    if "paper" in roles:
        roles.setdefault("link" if "title" in roles else "title", roles.pop("paper"))
    if "title" not in roles and "name" in roles:
        roles["title"] = roles.pop("name")
    roles.setdefault("title", next((at for at in range(len(names)) if at not in roles.values()), 0))
    return roles


_QUOTED = re.compile(r"[“\"]([^“”\"]{12,300})[”\"]")
_TAGS = re.compile(r"^\s*(?:[\[(【]([^\[\]()【】]{1,60})[\])】]|\*\*([^*\[\]]{1,40})\*\*(?=\s*[\[:]))[\s:,-]*")


def _entry(found: list[Part], line: int) -> Item | None:
    """The item that inline text describes: a title, where it leads, code, where and when it appeared."""
    links = [part for part in found if part.url and not part.url.startswith(("#", "mailto:"))]
    plain = " ".join(part.text for part in found if part.url is None)
    quoted = _QUOTED.search(plain)
    pub, url, title = "", None, ""
    if quoted and len(_words(quoted[1])) >= 3:
        title = quoted[1]
        behind = " ".join(part.text for part in found)
        pub = behind[behind.find(quoted[1]) + len(quoted[1]) :].strip(' ”",.')[:200]
        papers = [part for part in links if is_paper_link(part.url)]
        url = papers[0].url if papers else None
        authors = _authors(unmarked(plain[: quoted.start()]))
    else:
        named = [part for part in links if not _is_generic(part) and part.text.strip()]
        chosen = next((part for part in named if is_paper_link(part.url)), None) or next(iter(named), None)
        authors = []
        if (
            chosen is not None
            and repository(chosen.url)
            and _text_title(found)
            and any(is_paper_link(part.url) for part in links)
        ):
            chosen = None  # "TITLE [Paper](..) [Name](repository)"
        if chosen is not None:
            title, url = chosen.text, chosen.url
        elif links:
            title = _text_title(found)
            papers = [part for part in links if not _is_code(part) and not part.image]
            url = next((part.url for part in papers if is_paper_link(part.url)), None)
            if url is None and papers and not _words(papers[0].text) & OTHER_WORDS:
                url = papers[0].url
        elif (ids := arxiv_id(plain) or doi_of(plain)) or _is_date_or_venue((_TAGS.match(plain) or ["", ""])[1] or ""):
            title = _text_title(found)
            url = f"https://arxiv.org/abs/{ids}" if ids and arxiv_id(plain) else None
        pub = _venue_tag(found) or _behind(found, title)
        if chosen is not None:
            authors = _authors(_before(found, chosen)) or _authors_behind(found, chosen)
        else:
            title, authors, pub = _bare(title, pub)
    if not _words(title):
        return None
    code = [Link(part.text, part.url, line) for part in links if part.url != url and not part.image and _is_code(part)]
    rest = [part for part in links if part.url != url and not _is_code(part) and is_paper_link(part.url)]
    item = Item(line, _title(title), url, [Link(part.text, part.url, line) for part in rest], code, pub=pub, authors=authors)
    return item if item.title else None


def _venue_tag(found: list[Part]) -> str:
    """The first bracketed, bold or slanted piece, or label, that says where the work appeared."""
    for part in found:
        if part.url is not None and _is_date_or_venue(unmarked(part.text)):
            return clean(unmarked(part.text).strip("[]() "))
        for match in re.finditer(
            r"[\[(【]([^\[\]()【】]{3,60})[\])】]|\*{1,2}([^*]{3,60})\*{1,2}|_([^_]{3,60})_",
            part.text if part.url is None else "",
        ):
            text = match[1] or match[2] or match[3]
            if _is_date_or_venue(text):
                return clean(unmarked(text))
    return ""


def _before(found: list[Part], chosen: Part) -> str:
    """What stands before a linked title, without the number of a reference: its authors, perhaps."""
    text = unmarked("".join(part.text for part in found[: found.index(chosen)] if part.url is None))
    return re.sub(r"^\s*\[?\d{1,3}[\].)]\s*", "", text).strip(" “\"‘',:")


def _authors_behind(found: list[Part], chosen: Part) -> list[str]:
    """Two names or more between a linked title and the next bracket: "- Ana One, Bo Two (ICML 2023)"."""
    after = next((part.text for part in found[found.index(chosen) + 1 :] if part.url is None), "")
    match = re.match(r"[\s*_]*(?:[-–—:,]|by\b)([^()\[\]]{5,2000})", after)
    names = _authors(unmarked(match[1])) if match else []
    return names if len(names) > 1 else []


def _behind(found: list[Part], title: str) -> str:
    """Where a work appeared, in plain text behind its title: ", NeurIPS 2021." or `," in Proc. KDD, 2017, pp. 1-9.`"""
    at = next((number for number, part in enumerate(found) if title and title in part.text), None)
    if at is None:
        return ""
    here = found[at].text.partition(title)[2] if found[at].url is None else ""
    text = here + "".join(part.text for part in found[at + 1 :] if part.url is None)
    text = clean(unmarked(text)).strip(" ”\"’',.;:[]()|")
    if re.match(r"in (the )?(proc|\d{4}|[A-Z])|arxiv(:| preprint)", text, re.I) and re.search(r"(19|20)\d\d", text):
        return text[:200]
    pieces = (piece.strip(" ,()") for piece in re.split(r"[.;|\[\]]|, (?=\D)", text)[:6])
    return next((piece for piece in pieces if _is_date_or_venue(piece)), "")


def _text_title(found: list[Part]) -> str:
    """The title where it is plain text beside the links."""
    text = " ".join(part.text for part in found if part.url is None)
    for bold in re.findall(r"\*\*([^*]{10,300})\*\*", text):
        if len(_words(bold)) > 2 and not _is_date_or_venue(bold):
            return bold
    while match := _TAGS.match(text):
        text = text[match.end() :]
    text = re.sub(r"[\[(]\s*[|,/]*\s*[\])]", " ", text)
    return text.rstrip(" \n\u00a0|:,;.[](){}–—-")


def _bare(title: str, pub: str) -> tuple[str, list[str], str]:
    """(title, authors, pub) of "Author et al. Title. Venue 2023": what stands around a title in plain text."""
    title, authors = clean(unmarked(title)), []
    while (cut := max(title.rfind(". "), title.rfind(", "))) > 10 and _is_date_or_venue(title[cut + 2 :]):
        pub, title = pub or title[cut + 2 :], title[:cut]
    if match := re.match(r"([^.:]{2,40}?),? et\.? ?al\.?[,:]? ", title):
        authors, title = [match[1]], title[match.end() :]
    return title, authors, pub


def _title(text: str) -> str:
    """A title without what sites and lists put around it."""
    text = clean(unmarked(text))
    text = re.sub(r"^\[?(?:arxiv:?\s?)?\d{4}\.\d{4,5}(?:v\d+)?\]?\s*[:.-]?\s*", "", text, flags=re.I)
    text = re.sub(r"^\W*Paper page\s*[-–—:]\s*", "", text, flags=re.I)
    text = re.sub(r"\s*\((?:[a-z0-9-]+\.)+[a-z]{2,8}\)$", "", text, flags=re.I)
    text = re.sub(r"^[^\w“\"'$\[({¿¡]+", "", text)
    while match := re.match(r"^[\[【]([^\[\]【】]{2,60})[\]】]\s*", text):
        if not _is_date_or_venue(match[1]):
            break
        text = text[match.end() :]
    if re.fullmatch(r"[\[(“\"].*[\])”\"]", text) and len(text) < 300:
        text = text[1:-1]
    return text.rstrip(" .,;:|").strip()[:LONGEST_TITLE] if not text.endswith("...") else text[:LONGEST_TITLE]


def _authors(text: str) -> list[str]:
    """Names from "A. One, B. Two, and C. Three"; none where the text is something else."""
    text = clean(text).strip(" .,")
    names = [
        re.sub(r"^(and|&)\s+|\.\.\.$|\s+et\.? ?al\.?$", "", name.strip()).strip()
        for name in re.split(r",|;|\s+and\s+|\s+&\s+", text[:3000])
    ]
    names = [name for name in names if name and name.lower() not in ("et al", "et al.", "others")]
    if not names or not all(len(name.split()) <= 6 and name[0].isupper() and len(name) <= 60 for name in names):
        return []
    return names if len(names) > 1 or 2 <= len(names[0].split()) <= 4 else []
