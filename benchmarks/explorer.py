"""How quick the explorer of papers and the search box are, in a real Chromium, on catalogs that were made up.

    python -m benchmarks.explorer [1500 10000]

Builds the explorer's page for each size, opens it with an empty cache, and times what a reader does: from the input event to
the end of the frame that shows the result, the median of seven rounds in turn. Bytes are those of every file that the
page asks for, each compressed with gzip as a server would send it. Times under load are noisy: compare ratios.
"""

from __future__ import annotations

import gzip
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from tests.site.building import ROOT, build, chromium, config_for, served
from tests.tools.generate import make_catalog
from tools.catalog import load
from tools.pages import Pages

ROUNDS = 7
GOALS = {"transferred, kB": (200, None), "search index, kB": (350, None)}
GOALS |= dict.fromkeys(["facet, ms", "facet cleared, ms"], (50, 150)) | dict.fromkeys(["two words, ms", "two letters, ms", "words cleared, ms"], (60, 150))

# Set a field and wait until the frame that shows the answer is done.
CHANGE = """([name, value]) => new Promise((done) => {
  const field = document.querySelector(`[name="${name}"]`);
  field.value = value;
  requestAnimationFrame(() => {
    const start = performance.now();
    field.dispatchEvent(new Event("input", { bubbles: true }));
    requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
  });
})"""


def make_site(folder: Path, papers: int) -> tuple[Path, Pages]:
    """The explorer's page alone: what the other pages hold does not matter to it."""
    pages = Pages(load(make_catalog(folder / "catalog", papers).parent))
    docs = folder / "docs"
    shutil.copytree(ROOT / "docs" / "assets", docs / "assets")
    for path, text in [pages.home(), *(page for page in pages.all() if page[0] == "catalog/papers/index.md" or page[0].endswith(".json"))]:
        (docs / path).parent.mkdir(parents=True, exist_ok=True)
        (docs / path).write_text(text, encoding="utf-8")
    result = build(config_for(docs, folder), folder / "site", strict=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder / "site", pages


def measure(browser, site: Path, pages: Pages) -> dict[str, float]:
    first = next(iter(pages.catalog.papers.values()))
    words = first.title.split(": ")[1].split()
    with served(site) as address:
        page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        asked = []
        page.on("request", lambda request: asked.append(request.url.removeprefix(address).partition("?")[0]))
        page.goto(f"{address}catalog/papers/")
        page.wait_for_selector(".explorer[data-ready]")
        ready = page.evaluate("performance.now()")
        page.wait_for_load_state("networkidle")
        files = {site / (path if Path(path).suffix else f"{path}index.html") for path in asked}
        sent = sum(min(len(data), len(gzip.compress(data))) for file in files if file.is_file() for data in [file.read_bytes()])
        page.focus("[name=text]")
        page.evaluate(CHANGE, ["text", words[0]])
        page.wait_for_function("document.querySelector('.explorer__status').textContent.includes(' of ')")
        steps = {
            "facet, ms": ("topic", first.taxonomy[0]),
            "facet cleared, ms": ("topic", ""),
            "two words, ms": ("text", f"{words[0]} {words[1][:4]}"),
            "two letters, ms": ("text", words[0][:2]),
            "words cleared, ms": ("text", ""),
        }
        times = {name: [] for name in steps}
        for _ in range(ROUNDS):
            for name, (field, value) in steps.items():
                times[name].append(page.evaluate(CHANGE, [field, value]))
    index = gzip.compress((site / "catalog" / "search.json").read_bytes())
    return {
        "transferred, kB": sent / 1000,
        "ready, ms": ready,
        **{name: statistics.median(values) for name, values in times.items()},
        "search index, kB": len(index) / 1000,
    }


def main(argv: list[str]) -> int:
    sizes = [int(size) for size in argv] or [1500, 10000]
    found = {}
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        sites = {size: make_site(Path(folder) / str(size), size) for size in sizes}
        for size, (site, pages) in sites.items():
            found[size] = measure(browser, site, pages)
    print(f"{'':20}" + "".join(f"{size:>10} papers" for size in sizes) + "   goals: 1,500 / 10,000")
    for name in found[sizes[0]]:
        goals = " / ".join("–" if goal is None else str(goal) for goal in GOALS.get(name, ()))
        print(f"{name:20}" + "".join(f"{found[size][name]:17.0f}" for size in sizes) + f"   {goals}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
