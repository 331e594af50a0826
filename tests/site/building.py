"""Build sites for the tests, serve them, and open them in a browser."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).parents[2]
CHROMIUM = os.environ.get("CHROMIUM") or "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def build(config: Path, site: Path, *, builder: str = "mkdocs", strict: bool = True) -> subprocess.CompletedProcess:
    """Run a builder; the caller looks at the exit status."""
    command = [sys.executable, "-m", builder, "build", "--config-file", str(config), "--site-dir", str(site)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "SOURCE_DATE_EPOCH": "1700000000"}
    return subprocess.run(
        command + ["--strict"] * strict, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=170, check=False
    )


def config_for(docs: Path, folder: Path, guide: bool = False) -> Path:
    """The project's mkdocs.yml for another docs folder; without the guide, whose links need the real catalog."""
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    text = text.replace("docs_dir: docs", f"docs_dir: {docs}").replace("custom_dir: overrides", f"custom_dir: {ROOT / 'overrides'}")
    if not guide:
        text = "".join(line for line in text.splitlines(keepends=True) if "guide" not in line.lower())
        text = text.replace("not_in_nav: |\n", "not_in_nav: |\n  /guide/\n")
    config = folder / "mkdocs.yml"
    config.write_text(text, encoding="utf-8")
    return config


def stub_guide(docs: Path) -> None:
    """Pages that the templates link to, without links of their own into the real catalog."""
    (docs / "guide").mkdir()
    for page in ("start", "which-method", "contributing", "testing"):
        (docs / "guide" / f"{page}.md").write_text("# Guide\n\n## Adding a method\n", encoding="utf-8")


def once(tmp_path_factory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that one test process fills and all others wait for: sites are shared by parallel workers."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    done = folder / "done"
    try:
        folder.mkdir()
    except FileExistsError:
        for _ in range(1700):
            if done.exists():
                break
            time.sleep(0.1)
        assert done.exists() and done.read_text() == "ok", f"{name} could not be made, see the first failure"
        return folder
    try:
        make(folder)
        done.write_text("ok")
    finally:
        if not done.exists():
            done.write_text("failed")
    return folder


class Elements(HTMLParser):
    """Every start tag of a page, with its attributes, and the text of its title and main heading."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, {name: value or "" for name, value in attributes}))

    def handle_data(self, data):
        self.text.append(data)


@contextmanager
def served(site: Path) -> Iterator[str]:
    """The address of a folder on this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_):
            """A browser that moves on closes its connections."""

    server = Server(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def chromium():
    """A browser, or an error: a check that could not run is not a check that passed."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()
