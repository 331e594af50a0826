"""The explorers of papers and methods: what the form finds is what the catalog says, and the address says what the form holds."""

import re
import shutil

import pytest

from tests.site.building import ROOT, served
from tests.site.test_browser import open_page
from tools import csp
from tools.catalog import load

pytestmark = pytest.mark.browser

CATALOG = load(ROOT)
STATUS = ".explorer__status"


@pytest.fixture
def page(browser, address):
    page = open_page(browser, address, viewport={"width": 1280, "height": 900})
    yield page
    assert not page.problems


def explore(page, address, kind, query=""):
    page.goto(f"{address}catalog/{kind}/{query}")
    page.wait_for_selector(".explorer[data-ready]")


def status(page):
    return int(page.text_content(STATUS).replace("All ", "").split()[0])


def ids(page):
    """The records that are listed, all of them."""
    while page.locator(".explorer__more").is_visible():
        page.locator(".explorer__more").click()
    return [href.strip("/") for href in page.eval_on_selector_all(".rows a", "links => links.map((link) => link.getAttribute('href'))")]


def choices(page, name):
    """Value -> the count beside it."""
    found = page.evaluate(
        """(name) => [...document.querySelectorAll(`[name="${name}"] option, [name="${name}"][type="radio"]`)].map(
             (e) => [e.value, e.tagName === "OPTION" ? e.textContent : e.parentElement.textContent])""",
        name,
    )
    return {value: int(re.search(r"(\d+)\)?$", label)[1]) for value, label in found if value}


def below(node, topic):
    return node == topic or node.startswith(f"{topic}/")


def test_papers_by_topic_year_venue_code_and_implementation(page, address):
    c, implemented = CATALOG, set(CATALOG.methods)

    def wanted(id, topic="merging", since=2023, code=True, here=True):
        paper = c.papers[id]
        return (
            any(below(node, topic) for node in paper.taxonomy)
            and paper.year >= since
            and (not code or bool(paper.code))
            and (not here or bool(set(c.methods_by_paper.get(id, [])) & implemented))
        )

    explore(page, address, "papers")
    assert status(page) == len(c.papers) and sorted(ids(page)) == sorted(c.papers)
    page.select_option("[name=topic]", "merging")
    page.select_option("[name=from]", "2023")
    page.check("[name=code][value=yes]")
    page.check("[name=implementation][value=yes]")
    found = [id for id in c.papers if wanted(id)]
    assert sorted(ids(page)) == sorted(found) and status(page) == len(found) > 5
    # the count beside a choice is what it would leave, the other filters kept
    assert choices(page, "code")["no"] == sum(wanted(id, code=False) and not c.papers[id].code for id in c.papers)
    assert choices(page, "topic")["connectivity"] == sum(wanted(id, "connectivity") for id in c.papers)
    assert choices(page, "from")["2018"] == sum(wanted(id, since=0) and c.papers[id].year == 2018 for id in c.papers)
    venue = max(choices(page, "venue").items(), key=lambda item: item[1])
    page.select_option("[name=venue]", venue[0])
    assert status(page) == venue[1] == sum(c.papers[id].venue == venue[0] for id in found)


def test_methods_by_what_they_need(page, address):
    explore(page, address, "methods")
    needs = {id: method.requirements for id, method in CATALOG.methods.items()}
    for field in ("base", "gradients", "training", "same_init", "same_architecture"):
        assert choices(page, field) == {
            "yes": sum(getattr(need, field) for need in needs.values()),
            "no": sum(not getattr(need, field) for need in needs.values()),
        }
    page.check("[name=data][value=none]")
    page.check("[name=base][value=yes]")
    page.check("[name=training][value=no]")
    page.select_option("[name=output]", "model")
    page.select_option("[name=inference]", "one model")
    found = [id for id, n in needs.items() if (n.data, n.base, n.training, n.output, n.inference) == ("none", True, False, "model", "one model")]
    assert sorted(ids(page)) == sorted(found) and "ties_merging" in found
    page.get_by_role("button", name="Clear all").click()
    assert status(page) == len(needs) and "?" not in page.url


