"""Records come from strangers: whatever they hold, a page shows it as text. Looked at in a real browser."""

import re
import shutil

import pytest

from tests.site.building import ROOT, Elements, build, chromium, config_for, once, served, stub_guide
from tests.site.hostile import PAYLOADS, catalog
from tests.site.test_escape import shown
from tools.pages import Pages
from tools.site import write

TITLED = re.compile(r"catalog/(?:papers|methods|reading_lists)/(?:hostile2024p|hostile_|list-)(\d+)/")
OURS = ("assets/javascripts/", "assets/katex/", "assets/lab/", "assets/minisearch/")


@pytest.fixture(scope="session")
def hostile_site(tmp_path_factory):
    def make(folder):
        docs = folder / "docs"
        shutil.copytree(ROOT / "docs", docs, ignore=shutil.ignore_patterns("catalog", "guide", "index.md"))
        stub_guide(docs)
        written, _, total = write(Pages(catalog(folder / "project")), docs)
        assert written == total > 6 * len(PAYLOADS)
        result = build(config_for(docs, folder), folder / "site")
        assert result.returncode == 0, result.stdout + result.stderr

    return once(tmp_path_factory, "hostile", make) / "site"


def pages(site):
    return sorted(page.relative_to(site).as_posix() for page in site.rglob("index.html"))


def test_no_page_holds_more_than_the_templates_put_there(hostile_site):
    """No handler, no script, no foreign address, and no element that only a payload could have made."""
    for page in pages(hostile_site):
        for tag, attributes in Elements((hostile_site / page).read_text(encoding="utf-8")).tags:
            where = f"{page}: <{tag} {attributes}>"
            assert not any(name.startswith("on") for name in attributes), where
            assert "pwned" not in attributes.get("id", "").split() + attributes.get("class", "").split(), where
            assert tag not in ("iframe", "object", "embed", "base", "b", "style", "del"), where
            for name in ("href", "src", "action", "formaction", "xlink:href"):
                scheme = "".join(attributes.get(name, "").split()).partition(":")[0].lower()
                assert scheme not in ("javascript", "data", "vbscript"), where
            if tag == "script" and "src" in attributes:
                assert any(part in attributes["src"] for part in OURS), where
            if tag == "img":
                assert attributes.get("src", "").endswith("assets/images/mark.svg"), where


def test_no_template_language_runs(hostile_site):
    for page in pages(hostile_site):
        text = "".join(Elements((hostile_site / page).read_text(encoding="utf-8")).text)
        assert "1337" not in text, f"{page}: an expression was evaluated"
        assert "site_name: Model" not in text, f"{page}: a file was included"


def watch(page, address, found):
    """Note whatever a payload calls, on this page and all that follow, and every request that leaves the site."""
    page.expose_function("pwned", lambda *_: found.append(f"code ran on {page.url}"))
    page.on("dialog", lambda dialog: (found.append(dialog.message), dialog.dismiss()))
    page.on("pageerror", lambda error: found.append(f"{page.url}: {error}"))
    page.on("request", lambda request: request.url.startswith((address, "data:")) or found.append(request.url))


@pytest.mark.slow
@pytest.mark.browser
def test_nothing_runs_in_a_browser_and_every_title_is_shown(hostile_site):
    found = []
    with served(hostile_site) as address, chromium() as browser:
        page = browser.new_context().new_page()
        watch(page, address, found)
        for position, path in enumerate(pages(hostile_site)):
            if not TITLED.match(path) and position % 3:
                continue  # the other kinds of page, in turns: every kind, not every payload
            page.goto(address + path, wait_until="domcontentloaded")
            if "/moved2020p" in path:
                page.wait_for_url(lambda url: "/moved2020p" not in url)  # it leads on by itself
            number = TITLED.match(path)
            if number:
                payload = shown(PAYLOADS[int(number[1])])
                heading, title = page.evaluate("[document.querySelector('h1').firstChild.textContent, document.title]")
                if shown(heading) != payload or not shown(title).startswith(payload):
                    found.append(f"{path}: heading {heading!r}, title {title!r} instead of {payload!r}")
        page.wait_for_timeout(300)
    assert not found


@pytest.mark.browser
def test_search_shows_attacks_as_text(hostile_site):
    found = []
    with served(hostile_site) as address, chromium() as browser:
        page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        watch(page, address, found)
        page.goto(address)
        page.locator(".md-search__input").click()
        results = page.locator(".md-search-result__list")
        for words in ("item", "onerror", "comment", "heading", "word"):
            for _ in range(40):  # what is typed before the index is there is lost
                page.fill(".md-search__input", "")
                page.keyboard.type(words)
                page.wait_for_timeout(500)
                if results.locator("li").count():
                    break
            assert results.locator("li").count(), f"nothing found for {words}"
            assert results.locator("script, img, [onload], b, [onclick], [onerror], #pwned, [href^='javascript:']").count() == 0
    assert not found


@pytest.mark.browser
def test_explorers_show_attacks_as_text(hostile_site):
    found = []
    with served(hostile_site) as address, chromium() as browser:
        page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        watch(page, address, found)
        for kind in ("papers", "methods"):
            page.goto(f"{address}catalog/{kind}/?text=%22%3E%3Cimg+src%3Dx+onerror%3Dpwned()%3E&topic=%3Cscript%3Epwned()%3C/script%3E")
            page.wait_for_selector(".explorer[data-ready]")
            page.get_by_role("button", name="Clear all").click()
            titles = page.eval_on_selector_all(".rows a", "links => links.map((link) => link.textContent)")
            for payload in PAYLOADS:
                assert any(shown(title) == shown(payload) for title in titles), payload
            for name in page.eval_on_selector_all("select", "all => all.map((one) => one.name)"):
                page.select_option(f"[name={name}]", page.locator(f"[name={name}] option:not(:disabled)").last.get_attribute("value"))
            assert page.locator(".explorer").locator("script, img, [onload], b, [onclick], [onerror], #pwned, [href^='javascript:']").count() == 0
    assert not found


@pytest.mark.browser
def test_hovering_and_clicking_runs_nothing(hostile_site):
    found = []
    with served(hostile_site) as address, chromium() as browser:
        page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        watch(page, address, found)
        for number in (3, 5, 9, 31):
            for path in (f"catalog/papers/hostile2024p{number}/", f"catalog/methods/hostile_{number}/"):
                page.goto(address + path)
                page.evaluate(
                    """() => {
                      for (const element of document.querySelectorAll(".md-content *")) {
                        element.dispatchEvent(new MouseEvent("mouseover", { bubbles: true }));
                        if (!element.closest("a")) element.dispatchEvent(new MouseEvent("click", { bubbles: true }));
                      }
                    }"""
                )
        page.wait_for_timeout(200)
    assert not found
