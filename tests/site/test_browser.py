"""The built site as a reader sees it: in Chromium, light and dark, on a desktop and on a phone."""

import html
import re
import shutil

import pytest

from tests.site.building import served
from tools import csp

pytestmark = pytest.mark.browser

KINDS = {
    "home": "",
    "guide": "guide/start/",
    "notation": "guide/notation/",
    "chooser": "guide/which-method/",
    "methods": "catalog/methods/",
    "chapter": "catalog/chapters/task_vectors/",
    "genealogy": "catalog/genealogy/",
    "field": "catalog/field/",
    "parity": "catalog/parity/",
    "method": "catalog/methods/ties_merging/",
    "picture": "catalog/methods/repair/",
    "costs": "catalog/cost-of-matching/",
    "paper": "catalog/papers/yadav2023ties/",
    "papers": "catalog/papers/",
    "topics": "catalog/taxonomy/",
    "topic": "catalog/taxonomy/merging/",
    "headings": "catalog/headings/",
    "list": "catalog/reading_lists/awesome-knowledge-fusion/",
    "venues": "catalog/venues/",
    "code": "catalog/codebases/mergekit/",
    "resources": "catalog/resources/",
}

# Text whose colour is closer to its background than WCAG AA allows, as "selector ratio text".
FAINT = """() => {
  const parse = (value) => {
    const numbers = value.match(/[\\d.]+/g).map(Number);
    if (value.startsWith("color(srgb")) return [...numbers.slice(0, 3).map((n) => n * 255), numbers[3] ?? 1];
    return [...numbers.slice(0, 3), numbers[3] ?? 1];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const luminance = (rgb) => {
    const [r, g, b] = rgb.slice(0, 3).map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.push(parse(getComputedStyle(e).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.textContent.trim();
    if (!text || !element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    if (element.closest("script, style, noscript, .headerlink, .katex-mathml, [hidden], svg")) continue;
    const box = element.getBoundingClientRect();
    if (!box.width || !box.height) continue;
    const style = getComputedStyle(element);
    let opacity = 1;
    for (let e = element; e; e = e.parentElement) opacity *= getComputedStyle(e).opacity;
    const back = ground(element);
    const colour = parse(style.color);
    const front = over([...colour.slice(0, 3), colour[3] * opacity], back);
    const [light, dark] = [luminance(front), luminance(back)].sort((a, b) => b - a);
    const ratio = (light + 0.05) / (dark + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) found.push(`${element.tagName}.${element.className} ${ratio.toFixed(2)} ${text.slice(0, 30)}`);
  }
  return [...new Set(found)];
}"""


def open_page(browser, address, **options):
    page = browser.new_context(**options).new_page()
    page.problems = []
    page.on("console", lambda message: message.type in ("error", "warning") and page.problems.append(message.text))
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("requestfailed", lambda request: "net::ERR_ABORTED" in request.failure or page.problems.append(request.url))
    page.on("request", lambda request: request.url.startswith((address, "data:")) or page.problems.append(request.url))
    return page


