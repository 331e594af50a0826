"""`python -m tools issue FILE`: what somebody wrote into an issue form, as a record or a change of one.

FILE is the event that GitHub hands to a workflow (JSON) or the text of an issue. A record is written only where `check` finds
nothing wrong with it; otherwise everything stays as it was and the exit code is 1. Either way a report in Markdown is printed.
The forms are those of `.github/ISSUE_TEMPLATE`; what strangers wrote is data, and in the report it stands in code blocks.
"""

from __future__ import annotations

import json
import re
import types
import typing
from pathlib import Path

from tools import confirmed, fmt, stable
from tools.catalog import TABLES, Catalog, CatalogError, Problem, load_from
from tools.check import check
from tools.escape import fence
from tools.importing import text_of
from tools.importing.draft import Ids, paper_id
from tools.importing.items import Item, arxiv_id, clean, doi_of, openreview_id, publication
from tools.importing.match import Index
from tools.records import KINDS, nearest

LIMIT = 50_000  # characters of an issue
FORMS = {  # form -> its labels; a test compares them with the files
    "add-paper": (
        "Title",
        "Other titles",
        "Authors",
        "Year",
        "Venue",
        "Volume and pages",
        "Kind",
        "arXiv id",
        "DOI",
        "OpenReview id",
        "Another link",
        "Topics",
        "Code",
        "Whose code",
        "Summary",
        "Confirmed in",
    ),
    "correct-record": ("Record", "Field", "It says", "It should say", "Confirmed in"),
    "add-code": ("Paper", "Code link", "Who wrote it", "Note"),
}
AUTHORS = "the authors of the paper"


def add_parser(commands) -> None:
    parser = commands.add_parser("issue", help="write the record that an issue form asks for")
    parser.add_argument("file", type=Path, metavar="FILE", help="the event of GitHub as JSON, or the text of the issue")
    parser.add_argument("--catalog", type=Path, default=Path("catalog"), metavar="DIR")
    parser.set_defaults(run=run)


def run(args) -> int:
    catalog = load_from(args.catalog)
    text = text_of(args.file)
    try:
        text, number = _issue(text)
        form, answers = read(text)
        files, what = WRITERS[form](catalog, answers)
    except CatalogError as error:
        print(_refusal([str(error)]))
        return 1
    problems = _try(catalog, files)
    if problems:
        print(_refusal([f"{problem.what}; {problem.mend}" for problem in problems]))
        return 1
    print(_report(what, files, answers.get("Confirmed in", ""), number))
    return 0


# --- reading ----------------------------------------------------------------------------------------------------


def _issue(text: str) -> tuple[str, int | None]:
    """The body and the number of an issue; text that is no event is the body itself."""
    try:
        event = json.loads(text)
    except (ValueError, RecursionError):
        return text, None
    issue = event.get("issue") if isinstance(event, dict) else None
    if not isinstance(issue, dict) or not isinstance(issue.get("body"), str) or type(issue.get("number")) is not int:
        raise CatalogError("the event has no issue with a number and a body; give the event of an issue or its text")
    return issue["body"], issue["number"]


def read(body: str) -> tuple[str, dict[str, str]]:
    """The form and its answers by label; what was left empty is missing.

    Example:
        >>> read("### Paper\\n\\nyadav2023ties\\n\\n### Code link\\n\\nhttps://example.org\\n\\n### Note\\n\\n_No response_")
        ('add-code', {'Paper': 'yadav2023ties', 'Code link': 'https://example.org'})
    """
    if len(body) > LIMIT:
        raise CatalogError(f"the issue has {len(body)} characters; a record needs at most {LIMIT}")
    pieces = re.split(r"^### (.+?)[ \t]*$", body.replace("\r\n", "\n"), flags=re.MULTILINE)
    first = pieces[1] if len(pieces) > 1 else ""
    form = next((form for form, labels in FORMS.items() if labels[0] == first), None)
    if form is None:
        raise CatalogError('the issue is not one of the forms; open it with "New issue" and choose a form')
    answers: dict[str, str] = {}
    label = ""
    for heading, text in zip(pieces[1::2], pieces[2::2]):
        if heading in answers:
            raise CatalogError(f"the heading {heading!r} stands twice; keep the headings of the form as they are")
        if heading in FORMS[form]:
            label, answers[heading] = heading, text.strip()
        else:  # a heading of the writer's own belongs to the answer
            answers[label] += f"\n### {heading}{text.rstrip()}"
    return form, {label: text for label, text in answers.items() if text not in ("", "_No response_", "None")}


def _line(text: str) -> str:
    return " ".join(text.split())


