from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.site.building import ROOT, build, config_for
from tools import site as site_tool


def pytest_collection_modifyitems(items):
    """The built sites are shared: keep these tests on one worker."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("site"))


@pytest.fixture(scope="session")
def real_docs(tmp_path_factory) -> Path:
    """A copy of docs/ with the pages of the real catalog."""
    docs = tmp_path_factory.mktemp("real") / "docs"
    shutil.copytree(ROOT / "docs", docs, ignore=shutil.ignore_patterns("catalog"))
    assert site_tool.main(["--catalog", str(ROOT / "catalog"), "--docs", str(docs)]) == 0
    return docs


@pytest.fixture(scope="session")
def real_config(real_docs) -> Path:
    return config_for(real_docs, real_docs.parent, guide=True)


@pytest.fixture(scope="session")
def real_site(real_docs, real_config) -> Path:
    """The real site, built as strictly as it is published."""
    site = real_docs.parent / "site"
    result = build(real_config, site)
    assert result.returncode == 0, result.stdout + result.stderr
    return site
