import filecmp
import gzip
import json
import re
import shutil
from urllib.parse import urljoin, urlparse

import pytest
import yaml

from tests.site.building import ROOT, Elements, build, chromium, config_for, served, stub_guide
from tools import csp


def html(site):
    return sorted(site.rglob("*.html"))


def test_the_strict_build_passes_and_every_page_is_there(real_docs, real_site):
    for page in real_docs.rglob("*.md"):
        path = page.relative_to(real_docs).with_suffix("")
        target = path.parent if path.name == "index" else path
        assert (real_site / target / "index.html").is_file()


def test_a_dead_link_and_a_dead_anchor_fail_the_build(tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text("# Home\n\n[gone](catalog/papers/nobody2020x.md)\n")
    config = tmp_path / "mkdocs.yml"
    text = (ROOT / "mkdocs.yml").read_text().replace("custom_dir: overrides", f"custom_dir: {ROOT / 'overrides'}")
    config.write_text(re.sub(r"^nav:.*?(?=^\S)", "", text, flags=re.DOTALL | re.MULTILINE))
    result = build(config, tmp_path / "site")
    assert result.returncode != 0 and "nobody2020x" in result.stdout + result.stderr
    (docs / "index.md").write_text("# Home\n\n[gone](#nowhere)\n")
    result = build(config, tmp_path / "site")
    assert result.returncode != 0 and "nowhere" in result.stdout + result.stderr


def test_every_link_and_file_of_the_built_pages_exists(real_site):
    """Also what the builder does not check: links in raw HTML, scripts, styles, images."""
    missing = set()
    for page in html(real_site):
        address = f"http://site/{page.relative_to(real_site).as_posix()}".removesuffix("index.html")
        for _, attributes in Elements(page.read_text(encoding="utf-8")).tags:
            for name in ("href", "src"):
                target = urlparse(urljoin(address, attributes.get(name, "")))
                if name in attributes and target.netloc == "site" and page.name != "404.html":
                    path = real_site / target.path.lstrip("/")
                    if not (path.is_file() or (path / "index.html").is_file()):
                        missing.add((address, attributes[name]))
    assert not missing


def test_nothing_is_fetched_from_another_host(real_site):
    for page in html(real_site):
        for tag, attributes in Elements(page.read_text(encoding="utf-8")).tags:
            sources = [attributes.get("src", ""), attributes.get("srcset", "")]
            if tag == "link" and attributes.get("rel") not in ("canonical", "prev", "next"):
                sources.append(attributes.get("href", ""))
            assert not any(re.match(r"(https?:)?//", source) for source in sources), f"{page}: <{tag} {attributes}>"
            assert "style" not in attributes, f"{page}: <{tag} {attributes}> has an inline style"
    for style in real_site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(https?:)?//", style.read_text(encoding="utf-8")), style


def test_katex_is_on_pages_with_mathematics_and_on_no_other(real_site):
    for page in html(real_site):
        text = page.read_text(encoding="utf-8")
        assert ('class="arithmatex"' in text) <= ("katex.min.js" in text), f"{page} has mathematics and no KaTeX"
        if "catalog/" in page.as_posix() and "catalog/methods/" not in page.as_posix():
            assert "katex" not in text, page


def test_the_navigation_does_not_grow_with_the_catalog(real_site):
    """Every page links to the same few places outside its content."""
    config = yaml.safe_load(re.sub(r"!!\S+|!ENV", "", (ROOT / "mkdocs.yml").read_text()))
    assert len(re.findall(r"\.md", json.dumps(config["nav"]))) < 25
    page = (real_site / "catalog" / "papers" / "yadav2023ties" / "index.html").read_bytes()
    assert len(page) < 40_000 and len(gzip.compress(page)) < 9_000


def test_every_page_loads_a_small_index_and_records_come_with_the_first_word(real_site):
    """The theme fetches its own index with every page: it holds what is written by hand. Our worker fetches the records."""
    index = (real_site / "search" / "search_index.json").read_bytes()
    places = [entry["location"] for entry in json.loads(index)["docs"]]
    assert places and not any(place.startswith("catalog/") for place in places)
    assert len(gzip.compress(index)) < 40_000
    records = json.loads((real_site / "catalog" / "search.json").read_bytes())
    for _, place, *_ in records["docs"]:
        assert (real_site / place.split("#")[0] / "index.html").is_file(), place
    for page in html(real_site):
        assert 'assets/javascripts/search.js"' in page.read_text(encoding="utf-8"), f"{page} asks the theme's own worker"


def test_another_builder_makes_the_same_site(real_config, real_site, tmp_path):
    result = build(real_config, tmp_path, builder="properdocs")
    assert result.returncode == 0, result.stdout + result.stderr
    files = {file.relative_to(real_site) for file in real_site.rglob("*") if file.is_file()}
    assert files == {file.relative_to(tmp_path) for file in tmp_path.rglob("*") if file.is_file()}
    for file in files:
        if not filecmp.cmp(real_site / file, tmp_path / file, shallow=False) and file.name != "sitemap.xml.gz":
            assert normal((real_site / file).read_text(encoding="utf-8")) == normal((tmp_path / file).read_text(encoding="utf-8")), file


def normal(text):
    text = re.sub(r'<meta name="generator" content="[^"]*">', "", text)
    return re.sub(r"<lastmod>[^<]*</lastmod>", "", text)


@pytest.mark.browser
def test_the_toy_catalog_builds_as_strictly_and_an_old_address_leads_on(tmp_path):
    from tools.site import main

    docs = tmp_path / "docs"
    shutil.copytree(ROOT / "docs", docs, ignore=shutil.ignore_patterns("catalog", "guide", "index.md"))
    stub_guide(docs)
    assert main(["--catalog", str(ROOT / "tests" / "toy_catalog"), "--docs", str(docs)]) == 0
    site = tmp_path / "site"
    result = build(config_for(docs, tmp_path), site)
    assert result.returncode == 0, result.stdout + result.stderr

    old, new = "catalog/papers/ilharco2022editing/", "catalog/papers/ilharco2023task/"
    assert csp.main([str(site)]) == 0
    moved = (site / old / "index.html").read_text(encoding="utf-8")
    assert csp.MARK in moved and "by the year of its preprint" in moved
    assert '<link rel="canonical" href="../ilharco2023task/">' in moved
    assert old not in (site / "search" / "search_index.json").read_text(encoding="utf-8")
    assert not any(old in page.read_text(encoding="utf-8") for page in html(site) if page != site / old / "index.html")
    with served(site) as address, chromium() as browser:
        page = browser.new_context(java_script_enabled=False).new_page()
        page.goto(address + old)
        page.wait_for_url(address + new)
        plain = browser.new_page()
        plain.set_content(re.sub(r"<meta http-equiv=.(?:refresh|Content)[^>]*>", f'<base href="{address}{old}">', moved))
        plain.get_by_role("link", name="Editing Models with Task Arithmetic").click()
        plain.wait_for_url(address + new)


def test_a_paper_page_and_a_first_visit_are_light(real_site):
    """Within 8 and 100 kB, compressed: what a reader on a slow line waits for."""
    for page in (real_site / "catalog" / "papers").glob("*/index.html"):
        assert len(gzip.compress(page.read_bytes())) <= 8_000, page
    home = (real_site / "index.html").read_text(encoding="utf-8")
    files = {real_site / "index.html", real_site / "search" / "search_index.json"}
    files |= {real_site / name for name in re.findall(r'(?:src|href)="([^"#?:]+\.(?:js|css|svg|png|woff2))', home)}
    assert len(files) > 6 and sum(len(gzip.compress(file.read_bytes())) for file in files) <= 100_000
