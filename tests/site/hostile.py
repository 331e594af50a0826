"""A catalog in which every text is an attack, built past the validation that would refuse some of it."""

from __future__ import annotations

import types
import typing
from pathlib import Path

from tools import records
from tools.catalog import TABLES, Catalog

# Each runs `pwned(...)`, or leaves an element or a number behind, where a page takes it for more than text.
PAYLOADS = [
    "<script>pwned()</script>",
    "</title><script>pwned()</script><img src=x onerror=pwned()>",
    '"><img src=x onerror="pwned()">',
    "' onmouseover='pwned()' x='",
    "<svg/onload=pwned()>",
    "[link](javascript:pwned())",
    "[link][1] [1]: javascript:pwned()",
    "![image](x){ onerror=pwned() }",
    "<javascript:pwned()>",
    "word { #pwned .pwned onclick=pwned() }",
    "{: onclick=pwned() }",
    "{{ 7 * 191 }} {{ config }} {% for x in (13,) %}{{ x }}37{% endfor %}",
    '{% include "x" %} {# gone #}',
    "``` { .python onload=pwned() } ```",
    "```html <script>pwned()</script>",
    "`</code><script>pwned()</script>`",
    "$$</div><script>pwned()</script>$$",
    "$\\href{javascript:pwned()}{x}$ \\(x\\) \\[y\\]",
    "# heading #pwned",
    "- item <b id=pwned>",
    "1. item ***bold*** __bold__ ~~gone~~",
    "| a | b | <b id=pwned>",
    '!!! danger "pwned"',
    '??? danger "pwned"',
    ": definition ::: pwned",
    "--- title: pwned ---",
    "--8<-- \"mkdocs.yml\"",
    "<!-- comment --> &lt;b&gt; &amp; &#60;b id=pwned&#62;",
    "*[HTML]: pwned <div markdown id=pwned>**x**</div>",
    "\u0002klzzwxh:0\u0003 \u202egnp\u202c \u200bzero \u2028line",
    "https://example.org/<script>pwned()</script>",
    "javascript:pwned()//https://example.org",
    "@import url(x); }</style><style>*{display:none}",
]

DOCSTRING = """{title} (hostile2024p0).

Idea <script>pwned()</script> `</code><img src=x onerror=pwned()>` and $</span><script>pwned()</script>$ {{{{ 7 * 191 }}}}
[x](javascript:pwned()) {{ onclick=pwned() #pwned }}.

- item <b id=pwned>

Notation: theta_0 <b id=pwned>, F_t [y](javascript:pwned()).

Departures: none <script>pwned()</script>.
"""

FUNCTION = """Do it <script>pwned()</script>.

    $$
    </div><script>pwned()</script> x < y \\\\href{{javascript:pwned()}}{{z}}
    $$

    Args:
        base: | pipe | <b id=pwned> `|` $a | b$, in (0, 1]. Default 0.2: Sec. <script>pwned()</script> | x.

    Returns:
        {{{{ 7 * 191 }}}}

    Raises:
        ValueError: <script>pwned()</script>

    Example:
        ``` <script>pwned()</script>

        >>> print("</code><script>pwned()</script> ```")
        </code><script>pwned()</script> ```
    """


def catalog(root: Path) -> Catalog:
    """One record of each kind for each payload, linked to one another; `root` gets a hostile module for the first."""
    count = range(len(PAYLOADS))
    made: dict[str, dict] = {kind: {} for kind in (*records.KINDS, *TABLES)}
    for i in count:
        ids = {
            "venue": f"venue-{i}",
            "taxonomy": [f"topic-{i}"],
            "introduced_by": f"hostile2024p{i}",
            "papers": [f"hostile2024p{i}", f"hostile2024p{(i + 1) % len(PAYLOADS)}"],
            "methods": [f"hostile_{i}"],
            "method": f"hostile_{(i + 1) % len(PAYLOADS)}",
            "level": 1 + i % 6,
        }
        made["venues"][f"venue-{i}"] = hostile(records.Venue, PAYLOADS[i], ids, kind=_in_turn(records.Venue, "kind", i))
        made["taxonomy"][f"topic-{i}"] = hostile(records.Node, PAYLOADS[i], ids)
        made["papers"][f"hostile2024p{i}"] = hostile(records.Paper, PAYLOADS[i], ids)
        made["redirects"][f"papers/moved2020p{i}"] = hostile(records.Redirect, PAYLOADS[i], {"to": f"papers/hostile2024p{i}"})
        made["methods"][f"hostile_{i}"] = hostile(records.Method, PAYLOADS[i], ids)
        made["codebases"][f"code-{i}"] = hostile(records.Codebase, PAYLOADS[i], ids, kind=_in_turn(records.Codebase, "kind", i))
        made["resources"][f"resource-{i}"] = hostile(records.Resource, PAYLOADS[i], ids, kind=_in_turn(records.Resource, "kind", i))
        targets = [{"paper": f"hostile2024p{i}"}, {"codebase": f"code-{i}"}, {"resource": f"resource-{i}"}, {}]
        nothing = {"paper": None, "codebase": None, "resource": None}
        entries = [hostile(records.Entry, PAYLOADS[i], ids, **(nothing | target)) for target in targets]
        section = hostile(records.Section, PAYLOADS[i], ids, entries=entries)
        made["reading_lists"][f"list-{i}"] = hostile(records.ReadingList, PAYLOADS[i], ids, sections=[section])
    for kind in made.values():
        for id, record in kind.items():
            record._id = id
    module = root / "reference_impls" / "averaging" / "hostile_0.py"
    module.parent.mkdir(parents=True)
    module.write_text(
        f'r"""{DOCSTRING.format(title="Hostile")}"""\n\n\ndef hostile_0(base: "<script>pwned()</script>" = "</code>```"):\n'
        f'    r"""{FUNCTION.format()}"""\n',
        encoding="utf-8",
    )
    (root / "catalog").mkdir()
    rows = (f"hostile2024p{i}\t{(seen := ' '.join(PAYLOADS[i].split()))}\t{seen} too\n" for i in count)
    (root / "catalog" / "sources.tsv").write_text("".join(rows), encoding="utf-8")
    chapters = {id: "averaging" if id == "hostile_0" else "reuse" for id in made["methods"]}
    return Catalog(root=root, folder=root / "catalog", **made, chapters=chapters, sources={}, problems=())


def hostile(model: type[records.Record], payload: str, ids: dict[str, object], **fixed: object) -> records.Record:
    """A record with the payload in every field, those of tomorrow too: values come from the field's type."""
    values = {}
    for name, field in model.model_fields.items():
        if name in fixed:
            values[name] = fixed[name]
        elif name in ids:
            values[name] = ids[name]
        else:
            values[name] = _value(field.annotation, payload, ids)
    return model.model_construct(**values)


def _value(annotation: object, payload: str, ids: dict[str, object]) -> object:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _value(arguments[0], payload, ids)
    if origin in (typing.Union, types.UnionType):
        return _value(next(argument for argument in arguments if argument is not type(None)), payload, ids)
    if origin is typing.Literal:
        return arguments[0]
    if origin is list:
        return [_value(arguments[0], payload, ids)] * 2
    if origin is dict:
        return {_value(arguments[0], payload, ids): _value(arguments[1], payload, ids)}
    if isinstance(annotation, type) and issubclass(annotation, records.Record):
        return hostile(annotation, payload, ids)
    return {str: payload, bool: True, int: 2024}[annotation]


def _in_turn(model: type[records.Record], name: str, number: int) -> str:
    choices = typing.get_args(model.model_fields[name].annotation)
    return choices[number % len(choices)]