def test_no_page_is_wider_than_a_phone(browser, address):
    page = open_page(browser, address, viewport={"width": 390, "height": 844})
    wide = []
    for kind, path in KINDS.items():
        page.goto(address + path)
        page.wait_for_timeout(150)
        if page.evaluate("document.documentElement.scrollWidth") > 390:
            wide.append(kind)
        # nothing sticks out that does not scroll inside its own box
        wide += page.evaluate(
            """(kind) => [...document.querySelectorAll(".md-content *")].filter((e) => {
                 if (e.getBoundingClientRect().right <= 391 || e.closest("svg, .katex-mathml")) return false;
                 for (let p = e; p; p = p.parentElement)
                   if (/auto|scroll|hidden|clip/.test(getComputedStyle(p).overflowX) && p.getBoundingClientRect().right <= 391) return false;
                 return true;
               }).map((e) => `${kind}: ${e.tagName}.${e.className} ${e.textContent.slice(0, 40)}`)""",
            kind,
        )
    assert not wide and not page.problems


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(browser, address, scheme):
    page = open_page(browser, address, viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    faint = {}
    for kind, path in KINDS.items():
        page.goto(address + path)
        page.wait_for_timeout(200)
        found = page.evaluate(FAINT)
        if found:
            faint[kind] = found[:6]
    assert not faint and not page.problems


def test_the_toggle_changes_the_colours_and_is_remembered(browser, address):
    page = open_page(browser, address, viewport={"width": 1280, "height": 900}, color_scheme="light")
    page.goto(address)
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.locator("label[title='Switch to dark colours']").click()
    page.wait_for_timeout(400)
    dark = page.evaluate(background)
    page.goto(address + KINDS["paper"])
    page.wait_for_timeout(300)
    assert light != dark and page.evaluate(background) == dark


def test_formulas_are_typeset_and_none_failed(browser, address):
    page = open_page(browser, address, viewport={"width": 1280, "height": 900})
    for kind in ("method", "guide", "notation"):
        page.goto(address + KINDS[kind])
        page.wait_for_selector(".katex")
        assert page.locator(".katex-error").count() == 0, kind
        assert page.locator(".arithmatex:not(:has(.katex))").count() == 0, kind
    assert not page.problems


def test_every_formula_of_the_site_can_be_typeset(browser, address, real_site):
    sources = {}
    for file in sorted(real_site.rglob("*.html")):
        for formula in re.findall(r'class="arithmatex">(.*?)</(?:div|span)>', file.read_text(encoding="utf-8"), re.DOTALL):
            sources.setdefault(html.unescape(formula).strip()[2:-2], file.parent.name)
    page = open_page(browser, address)
    page.goto(address + KINDS["method"])
    failed = page.evaluate(
        """(formulas) => formulas.flatMap((formula) => {
          try { katex.renderToString(formula, { throwOnError: true, trust: false, strict: "ignore" }); return []; }
          catch (error) { return [`${formula}: ${error.message}`]; }
        })""",
        list(sources),
    )
    assert len(sources) > 50 and not failed


def test_bibtex_has_a_button_that_copies_it(browser, address):
    context = browser.new_context(viewport={"width": 1280, "height": 900}, permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto(address + KINDS["paper"])
    page.locator(".bibtex").hover()
    page.locator(".bibtex .md-clipboard, .bibtex button").first.click()
    page.wait_for_timeout(300)
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("@inproceedings{yadav2023ties,") and "Resolving Interference" in copied and copied.rstrip().endswith("}")


def test_search_finds_a_paper_by_words_of_its_title(browser, address):
    page = open_page(browser, address, viewport={"width": 1280, "height": 900})
    page.goto(address)
    page.locator(".md-search__input").click()
    for _ in range(40):
        page.fill(".md-search__input", "")
        page.keyboard.type("resolving interference")
        page.wait_for_timeout(500)
        if page.locator(".md-search-result__item").count():
            break
    assert page.locator(".md-search-result__link[href*='papers/yadav2023ties/']").count()
    assert not page.problems


def test_with_its_security_policy_every_page_works_and_an_injected_script_does_not(browser, real_site, tmp_path):
    sealed = tmp_path / "site"
    shutil.copytree(real_site, sealed)
    assert csp.main([str(sealed)]) == 0
    before = (sealed / "index.html").read_bytes()
    assert csp.main([str(sealed)]) == 0 and (sealed / "index.html").read_bytes() == before
    with served(sealed) as address:
        page = open_page(browser, address, viewport={"width": 1280, "height": 900})
        for path in KINDS.values():
            page.goto(address + path)
            page.wait_for_timeout(150)
        page.goto(address + KINDS["method"])
        page.wait_for_selector(".katex")
        page.locator("label[title='Switch to dark colours']").click()
        assert not page.problems
        bad = sealed / "bad.html"
        bad.write_text(before.decode().replace("</body>", "<script>document.body.dataset.pwned = 1</script></body>"))
        page.goto(address + "bad.html")
        assert page.evaluate("document.body.dataset.pwned") is None and any("Content Security" in p for p in page.problems)