def _lines(text: str) -> list[str]:
    """One value a line, without the marks of a list."""
    return [line for raw in text.splitlines() if (line := _line(re.sub(r"^\s*[-*]\s+", "", raw)))]


def _needed(answers: dict[str, str], label: str) -> str:
    if label not in answers:
        raise CatalogError(f"{label!r} is empty; fill it in")
    return answers[label]


# --- what each form asks for ------------------------------------------------------------------------------------

Files = dict[Path, str]


def _add_paper(catalog: Catalog, answers: dict[str, str]) -> tuple[Files, str]:
    title, authors = _line(_needed(answers, "Title")), _lines(_needed(answers, "Authors"))
    year = _line(_needed(answers, "Year"))
    if not re.fullmatch(r"(19|20)\d\d", year):
        raise CatalogError(f"the year is {year[:40]!r}; write four digits")
    record: dict[str, object] = {"title": title, "aliases": _lines(answers.get("Other titles", "")), "authors": authors}
    record |= {"year": int(year), "venue": _venue(catalog, _needed(answers, "Venue"))}
    record |= {"where": _line(answers.get("Volume and pages", "")), "kind": _line(_needed(answers, "Kind"))}
    ids = (("arxiv", "arXiv id", arxiv_id), ("doi", "DOI", doi_of), ("openreview", "OpenReview id", openreview_id))
    for key, label, found in ids:
        text = _line(answers.get(label, ""))
        record[key] = found(text) or re.sub(r"(?<=\d)v\d+$", "", text) if key == "arxiv" else found(text) or text
    record["url"] = _line(answers.get("Another link", ""))
    record["taxonomy"] = [_topic(catalog, text) for text in _lines(_needed(answers, "Topics"))]
    if "Code" in answers:
        record["code"] = [{"url": _line(answers["Code"]), "official": answers.get("Whose code") == AUTHORS}]
    record["summary"] = _line(_needed(answers, "Summary"))
    record = {key: value for key, value in record.items() if value not in ("", [])}
    id = Ids(catalog.ids("papers")).free(paper_id(Item(0, title, authors=authors), int(year)))
    places = _lines(_needed(answers, "Confirmed in"))
    if len(places) != 2:
        raise CatalogError(f"{len(places)} places under 'Confirmed in'; write two, where you saw all of it")
    files = {
        catalog.folder / "papers" / re.search(r"\d{4}", id)[0] / f"{id}.yaml": fmt.canonical("papers", record),
        catalog.folder / confirmed.FILE: confirmed.with_line(catalog.folder, id, *places),
    }
    return files, f"Adds papers/{id}."


def _venue(catalog: Catalog, text: str) -> str:
    text = _line(text)
    if text in catalog.venues:
        return text
    found = publication(text, Index(catalog).venues).venue
    if found is None:
        names = [venue.short for venue in catalog.venues.values()]
        near = nearest(text, [*names, *catalog.venues])
        mend = f"did you mean {near!r}?" if near else "a new venue needs a maintainer"
        raise CatalogError(f"unknown venue {text[:80]!r}; {mend}")
    return found


def _topic(catalog: Catalog, text: str) -> str:
    by_name = {node.name.casefold(): id for id, node in reversed(catalog.taxonomy.items())}
    found = text if text in catalog.taxonomy else by_name.get(text.casefold())
    if found is None:
        near = nearest(text.lower(), [*catalog.taxonomy, *by_name])
        mend = f"did you mean {near!r}?" if near else "choose one of the page Topics"
        raise CatalogError(f"unknown topic {text[:80]!r}; {mend}")
    return found


def _add_code(catalog: Catalog, answers: dict[str, str]) -> tuple[Files, str]:
    kind, id = _record(catalog, _needed(answers, "Paper"))
    if kind != "papers":
        raise CatalogError(f"{kind}/{id} is no paper; name the paper that the code belongs to")
    code = {"url": _line(_needed(answers, "Code link")), "official": answers.get("Who wrote it") == AUTHORS}
    if note := _line(answers.get("Note", "")):
        code["note"] = note
    source = catalog.source(kind, id)
    value = dict(source.value)
    value["code"] = [*value.get("code", []), code]
    return {source.path: fmt.canonical(kind, value)}, f"Adds code to {kind}/{id}."


