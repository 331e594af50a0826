"""`make site` builds again what changed, and nothing else; a mistake leaves the site as it was."""

import json
import shutil

import pytest

from tests.site.building import ROOT, build, config_for, stub_guide
from tools import serve
from tools import site as site_tool


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The toy catalog with its pages and its built site, in a folder of its own."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    shutil.copytree(ROOT / "tests" / "toy_catalog", tmp_path / "catalog")
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("catalog", "guide", "index.md", "figures", "demos"))
    stub_guide(tmp_path / "docs")
    config_for(tmp_path / "docs", tmp_path)
    assert site_tool.main(["--catalog", str(tmp_path / "catalog"), "--docs", str(tmp_path / "docs")]) == 0
    result = build(tmp_path / "mkdocs.yml", tmp_path / "site", strict=False)
    assert result.returncode == 0, result.stderr
    return tmp_path


def test_a_changed_record_changes_its_page_and_leaves_the_others(project):
    record = project / "catalog/papers/2023/yadav2023ties.yaml"
    page, other = (project / "site/catalog/papers" / id / "index.html" for id in ("yadav2023ties", "ilharco2023task"))
    index = json.loads((project / "site/search/search_index.json").read_text())
    before = other.stat().st_mtime_ns
    record.write_text(record.read_text().replace("summary: ", "summary: Newly said. "))
    assert serve.rebuild(project / "site", project)
    assert "Newly said." in page.read_text() and "Content-Security-Policy" in page.read_text()
    assert "Newly said." not in other.read_text()
    once = other.stat().st_mtime_ns
    assert serve.rebuild(project / "site", project)
    assert other.stat().st_mtime_ns == once >= before
    assert json.loads((project / "site/search/search_index.json").read_text()) == index


def test_a_mistake_is_printed_and_the_site_stays(project, capsys):
    record = project / "catalog/papers/2023/yadav2023ties.yaml"
    page = project / "site/catalog/papers/yadav2023ties/index.html"
    before = page.read_bytes()
    record.write_text(record.read_text().replace("year: 2023", "year: soon"))
    assert not serve.rebuild(project / "site", project)
    assert page.read_bytes() == before
    assert "year" in (printed := capsys.readouterr().out) and "stays as it was" in printed


@pytest.mark.parametrize(
    ("path", "concerned"),
    [
        ("catalog/papers/2023/a.yaml", True),
        ("docs/guide/start.md", True),
        ("mkdocs.yml", True),
        ("docs/catalog/papers/a.md", False),
        ("docs/index.md", False),
        ("catalog/papers/2023/.a.yaml.swp", False),
        ("tools/__pycache__/site.pyc", False),
        ("site/index.html", False),
        ("README.md", False),
    ],
)
def test_only_sources_concern_the_site(tmp_path, path, concerned):
    assert serve.concerns(str(tmp_path / path), tmp_path) is concerned


def test_a_place_outside_does_not_concern_the_site(tmp_path):
    assert not serve.concerns("/elsewhere/catalog/a.yaml", tmp_path)
