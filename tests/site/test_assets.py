import hashlib

import pytest

from tests.site.building import ROOT

ASSETS = ROOT / "docs" / "assets"


@pytest.mark.parametrize("library", ["katex", "minisearch"])
def test_vendored_files_are_the_published_ones(library):
    folder = ASSETS / library
    lines = [line for line in (folder / "SHA256SUMS").read_text().splitlines() if not line.startswith("#")]
    listed = {name: digest for digest, name in (line.split("  ") for line in lines)}
    assert set(listed) == {f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()} - {"SHA256SUMS"}
    for name, digest in listed.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name


def test_formulas_may_not_leave_their_page():
    script = (ASSETS / "javascripts" / "math.js").read_text()
    assert "trust: false" in script
    for file in (ASSETS / "javascripts").glob("*.js"):
        assert "innerHTML" not in file.read_text() and "http" not in file.read_text(), file