def _correct(catalog: Catalog, answers: dict[str, str]) -> tuple[Files, str]:
    kind, id = _record(catalog, _needed(answers, "Record"))
    field = _line(_needed(answers, "Field"))
    model = {**KINDS, **TABLES}[kind]
    if field not in model.model_fields:
        near = nearest(field, model.model_fields) or ", ".join(model.model_fields)
        raise CatalogError(f"{kind}/{id} has no field {field[:40]!r}; did you mean {near}?")
    shape = _shape(model.model_fields[field].annotation)
    if shape is None:
        raise CatalogError(f"{field} has parts, which the form cannot change; say what is wrong in an issue of the form Bug")
    source = catalog.source(kind, id)
    whole = dict(source.value)
    value = dict(whole[id]) if kind in TABLES else whole
    before = value.get(field, "")
    says = "\n".join(map(str, before)) if isinstance(before, list) else str(before)
    if "It says" in answers and _line(answers["It says"]) != _line(says):
        raise CatalogError(f"{field} of {kind}/{id} does not say that now but {says[:300]!r}; look at the record again")
    text = answers.get("It should say", "")
    if shape is list:
        value[field] = _lines(text)
    elif shape is int:
        value[field] = int(_line(text)) if re.fullmatch(r"\s*\d{1,9}\s*", text) else _line(text)
    else:
        value[field] = _line(text)
    if not text:
        del value[field]
    if kind in TABLES:
        whole[id] = value
    if (text_now := fmt.canonical(kind, whole)) == source.text:
        raise CatalogError(f"{field} of {kind}/{id} says that already; nothing to change")
    return {source.path: text_now}, f"Changes {field} of {kind}/{id}."


def _shape(annotation: object) -> type | None:
    """list for a list of texts, int, str; None for what has parts of its own."""
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        shapes = {_shape(part) for part in inside if part is not type(None)}
        return shapes.pop() if len(shapes) == 1 else None
    if origin is typing.Annotated:
        return _shape(inside[0])
    if origin is typing.Literal:
        return str
    if origin is list:
        return list if _shape(inside[0]) is str else None
    return annotation if annotation in (str, int) else None


def _record(catalog: Catalog, text: str) -> tuple[str, str]:
    """Kind and id of a record that is named by both, by its id alone, or by the address of its page."""
    text = _line(text)
    match = re.search(rf"(?:^|catalog/)({'|'.join(stable.TARGETS)})/([a-z0-9][a-z0-9_/-]*)", text)
    kind, id = (match[1], match[2].strip("/").removesuffix(".yaml")) if match else ("", text)
    if kind == "papers" or kind == "methods":
        id = id.rpartition("/")[2]
    kinds = [kind] if kind else [kind for kind in stable.TARGETS if id in catalog.ids(kind)]
    if (moved := catalog.redirects.get(f"{kind or 'papers'}/{id}")) and not (kinds and id in catalog.ids(kinds[0])):
        kind, _, id = moved.to.partition("/")
        kinds = [kind]
    if len(kinds) > 1:
        raise CatalogError(f"{id} is a record of {' and of '.join(kinds)}; write {kinds[0]}/{id}")
    if not kinds or id not in getattr(catalog, kinds[0]):
        near = nearest(id[:80], [id for kind in kinds or KINDS for id in catalog.ids(kind)])
        mend = f"did you mean {near!r}?" if near else "write kind/id: papers/yadav2023ties"
        raise CatalogError(f"no record {text[:80]!r}; {mend}")
    return kinds[0], id


WRITERS = {"add-paper": _add_paper, "correct-record": _correct, "add-code": _add_code}


# --- writing ----------------------------------------------------------------------------------------------------


def _try(catalog: Catalog, files: Files) -> list[Problem]:
    """Write the files; where that makes a problem that was not there, put everything back and say which."""
    before = set(check(catalog))
    old = {path: path.read_bytes() if path.exists() else None for path in files}
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            fmt.replace(path, text)
        problems = [problem for problem in check(load_from(catalog.folder)) if problem not in before]
    except BaseException:
        _restore(old)
        raise
    if problems:
        _restore(old)
    return problems


def _restore(old: dict[Path, bytes | None]) -> None:
    for path, data in old.items():
        if data is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(data)


def _report(what: str, files: Files, places: str, number: int | None) -> str:
    parts = [what]
    parts += [fence(text, "yaml") for path, text in files.items() if path.suffix == ".yaml" and len(text) < 20_000]
    if places:
        parts += ["Confirmed in, says who wrote it:", fence(places, "text")]
    parts.append("`python -m tools check` finds nothing wrong. Confirm the facts before you merge.")
    if number is not None:
        parts.append(f"Closes #{number}.")
    return "\n\n".join(parts)


def _refusal(reasons: list[str]) -> str:
    listed = fence("\n".join(f"- {clean(reason)}" for reason in reasons), "text")
    return f"This could not become a record yet:\n\n{listed}\n\nEdit the issue to correct it; every edit is tried again."