def test_words_find_titles_authors_aliases_and_arxiv_ids(page, address):
    explore(page, address, "papers")
    for words in ("resolving interference", "yadav tam", "2306.01708", "resolvng interfernce"):
        page.fill("[name=text]", words)
        page.wait_for_function(f"new URLSearchParams(location.search).get('text') === {words!r}")
        assert ids(page)[0] == "yadav2023ties", words
    explore(page, address, "methods", "?text=drop and rescale")
    assert ids(page)[0] == "dare"


def test_the_address_holds_the_view_and_back_undoes_it(page, address, browser):
    explore(page, address, "papers")
    page.select_option("[name=venue]", "iclr")
    page.check("[name=code][value=no]")
    page.fill("[name=text]", "merging")
    page.wait_for_function("location.search.includes('text=merging')")
    view, found = page.url, ids(page)
    assert {"venue=iclr", "code=no", "text=merging"} == set(view.partition("?")[2].split("&"))
    other = open_page(browser, address)  # somebody whom the address was sent to
    other.goto(view)
    other.wait_for_selector(".explorer[data-ready]")
    assert ids(other) == found and other.input_value("[name=venue]") == "iclr"
    page.go_back()
    page.wait_for_function("!location.search.includes('code')")
    assert page.input_value("[name=text]") == "" and status(page) == choices(page, "venue")["iclr"]
    page.go_back()
    page.wait_for_function("!location.search")
    assert status(page) == len(CATALOG.papers)
    explore(page, address, "papers", "?venue=nowhere&code=%3Cb%3E&unknown=1&text=")
    assert status(page) == len(CATALOG.papers)


def test_by_keyboard_and_with_the_security_policy(browser, real_site, tmp_path):
    """The sealed page, used without a mouse; the count is announced."""
    sealed = tmp_path / "site"
    for part in ("assets", "catalog"):
        shutil.copytree(real_site / part, sealed / part, ignore=lambda folder, names: [n for n in names if "20" in n])
    shutil.copytree(real_site / "search", sealed / "search")
    shutil.copy(real_site / "sitemap.xml", sealed)
    csp.main([str(sealed)])
    with served(sealed) as address:
        page = open_page(browser, address, viewport={"width": 1280, "height": 900})
        explore(page, address, "methods")
        page.focus("[name=text]")
        for _ in range(3):  # the filters' heading, the chapter, the topic
            page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.name") == "topic"
        page.keyboard.press("Tab")
        page.keyboard.press("ArrowRight")
        assert page.input_value("[name=base]:checked") == "yes"
        assert page.get_by_role("status").text_content() == f"{sum(m.requirements.base for m in CATALOG.methods.values())} of 130 methods"
        assert not page.problems


def test_without_javascript_there_are_fifty_rows_and_ways_on(browser, address):
    page = open_page(browser, address, java_script_enabled=False)
    for kind in ("papers", "methods"):
        page.goto(f"{address}catalog/{kind}/")
        assert page.locator(".rows li").count() == 50 and not page.locator(".explorer__form").is_visible()
        assert page.text_content(STATUS).startswith("The first 50 of")
    reached = set()
    for link in page.eval_on_selector_all(".browse a", "links => links.map((link) => link.href)"):
        page.goto(link)
        reached.update(page.eval_on_selector_all(".methods td:first-child > a", "links => links.map((a) => a.href.split('/').at(-2))"))
    assert reached == set(CATALOG.methods)


def test_rows_written_by_the_script_are_those_of_the_page(browser, address):
    """The first view does not change when the script takes over."""
    shown = []
    for script in (False, True):
        page = open_page(browser, address, java_script_enabled=script)
        page.goto(f"{address}catalog/papers/")
        if script:
            page.wait_for_selector(".explorer[data-ready]")
        shown.append([" ".join(text.split()) for text in page.locator(".rows li").all_text_contents()])
    assert shown[0] == shown[1] and len(shown[0]) == 50


def test_cards_on_a_phone(browser, address):
    page = open_page(browser, address, viewport={"width": 390, "height": 844})
    explore(page, address, "methods")
    assert not page.locator("[name=chapter]").is_visible()
    page.locator("summary", has_text="Filters").click()
    page.select_option("[name=chapter]", "reuse")
    assert status(page) == len(CATALOG.methods_by_chapter["reuse"])
    boxes = page.eval_on_selector_all(".rows li > *", "parts => parts.slice(0, 3).map((part) => part.getBoundingClientRect().left)")
    assert len(set(boxes)) == 1 and not page.problems
