"""Live runs as a reader meets them: in Chromium, on pages with their security policy, with Pyodide and borch."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path

import pytest

from tests.site import pyodide
from tests.site.building import build, config_for, once, served
from tests.site.test_browser import open_page
from tools import csp, runtime

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PAGE, OTHER = "catalog/methods/ties_merging/", "catalog/methods/slerp/"
START = 120_000  # ms; a busy machine takes a minute to start Python
RAN = re.compile(r"^Ran in ")


@pytest.fixture(scope="session")
def lab_site(tmp_path_factory, real_site) -> Path:
    """The real site, less the pages that these tests don't open, with the runtime in it and sealed."""
    folder = pyodide.distribution()
    if folder is None:
        pytest.skip(f"{pyodide.PACKAGE}, which carries Pyodide for this test, could not be fetched")

    def make(at: Path) -> None:
        def unused(parent: str, names: list[str]) -> list[str]:
            kept = {"methods": {"ties_merging", "slerp"}, "catalog": {"methods", "code"}}.get(Path(parent).name)
            return [name for name in names if kept is not None and name not in kept]

        shutil.copytree(real_site, at / "site", ignore=unused)
        runtime.install(folder, at / "site", pyodide.sums(folder))
        assert csp.main([str(at / "site")]) == 0

    return once(tmp_path_factory, "lab", make) / "site"


@pytest.fixture(scope="module")
def address(lab_site):
    with served(lab_site) as address:
        yield address


@pytest.fixture(scope="module")
def page(browser, address):
    """A page whose Python has started; each test leaves it as it was published."""
    page = open_page(browser, address, viewport={"width": 1200, "height": 900})
    page.goto(address + PAGE)
    run(page)
    return page


@pytest.fixture
def fresh(page):
    yield page
    page.get_by_role("button", name="Reset").click()


def run(page) -> str:
    page.get_by_role("button", name="Run", exact=True).click()
    return finished(page)


def finished(page, words: re.Pattern | str = RAN) -> str:
    """What the status says in the end."""
    from playwright.sync_api import expect

    status = page.locator(".lab-status")
    expect(status).to_have_text(words, timeout=START)
    return status.inner_text()


def rewrite(page, change) -> None:
    page.get_by_role("button", name="Edit the code").click()
    text = page.locator(".lab-editor textarea")
    text.fill(change(text.input_value()))


def test_run_gives_pytorchs_numbers_and_says_how_far_they_are(fresh, lab_site):
    drawn = fresh.locator("#demo ~ .lab figure.run svg")
    said = run(fresh)
    number = re.search(r"on NumPy; largest difference from PyTorch's recorded numbers: (\d\.\d) · 10⁻(.)\.$", said)
    assert float(number[1]) * 10.0 ** -"⁰¹²³⁴⁵⁶⁷⁸⁹".index(number[2]) < 1e-4
    whole = (lab_site / PAGE / "index.html").read_text(encoding="utf-8")
    published = re.search(r"<svg class=\"run\".*?</svg>", whole, re.DOTALL)[0]
    words = re.search(r"<desc[^>]*>(.*?)</desc>", published)[1]
    assert drawn.locator("desc").text_content() == html.unescape(words)
    assert drawn.locator("rect.cell").count() == published.count('class="cell') and not fresh.problems


def test_a_slider_redraws_the_picture_and_claims_no_comparison(fresh):
    drawn = fresh.locator("#demo ~ .lab figure.run svg desc")
    before = drawn.text_content()
    slider = fresh.get_by_role("slider", name="density")
    for _ in range(4):
        slider.press("ArrowRight")
    assert fresh.locator(".lab-controls output").first.inner_text() == "0.8"
    assert "PyTorch" not in finished(fresh, re.compile(r"^Ran in .* on NumPy\.$"))
    assert drawn.text_content() != before
    for _ in range(4):
        slider.press("ArrowLeft")
    assert "PyTorch's recorded numbers" in finished(fresh, re.compile("largest difference")) and drawn.text_content() == before


