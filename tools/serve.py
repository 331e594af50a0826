"""Serve the built site on this machine: `python -m tools.serve --port 8000 --folder site`.

With `--watch` it also keeps the site up to date: when a record, a page, a method or a template changes, the pages that
depend on it are written and built again, and the others stay as they are.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HOST = "127.0.0.1"
WATCHED = ("catalog", "docs", "overrides", "reference_impls", "tools", "mkdocs.yml")
GENERATED = ("docs/catalog", "docs/index.md", "docs/llms.txt", "docs/papers.atom", "docs/assets/generated", "__pycache__")
QUIET = 0.3  # seconds without a further change before a rebuild: editors write in several steps


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing for a page that was found; errors still reach the reader as pages."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        page = Path(self.directory) / "404.html"
        if code != 404 or not page.is_file():
            return super().send_error(code, message, explain)
        body = page.read_bytes()
        self.send_response(404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def concerns(path: str, root: Path) -> bool:
    """Whether a change at this place can change the site: not what the tools write themselves, not an editor's own files."""
    place = Path(path)
    if not place.is_relative_to(root) or place.name.startswith((".", "#")) or place.name.endswith(("~", ".swp", ".tmp")):
        return False
    relative = place.relative_to(root).as_posix()
    generated = any(relative == name or relative.startswith(f"{name}/") for name in GENERATED) or "__pycache__" in relative
    return not generated and relative.split("/")[0] in WATCHED


def rebuild(site: Path, root: Path) -> bool:
    """Write and build what changed. Where something fails it is printed and the site stays as it was."""
    python, index = sys.executable, site / "search" / "search_index.json"
    kept = site.with_name(f".{site.name}-search.json")
    if index.is_file():
        shutil.copyfile(index, kept)  # a partial build would leave only the new pages in it
    for command in (
        ["tools", "check"],
        ["tools", "site"],
        ["mkdocs", "build", "--dirty", "--quiet", "--site-dir", str(site)],
        ["tools.csp", str(site)],
    ):
        done = subprocess.run([python, "-m", *command], cwd=root, capture_output=True, text=True, check=False)
        if done.returncode:
            print((done.stdout + done.stderr).strip(), "\nthe site stays as it was", sep="", flush=True)
            return False
    if kept.is_file():
        kept.replace(index)
    return True


def watch(site: Path, root: Path) -> None:
    """Rebuild after every change, in a thread of its own, as long as the program runs."""
    from watchdog.events import FileSystemEventHandler
    from watchdog.observers import Observer

    changed = threading.Event()

    class Changes(FileSystemEventHandler):
        def on_any_event(self, event) -> None:
            paths = [event.src_path, getattr(event, "dest_path", "")]
            if event.is_directory or event.event_type not in ("created", "modified", "moved", "deleted"):
                return
            if any(concerns(path, root) for path in paths if path):
                changed.set()

    def work() -> None:
        while changed.wait():
            while changed.is_set():
                changed.clear()
                time.sleep(QUIET)
            began = time.monotonic()
            if rebuild(site, root):
                print(f"rebuilt in {time.monotonic() - began:.1f} s", flush=True)

    observer = Observer()
    for name in WATCHED:
        if (root / name).is_dir():
            observer.schedule(Changes(), str(root / name), recursive=True)
    observer.schedule(Changes(), str(root), recursive=False)
    observer.start()
    threading.Thread(target=work, daemon=True).start()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.serve", description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--folder", type=Path, default=Path("site"))
    parser.add_argument("--watch", action="store_true", help="build again what changes")
    parser.add_argument("--probe", action="store_true", help="only say whether the port is free")
    options = parser.parse_args(arguments)
    if not 0 < options.port < 65536:
        print(f"serve: port {options.port} does not exist; choose one from 1 to 65535: make site PORT=8001", file=sys.stderr)
        return 1
    if not port_is_free(options.port):
        print(f"serve: port {options.port} is taken; choose another: make site PORT={options.port % 65535 + 1}", file=sys.stderr)
        return 1
    if options.probe:
        return 0
    if not (options.folder / "index.html").is_file():
        print(f"serve: {options.folder} holds no built site; run `make build` first", file=sys.stderr)
        return 1
    pages = sum(1 for _ in options.folder.rglob("*.html"))
    with ThreadingHTTPServer((HOST, options.port), partial(Handler, directory=str(options.folder))) as server:
        print(f"{pages} pages in {options.folder}, served on http://{HOST}:{options.port} (Ctrl-C stops)", flush=True)
        if options.watch:
            watch(options.folder.resolve(), Path.cwd())
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
