"""`make site` and `make test` say in one line what is wrong; the server serves what was built."""

import os
import shutil
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from http.server import ThreadingHTTPServer
from functools import partial
from pathlib import Path

import pytest

from tools import serve

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def executable(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)
    return path


def make(folder: Path, *arguments: str) -> tuple[int, list[str]]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    run = subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True, env=environment)
    return run.returncode, [line for line in (run.stdout + run.stderr).splitlines() if "make" in line and "***" not in line]


@pytest.mark.parametrize("target", ["site", "test"])
def test_an_old_python_is_named_in_one_line(checkout, target):
    old = executable(checkout / "old/python3", 'if [ "$1" = --version ]; then echo Python 3.9.2; else exit 1; fi\n')
    code, lines = make(checkout, target, f"PYTHON={old}")
    assert code and len(lines) == 1 and "3.11 or later is needed" in lines[0] and "Python 3.9.2" in lines[0]


@pytest.mark.parametrize("target", ["site", "test"])
def test_a_failed_install_is_named_in_one_line(checkout, target):
    executable(checkout / ".venv/bin/python", "echo 'ERROR: No matching distribution found for torch==2.13.0' >&2; exit 1\n")
    code, lines = make(checkout, target)
    assert code and len([line for line in lines if "the install failed" in line]) == 1
    assert any("No matching distribution found for torch==2.13.0" in line and f"build/install-{target}.log" in line for line in lines)


def test_a_taken_port_is_named_before_anything_is_built(checkout):
    executable(checkout / ".venv/bin/python", f'cd "{ROOT}" && exec "{sys.executable}" "$@"\n')
    os.utime(checkout / "pyproject.toml", (0, 0))
    os.utime(checkout / "constraints.txt", (0, 0))
    (checkout / ".venv/site.installed").touch()
    with socket.socket() as taken:
        taken.bind((serve.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        run = subprocess.run(["make", "site", f"PORT={port}"], cwd=checkout, capture_output=True, text=True)
    assert run.returncode and f"port {port} is taken; choose another: make site PORT={port + 1}" in run.stderr
    assert not (checkout / "site").exists()


def test_an_impossible_port_and_a_missing_site_are_refused(tmp_path, capsys):
    assert serve.main(["--port", "70000"]) == 1
    assert "port 70000 does not exist" in capsys.readouterr().err
    with socket.socket() as probe:
        probe.bind((serve.HOST, 0))
        free = probe.getsockname()[1]
    assert serve.main(["--port", str(free), "--folder", str(tmp_path)]) == 1
    assert "run `make build` first" in capsys.readouterr().err


def test_the_server_serves_pages_and_its_own_404(tmp_path):
    (tmp_path / "index.html").write_text("home")
    (tmp_path / "404.html").write_text("nothing here")
    with ThreadingHTTPServer((serve.HOST, 0), partial(serve.Handler, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://{serve.HOST}:{server.server_port}"
        assert urllib.request.urlopen(f"{address}/").read() == b"home"
        with pytest.raises(urllib.error.HTTPError) as missing:
            urllib.request.urlopen(f"{address}/nowhere")
        assert missing.value.code == 404 and missing.value.read() == b"nothing here"
        server.shutdown()
