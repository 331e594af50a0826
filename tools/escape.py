"""Text from records, made inert in a Markdown page.

Records come from strangers and a page is read by three languages: Markdown, HTML and Jinja. HTML escaping alone leaves
`[x](javascript:...)`, `{ onclick=... }` and `{{ ... }}` active. So every character that means something in any of them
becomes a numeric reference, which all three pass on as plain text. The template environment applies this to every value
that a template prints; only `Markup`, which our own functions return, goes through unchanged.
"""

from __future__ import annotations

import re
from pathlib import Path

import jinja2
from markupsafe import Markup

from tools.inert import INVISIBLE, REFERENCES, inert

_CODE = REFERENCES | {ord(c): f"&#{ord(c)};" for c in ".-"} | dict.fromkeys(INVISIBLE, "") | {ord("\n"): "\n", ord("\t"): "    "}


def text(value: object) -> Markup:
    """Escape a plain field: one line that no reader of the page takes for markup.

    Example:
        >>> str(text("- [a](javascript:b) {{ c }}"))
        '&#45; &#91;a&#93;&#40;javascript&#58;b&#41; &#123;&#123; c &#125;&#125;'
    """
    if isinstance(value, Markup):
        return value
    return Markup(inert(value))


def block(value: str) -> Markup:
    """Escape text whose lines matter (BibTeX), for use inside `<pre>`."""
    return Markup(value.translate(_CODE).replace("\n", "&#10;"))


def external(url: str, label: object) -> Markup:
    """A link to another host; anything but http(s) is shown as text and cannot be followed."""
    if not re.match(r"https?://[A-Za-z0-9]", url):
        return text(url)
    return Markup(f'<a class="external" rel="noopener" href="{text(url)}">{text(label)}</a>')


def anchor(id: str) -> Markup:
    """An id of ours as the id of a heading."""
    return Markup(re.sub(r"[^A-Za-z0-9]+", "-", id))


def math(formula: str, display: bool = False) -> Markup:
    """A formula for KaTeX, escaped: the browser's parser restores it, Markdown never sees it."""
    tag, left, right = ("div", "\\[", "\\]") if display else ("span", "\\(", "\\)")
    return Markup(f'<{tag} class="arithmatex">{text(left + formula + right)}</{tag}>')


def inline(value: str, links: dict[str, str] | None = None) -> Markup:
    """A line of a docstring: `code`, $math$ and known ids become code, math and links; all else is plain text."""
    parts = re.split(r"(`[^`\n]+`|\$[^$\n]+\$)", " ".join(value.split()))
    out = []
    for part in parts:
        if len(part) > 2 and part[0] == part[-1] == "`":
            out.append(f"<code>{text(part[1:-1])}</code>")
        elif len(part) > 2 and part[0] == part[-1] == "$":
            out.append(math(part[1:-1]))
        elif part:
            lead, tail = " " * part.startswith(" "), " " * part.endswith(" ")
            out.append(f"{lead}{_linked(part, links or {})}{tail}" if part.strip() else " ")
    return Markup("".join(out))


def _linked(part: str, links: dict[str, str]) -> str:
    words = re.split(r"\b([a-z][a-z0-9_]*[0-9_][a-z0-9_]*)\b", part)
    line = []
    for number, word in enumerate(words):
        if number % 2 and word in links:
            line.append(f"[{text(word)}]({links[word]})")
        elif word:
            line.append(" " * word.startswith(" ") + text(word) + " " * (word.endswith(" ") and bool(word.strip())))
    return "".join(line).strip(" ")


def prose(value: str, links: dict[str, str] | None = None) -> Markup:
    """Paragraphs of a docstring, with `$$` formulas on their own and "- " lists."""
    out = []
    for number, piece in enumerate(re.split(r"\$\$", value)):
        if number % 2:
            out.append(math(" ".join(piece.split()), display=True))
            continue
        for paragraph in re.split(r"\n\s*\n", piece):
            lines = [line.strip() for line in paragraph.strip().splitlines()]
            if not any(lines):
                continue
            if lines[0].startswith("- "):
                items = re.split(r"\n(?=- )", "\n".join(lines))
                out.append("\n".join(f"- {inline(item[2:], links)}" for item in items))
            else:
                out.append(str(inline(" ".join(lines), links)))
    return Markup("\n\n".join(out))


def stacked(value: str) -> str:
    r"""A docstring whose formulas stand one equation below the other, for a narrow column.

    Example:
        >>> stacked(r"$$ a = b, \qquad c = d $$")
        '$$\\begin{aligned} & a = b, \\\\ & c = d \\end{aligned}$$'
    """

    def stack(formula: re.Match) -> str:
        lines = [line.strip() for line in re.split(r"\\qquad\b", formula[1])]
        if len(lines) < 2 or "&" in formula[1] or "\\\\" in formula[1] or any(line.count("{") != line.count("}") for line in lines):
            return formula[0]
        return "$$\\begin{aligned} & " + " \\\\ & ".join(lines) + " \\end{aligned}$$"

    return re.sub(r"\$\$(.*?)\$\$", stack, value, flags=re.DOTALL)


def fence(source: str, language: str) -> Markup:
    """Our own code as a fenced block; the fence is longer than any run of backticks inside."""
    longest = max((len(run) for run in re.findall(r"`+", source)), default=0)
    ticks = "`" * max(3, longest + 1)
    return Markup(f"{ticks} {language}\n{source.strip(chr(10))}\n{ticks}")


def environment() -> jinja2.Environment:
    """Templates print text escaped, whatever they forget."""
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,  # macros and calls then return Markup; values have been through `finalize` by that time
        finalize=text,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    env.filters = {name: env.filters[name] for name in ("length", "list", "sort", "first", "last", "default")}
    env.globals = {"anchor": anchor, "external": external, "block": block, "fence": fence, "inline": inline, "prose": prose, "math": math}
    env.globals["stacked"] = stacked
    return env
