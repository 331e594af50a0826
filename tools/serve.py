"""Serve the built site on this machine: `python -m tools.serve --port 8000 --folder site`."""

from __future__ import annotations

import argparse
import socket
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HOST = "127.0.0.1"


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


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.serve", description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--folder", type=Path, default=Path("site"))
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
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
