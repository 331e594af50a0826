import re
from html.parser import HTMLParser

import markdown
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.site.building import ROOT
from tests.site.hostile import PAYLOADS
from tools import escape

ACTIVE = "&<>\"'`\\{}[]()_*#:|~^=$!@+%-.1a \n\t?;/,"


def converter() -> markdown.Markdown:
    settings_ = yaml.safe_load(re.sub(r"!!\S+|!ENV", "", (ROOT / "mkdocs.yml").read_text()))
    names, options = [], {}
    for extension in settings_["markdown_extensions"]:
        name, option = next(iter(extension.items())) if isinstance(extension, dict) else (extension, {})
        names.append(name)
        options[name] = option
    return markdown.Markdown(extensions=names, extension_configs=options)


MARKDOWN = converter()
CONTEXTS = {
    "heading": ("# {}\n", "h1"),
    "paragraph": ("{}\n", "p"),
    "list": ("- {}\n", "li"),
    "numbered": ("1. {}\n", "li"),
    "cell": ("| head |\n| --- |\n| {} |\n", "td"),
    "term": ("{}\n:   about\n", "dt"),
    "definition": ("term\n:   {}\n", "dd"),
    "span": ('<p class="a">{}</p>\n', "p"),
    "inside": ('<div class="a" markdown>\n\n{}\n\n</div>\n', "p"),
    "link": ("[{}](https://example.org/)\n", "a"),
    "attribute": ('<a title="{}">x</a>\n', None),
    "admonition": ('!!! note "t"\n    {}\n', "p"),
}


class Reader(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self.titles = [], {}, []
        self.open = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.titles += [value for name, value in attributes if name == "title"]
        self.open.append(tag)
        assert not any(name.startswith("on") for name, _ in attributes)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        for tag in set(self.open):
            self.text[tag] = self.text.get(tag, "") + data


def shown(value: str) -> str:
    """What a reader should see: the text itself, runs of space and invisible characters as one space."""
    return " ".join("".join(" " if ord(c) in escape.INVISIBLE else c for c in value).split())


def check(context: str, value: str) -> None:
    template, tag = CONTEXTS[context]
    reader = Reader(MARKDOWN.reset().convert(template.format(escape.text(value))))
    if tag is None:
        assert [shown(title) for title in reader.titles] == [shown(value)]
        return
    text = reader.text.get(tag, "").replace("¶", "", 1) if tag == "h1" else reader.text.get(tag, "")
    if context == "admonition":
        text = text.removeprefix("t")
    assert " ".join(text.split()) == shown(value)
    plain = Reader(MARKDOWN.reset().convert(template.format("word")))
    assert reader.tags == plain.tags, f"{value!r} became markup"


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("payload", PAYLOADS)
def test_an_attack_is_shown_as_text(payload, context):
    check(context, payload)


@given(st.text(alphabet=st.one_of(st.sampled_from(ACTIVE), st.characters(codec="utf-8")), min_size=1, max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_text_is_shown_as_itself_wherever_a_template_puts_it(value):
    if shown(value) and not re.search(r"[^\S ]", shown(value)) and "¶" not in value:
        for context in CONTEXTS:
            check(context, value)


@given(st.text(alphabet=st.one_of(st.sampled_from(ACTIVE), st.characters(codec="utf-8")), max_size=80))
@settings(max_examples=150, deadline=None)
def test_bibtex_keeps_its_lines_and_characters(value):
    kept = "".join(c for c in value.replace("\r", "") if c == "\n" or ord(c) not in escape.INVISIBLE or c == "\t").expandtabs(1)
    page = MARKDOWN.reset().convert(f'<div class="x"><pre><code>|{escape.block(value)}|</code></pre></div>')
    assert Reader(page).text["code"].replace("    ", " ") == f"|{kept}|".replace("    ", " ")


def test_a_link_that_is_not_http_is_text():
    assert "href" not in escape.external("javascript:pwned()", "x")
    assert "href" not in escape.external("data:text/html,x", "x")
    assert 'href="https' in escape.external("https://example.org/a(b)", "x")


def test_a_fence_is_longer_than_any_inside():
    page = MARKDOWN.reset().convert(escape.fence("before\n`````\n<script>pwned()</script>\n", "python"))
    assert "script" not in Reader(page).tags and "before" in page


def test_prose_keeps_code_math_and_links_and_escapes_the_rest():
    page = MARKDOWN.reset().convert(escape.prose("The `a<b>` of $x_1 < y$ in yadav2023ties <b>.\n\n$$\na & b\n$$\n", {"yadav2023ties": "x.md"}))
    reader = Reader(page)
    assert reader.text["code"] == "a<b>" and reader.text["span"] == r"\(x_1 < y\)" and reader.text["div"] == r"\[a & b\]"
    assert reader.text["a"] == "yadav2023ties" and "b" not in reader.tags and "of \\(x_1 < y\\) in" in reader.text["p"]


def test_templates_print_nothing_unescaped():
    for template in (ROOT / "tools" / "templates").glob("*.md.j2"):
        source = template.read_text()
        expressions = re.findall(r"\{[{%].*?[%}]\}", source, re.DOTALL)
        for expression in expressions:
            code = re.sub(r"\"[^\"]*\"", '""', expression.strip("{}%-"))
            assert "~" not in code and "%" not in code, f"{template.name}: {expression} joins text around the escaping"
            assert not re.search(r"\|\s*(safe|join|format|replace|striptags)\b", code), f"{template.name}: {expression}"