def test_edited_code_runs_prints_and_changes_the_words(fresh):
    printing = "    print('hello')\n    base, "
    rewrite(fresh, lambda code: code.replace("Three task vectors", "My vectors").replace("    base, ", printing, 1))
    fresh.locator(".lab-editor textarea").press("Control+Enter")
    finished(fresh, re.compile(r"^Ran in .* on NumPy\.$"))
    assert fresh.locator(".lab-output").inner_text().strip() == "hello"
    assert fresh.locator("#demo ~ .lab figcaption").inner_text().startswith("My vectors")
    assert fresh.locator("#demo ~ .lab figure.run title").text_content().startswith("My vectors")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("    base, finetuned = task_vectors(", "TypeError: 'int' object is not callable"),
        ("    base, finetuned = task_vectors(size=-1", "(docs/demos/toys.py, line"),
        ("    base finetuned = task_vectors(", "SyntaxError"),
    ],
)
def test_an_error_names_its_line_and_the_picture_stays(fresh, wrong, said):
    def change(code: str) -> str:
        if "int" in said:
            return code.replace("    base, finetuned = task_vectors(", "    base, finetuned = (1)(")
        return code.replace("    base, finetuned = task_vectors(", wrong)

    before = fresh.locator("#demo ~ .lab figure.run svg desc").text_content()
    rewrite(fresh, change)
    lines = fresh.locator(".lab-editor textarea").input_value().split("\n")
    line = lines.index(change("    base, finetuned = task_vectors()")) + 1
    fresh.get_by_role("button", name="Run", exact=True).click()
    finished(fresh, f"Stopped by an error in line {line}.")
    shown = fresh.locator(".lab-output").inner_text()
    assert shown.startswith(f"Line {line}: ") and said in shown
    assert fresh.locator(".lab-numbers .wrong").inner_text() == str(line)
    assert fresh.locator("#demo ~ .lab figure.run svg desc").text_content() == before


def test_words_of_edited_code_are_text(fresh):
    hostile = '<img src=x onerror=document.title=1></title><script>document.title=1</script>'
    rewrite(fresh, lambda code: code.replace("Three task vectors", hostile))
    run(fresh)
    assert fresh.title() != "1" and fresh.locator("#demo ~ .lab figure.run img, #demo ~ .lab figure.run script").count() == 0
    assert fresh.locator("#demo ~ .lab figcaption").inner_text().startswith(hostile)


def test_reset_brings_back_what_was_published(page):
    published = page.locator("#demo ~ .lab pre code").text_content()
    rewrite(page, lambda code: code.replace("Three", "Four"))
    page.get_by_role("slider", name="density").press("ArrowRight")
    finished(page, re.compile("on NumPy"))
    page.get_by_role("button", name="Reset").click()
    assert page.locator(".lab-status").inner_text() == "As published: the numbers of PyTorch."
    assert page.locator(".lab-editor textarea").input_value() == published
    assert page.locator(".lab-controls output").first.inner_text() == "0.4"
    assert page.locator("#demo ~ .lab figcaption").inner_text().startswith("Three task vectors")


def test_stop_ends_a_run_without_end_and_run_starts_again(fresh):
    rewrite(fresh, lambda code: code.replace("    base, ", "    while True: pass\n    base, ", 1))
    fresh.get_by_role("button", name="Run", exact=True).click()
    finished(fresh, "Running …")
    stop = fresh.get_by_role("button", name="Stop")
    stop.click()
    assert fresh.locator(".lab-status").inner_text() == "Stopped. Run starts Python anew." and stop.is_disabled()
    fresh.get_by_role("button", name="Reset").click()
    assert "PyTorch's recorded numbers" in run(fresh)


def test_another_page_and_back(browser, address):
    page = open_page(browser, address)
    page.goto(address + OTHER)
    assert "PyTorch's recorded numbers" in run(page)
    page.goto(address + PAGE)
    assert page.locator(".lab-status").inner_text().startswith("Run loads Python into this page, 18 MB once.")
    page.go_back()
    assert page.get_by_role("button", name="Run", exact=True).is_enabled() and not page.problems


def test_on_a_phone_everything_fits_and_can_be_touched(browser, address):
    page = open_page(browser, address, viewport={"width": 390, "height": 844}, has_touch=True)
    page.goto(address + PAGE)
    page.get_by_role("button", name="Edit the code").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for control in page.locator("fusion-lab :is(button, input)").all():
        box = control.bounding_box()
        assert box["height"] >= 24 and box["x"] >= 0 and box["x"] + box["width"] <= 390


def test_without_javascript_the_page_is_complete(browser, address):
    page = open_page(browser, address, java_script_enabled=False)
    page.goto(address + PAGE)
    assert page.locator("#demo ~ .lab figure.run svg").is_visible() and page.locator("fusion-lab button").count() == 0
    assert "def demo(density, scaling_coef):" in page.locator("#demo ~ .lab details").text_content()


