"""What a method's module says about itself, read with `ast`: nothing is imported and nothing is run."""

from __future__ import annotations

import ast
import doctest
import re
from dataclasses import dataclass, field
from pathlib import Path

_SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises", "Example", "Examples", "References", "Note", "Notes")


@dataclass(frozen=True)
class Parameter:
    name: str
    annotation: str | None
    default: str | None  # as written in the signature; None: required
    meaning: str
    range: str | None
    source: str | None  # where the paper gives the default


@dataclass(frozen=True)
class Function:
    name: str
    signature: str
    line: int
    summary: str
    description: str  # what stands between the first line and the first section: the formula and words around it
    parameters: list[Parameter]
    returns: str
    raises: list[tuple[str, str]]
    examples: list[tuple[str, str, str]]  # (prose before, code, output)
    references: list[str]


@dataclass(frozen=True)
class Implementation:
    path: str  # from the root of the project
    source: str
    title: str
    idea: str
    notation: str
    departures: str
    functions: list[Function] = field(default_factory=list)  # public ones, the one named as the module first

    @property
    def main(self) -> Function | None:
        return self.functions[0] if self.functions else None


def read_implementation(path: Path, root: Path) -> Implementation:
    """Parse one module of `reference_impls/`."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    title, idea, labelled = _module_parts(ast.get_docstring(tree) or "")
    public = [
        node
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_") and ast.get_docstring(node)
    ]
    public.sort(key=lambda node: (node.name != path.stem, node.lineno))
    return Implementation(
        path=path.relative_to(root).as_posix(),
        source=source,
        title=title,
        idea=idea,
        notation=_symbols(labelled.get("Notation", "")),
        departures=_sentence(labelled.get("Departures", "")),
        functions=[_function(node) for node in public],
    )


def read_introduction(path: Path, name: str) -> tuple[str, str]:
    """Name and first sentences of a chapter, from the docstring of its `__init__.py`: "Task vectors: edit a base ..."."""
    first = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
    head, colon, rest = " ".join(first.split()).partition(": ")
    if not colon or len(head) > 40:
        return name, " ".join(first.split())
    return head, rest[:1].upper() + rest[1:]


def _module_parts(docstring: str) -> tuple[str, str, dict[str, str]]:
    """Title line, the paragraphs of the idea, and the paragraphs that begin with a label such as `Notation:`."""
    title, _, rest = docstring.partition("\n")
    idea: list[str] = []
    labelled: dict[str, list[str]] = {}
    label = None
    for paragraph in re.split(r"\n\s*\n", rest.strip()):
        found = re.match(r"(Notation|Departures?|References):\s*", paragraph)
        if found:
            label = "Departures" if found[1].startswith("Departure") else found[1]
            paragraph = paragraph[found.end() :]
        (labelled.setdefault(label, []) if label else idea).append(paragraph)
    return title.strip().rstrip("."), "\n\n".join(idea), {key: "\n\n".join(value) for key, value in labelled.items()}


_GREEK = "alpha|beta|gamma|delta|epsilon|eta|theta|lambda|mu|nu|pi|rho|sigma|tau|phi|psi|omega|Sigma|Delta|Phi|Omega|Theta|Lambda"


def _symbols(notation: str) -> str:
    """Symbols spelled out in a docstring (theta_0, F_t, tau_t) as the mathematics they stand for."""
    words = rf"(?<![\w$\\])(?:(?:{_GREEK})(?:_\w+)?|[A-Za-z](?=[_^])(?:_\w+)?)(?:\^\w+)?(?![\w$^])"
    parts = re.split(r"(\$[^$]*\$|`[^`]*`)", notation)
    return "".join(part if number % 2 else re.sub(words, _symbol, part) for number, part in enumerate(parts))


def _symbol(found: re.Match) -> str:
    word, _, upper = found[0].partition("^")
    letter, _, lower = word.partition("_")
    lower = lower.replace("_", ",")
    command = chr(92) * (len(letter) > 1)
    return f"${command}{letter}{f'_{{{lower}}}' if lower else ''}{f'^{{{upper}}}' if upper else ''}$"


def _sentence(value: str) -> str:
    return value[:1].upper() + value[1:]


def _function(node: ast.FunctionDef | ast.ClassDef) -> Function:
    docstring = ast.get_docstring(node) or ""
    summary, _, body = docstring.partition("\n")
    description, sections = _split_sections(body)
    call = node if isinstance(node, ast.FunctionDef) else _initialiser(node)
    returns = ast.unparse(node.returns) if isinstance(node, ast.FunctionDef) and node.returns else None
    return Function(
        name=node.name,
        signature=_signature(node.name, call, returns),
        line=node.lineno,
        summary=summary.strip(),
        description=description,
        parameters=_parameters(call, _items(sections.get("Args", sections.get("Attributes", "")))),
        returns=sections.get("Returns", ""),
        raises=_items(sections.get("Raises", "")),
        examples=_examples(sections.get("Example", sections.get("Examples", ""))),
        references=[line.strip() for line in sections.get("References", "").splitlines() if line.strip()],
    )


def _initialiser(node: ast.ClassDef) -> ast.FunctionDef | None:
    return next((item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"), None)


def _split_sections(body: str) -> tuple[str, dict[str, str]]:
    parts: dict[str, list[str]] = {"": []}
    current = ""
    for line in body.splitlines():
        heading = re.fullmatch(r"([A-Z][a-z]+):", line)
        if heading and heading[1] in _SECTIONS:
            current = heading[1]
            parts[current] = []
        else:
            parts[current].append(line)
    dedented = {name: _dedent(lines) for name, lines in parts.items()}
    return dedented.pop(""), dedented


def _dedent(lines: list[str]) -> str:
    margin = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return "\n".join(line[margin:] for line in lines).strip("\n")


def _items(section: str) -> list[tuple[str, str]]:
    """`name: text` entries; further lines of an entry are indented. The type in `name (type): text` is dropped."""
    items: list[list[str]] = []
    for line in section.splitlines():
        head = re.match(r"(\*{0,2}[A-Za-z_][\w.]*(?:, \w+)*)(?: \([^)]*\))?: ?(.*)", line)
        if head and not line[0].isspace():
            items.append([head[1], head[2]])
        elif items and line.strip():
            items[-1][1] += " " + line.strip()
    return [(name, value) for name, value in items]


def _arguments(call: ast.FunctionDef | None) -> list[tuple[ast.arg, ast.expr | None]]:
    if call is None:
        return []
    positional = [*call.args.posonlyargs, *call.args.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(call.args.defaults))
    pairs = [*zip(positional, defaults + list(call.args.defaults)), *zip(call.args.kwonlyargs, call.args.kw_defaults)]
    return [(argument, default) for argument, default in pairs if argument.arg not in ("self", "cls")]


def _source(expression: ast.expr) -> str:
    """The expression as it is written in this project, with double quotes."""
    return ast.unparse(expression).replace("'", '"')


def _signature(name: str, call: ast.FunctionDef | None, returns: str | None) -> str:
    """One argument a line, so that it fits a narrow screen."""
    keyword_only = {argument.arg for argument in call.args.kwonlyargs} if call else set()
    lines = []
    for argument, default in _arguments(call):
        if argument.arg in keyword_only and "    *," not in lines:
            lines.append("    *,")
        annotation = f": {_source(argument.annotation)}" if argument.annotation else ""
        equals = f" = {_source(default)}" if default is not None else ""
        lines.append(f"    {argument.arg}{annotation}{equals},")
    arrow = f" -> {returns}" if returns else ""
    return "\n".join([f"{name}(", *lines, f"){arrow}"]) if lines else f"{name}(){arrow}"


def _parameters(call: ast.FunctionDef | None, described: list[tuple[str, str]]) -> list[Parameter]:
    texts = {single: value for name, value in described for single in name.lstrip("*").split(", ")}
    return [
        Parameter(
            argument.arg,
            _source(argument.annotation) if argument.annotation else None,
            _source(default) if default is not None else None,
            *_meaning(texts.get(argument.arg, ""), _choices(argument.annotation)),
        )
        for argument, default in _arguments(call)
    ]


def _choices(annotation: ast.expr | None) -> str | None:
    """The values that a `Literal` allows."""
    found = re.fullmatch(r"Literal\[(.*)\](?: \| None)?", _source(annotation)) if annotation else None
    return ", ".join(f"`{choice}`" for choice in found[1].split(", ")) if found else None


def _meaning(value: str, choices: str | None) -> tuple[str, str | None, str | None]:
    """Split "what it is, in (0, 1]. Default 0.2: Sec. 6." into meaning, range and source."""
    found = re.search(r"(?:^|(?<=[.;)\]\"] ))Default\b", value)
    source = None
    if found:
        rest = value[found.end() :].strip()
        source = _after_default(rest).rstrip(".") or None
        value = value[: found.start()]
    value = value.strip().rstrip(".;")
    range_ = choices
    allowed = re.search(r"[,;] (in [\[(][^\])]+[\])][^.;]*|(?:n |at least |>=? ?|<=? ?)[^.;,]*\d[^.;,]*|in \{[^}]+\})$", value)
    if allowed:
        range_, value = allowed[1].removeprefix("in "), value[: allowed.start()]
    return value, range_, source


def _after_default(rest: str) -> str:
    """What follows the value and a colon, semicolon or comma: "Sec. 6" of `0.2: Sec. 6` and of `"global"; Sec. 6`."""
    found = re.match(r"""(?:"[^"]*"|'[^']*'|\([^)]*\)|\[[^\]]*\]|`[^`]*`|[^:;,])*?[:;,]\s""", rest + " ")
    return rest[found.end() :].strip() if found else ""


def _examples(section: str) -> list[tuple[str, str, str]]:
    if not section.strip():
        return []
    out: list[tuple[str, str, str]] = []
    words, code = "", ""
    for part in doctest.DocTestParser().parse(section):
        if isinstance(part, str):
            if part.strip():
                if code:
                    out.append((words, code, ""))
                    code = ""
                words = part.strip()
        else:
            code += re.sub(r"\s*# doctest:.*", "", part.source) if "# doctest:" in part.source else part.source
            code = code if code.endswith("\n") else code + "\n"
            if part.want or part.exc_msg:
                out.append((words, code, part.want.rstrip("\n")))
                words, code = "", ""
    if code or words:
        out.append((words, code, ""))
    return out
