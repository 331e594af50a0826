from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.site.building import ROOT, build, chromium, config_for, once, served
from tools import site as site_tool


@pytest.fixture(scope="session")
def real_build(tmp_path_factory) -> Path:
    """A copy of docs/ with the pages of the real catalog, and the site built from it as strictly as it is published."""

    def make(folder: Path) -> None:
        shutil.copytree(ROOT / "docs", folder / "docs", ignore=shutil.ignore_patterns("catalog"))
        assert site_tool.main(["--catalog", str(ROOT / "catalog"), "--docs", str(folder / "docs")]) == 0
        result = build(config_for(folder / "docs", folder, guide=True), folder / "site")
        assert result.returncode == 0, result.stdout + result.stderr

    return once(tmp_path_factory, "real", make)


@pytest.fixture(scope="session")
def real_docs(real_build) -> Path:
    return real_build / "docs"


@pytest.fixture(scope="session")
def real_config(real_build) -> Path:
    return real_build / "mkdocs.yml"


@pytest.fixture(scope="session")
def real_site(real_build) -> Path:
    return real_build / "site"


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def address(real_site):
    with served(real_site) as address:
        yield address