def test_without_a_runtime_there_are_no_buttons_and_no_errors(browser, real_site):
    with served(real_site) as address:
        page = open_page(browser, address)
        page.goto(address + PAGE, wait_until="networkidle")
        assert page.locator("#demo ~ .lab figure.run svg").is_visible() and page.locator("fusion-lab").is_hidden()
        assert page.locator("fusion-lab").evaluate("(lab) => lab.childElementCount") == 0 and not page.problems


# --- what can go wrong on the way ------------------------------------------------------------------------------------


def failing(browser, address, answer) -> str:
    """What the status says where requests are answered otherwise."""
    page = browser.new_context().new_page()
    for pattern, reply in answer.items():
        page.route(pattern, reply)
    page.goto(address + PAGE)
    page.get_by_role("button", name="Run", exact=True).click()
    said = finished(page, re.compile("^The runtime could not be used"))
    assert page.get_by_role("button", name="Run", exact=True).is_enabled()
    assert said.endswith("The picture above is PyTorch's own.")
    page.context.close()
    return said


def test_where_a_policy_forbids_webassembly_the_reader_is_told(browser, address):
    def guarded(route):
        policy = {"content-type": "text/javascript", "content-security-policy": "script-src 'self'"}
        route.fulfill(response=route.fetch(), headers=policy)

    assert "WebAssembly" in failing(browser, address, {"**/worker.js": guarded})


def test_where_nothing_answers_the_reader_is_told(browser, address, lab_site):
    settings = json.loads((lab_site / runtime.LAB / "runtime.json").read_text()) | {"patience": 1}
    hang = {"**/runtime.json": lambda route: route.fulfill(json=settings), "**/pyodide.asm.wasm": lambda route: None}
    assert "nothing was heard for 1 seconds" in failing(browser, address, hang)


def test_a_wheel_that_was_exchanged_is_not_run(browser, address):
    changed = {"**/pyborch*.whl": lambda route: route.fulfill(body=b"other")}
    assert "is not the file that was published with this site" in failing(browser, address, changed)


# --- instant navigation ----------------------------------------------------------------------------------------------


def test_python_stays_loaded_through_instant_navigation(browser, real_docs, lab_site, tmp_path):
    """Two method pages with the theme's instant navigation, which this site does not turn on: the worker outlives the page."""
    docs = tmp_path / "docs"
    shutil.copytree(real_docs / "assets", docs / "assets")
    shutil.copytree(real_docs / "demos", docs / "demos")
    shutil.copytree(real_docs / "catalog" / "code", docs / "catalog" / "code")
    for name in ("ties_merging", "slerp"):
        page = (real_docs / "catalog" / "methods" / f"{name}.md").read_text(encoding="utf-8")
        part = re.sub(r"\[[^]]*\]\(\.\./[^)]*\)", "", page[page.index("## What it does") : page.index("</details>")])
        links = "[ties](ties_merging.md) [slerp](slerp.md)"
        (docs / f"{name}.md").write_text(f"# {name}\n\n{part}</details>\n\n</div>\n\n{links}\n", encoding="utf-8")
    (docs / "index.md").write_text("# Home\n", encoding="utf-8")
    config = config_for(docs, tmp_path)
    text = config.read_text(encoding="utf-8").replace("  features:\n", "  features:\n    - navigation.instant\n")
    text = re.sub(r"^nav:.*?(?=^\w)", "", text, flags=re.DOTALL | re.MULTILINE)
    with served(tmp_path / "site") as address:
        config.write_text(f"{text}\nsite_url: {address}\n", encoding="utf-8")
        built = build(config, tmp_path / "site", strict=False)
        assert built.returncode == 0, built.stdout + built.stderr
        shutil.copytree(lab_site / runtime.LAB, tmp_path / "site" / runtime.LAB, dirs_exist_ok=True)
        page = browser.new_context(viewport={"width": 1200, "height": 900}).new_page()
        page.goto(address + "ties_merging/")
        page.evaluate("window.same = true")
        run(page)
        page.get_by_role("link", name="slerp", exact=True).last.click()
        page.get_by_role("slider", name="angle").wait_for()
        assert page.evaluate("window.same"), "the theme loaded the page anew"
        assert page.locator(".lab-status").inner_text().startswith("Python is loaded")
        assert "PyTorch's recorded numbers" in run(page)
        page.get_by_role("link", name="ties", exact=True).last.click()
        page.get_by_role("slider", name="density").wait_for()
        assert "PyTorch's recorded numbers" in run(page) and page.evaluate("window.same")
