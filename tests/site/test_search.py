"""The search box: who knows what they look for finds it among the first three results."""

import gzip
import json
import shutil

import pytest

from tests.site.building import ROOT, chromium, served
from tests.site.test_browser import open_page
from tests.tools.generate import make_catalog
from tools import csp, explorer
from tools.catalog import load

KNOWN = {
    # names and other names of methods
    "TIES": "methods/ties_merging",
    "TA": "methods/task_arithmetic",
    "task arithmetic": "methods/task_arithmetic",
    "Git Re-Basin": "methods/weight_matching",
    "git rebasin": "methods/weight_matching",
    "DARE": "methods/dare",
    "drop and rescale": "methods/dare",
    "SLERP": "methods/slerp",
    "model soups": "papers/wortsman2022soups",
    "greedy soup": "methods/greedy_soup",
    "fisher merging": "methods/fisher_merging",
    "frankenmerge": "methods/passthrough",
    "zipit": "methods/zipit",
    "adamerging++": "methods/adamerging",
    "regmean": "methods/regmean",
    "V2S": "methods/voice2series",
    "TSV-M": "methods/tsv_merging",
    "optimal transport fusion": "methods/otfusion",
    # titles, in part and with a slip
    "super mario": "papers/yu2024dare",
    "resolving interference": "papers/yadav2023ties",
    "editing models": "papers/ilharco2023task",
    "loss surfaces mode connectivity": "papers/garipov2018loss",
    "knowledge amalgmation heterogeneous gnn": "methods/gnn_amalgamation",
    "evolutionary optimization recipes": "papers/akiba2024evolutionary",
    # authors
    "yadav": "papers/yadav2023ties",
    "ainsworth": "papers/ainsworth2023gitrebasin",
    "matena raffel": "papers/matena2022fisher",
    "frankle linear mode": "papers/frankle2020linear",
    # arXiv ids and places
    "2306.01708": "papers/yadav2023ties",
    "2203.05482": "papers/wortsman2022soups",
    # other pages
    "notation": "guide/notation",
    "loss barrier": "guide/notation",
    "mergekit": "codebases/mergekit",
}

ASK = """async (queries) => {
  const answer = (message, type) => new Promise((done) => {
    worker.onmessage = ({ data }) => data.type === type && done(data.data);
    worker.postMessage(message);
  });
  const config = JSON.parse(document.getElementById("__config").textContent);
  const worker = new Worker(new URL(config.search, location));
  const index = await (await fetch("search/search_index.json")).json();
  await answer({ type: 0, data: { ...index, options: {} } }, 1);
  const found = {};
  for (const query of queries) found[query] = (await answer({ type: 2, data: query }, 3)).items.map((group) => group[0].location);
  return found;
}"""


@pytest.mark.browser
def test_known_items_are_among_the_first_three_and_a_method_by_its_name_is_first(real_site):
    names = {}
    for id, method in load(ROOT).methods.items():
        names.setdefault(method.name, id)
    with served(real_site) as address, chromium() as browser:
        page = open_page(browser, address)
        page.goto(address)
        found = page.evaluate(ASK, [*KNOWN, *names])
    missed = {query: found[query][:3] for query, place in KNOWN.items() if not any(f"{place}/" in hit for hit in found[query][:3])}
    assert len(KNOWN) >= 30 and not missed
    behind = {name: found[name][:2] for name, id in names.items() if found[name][:1] != [f"catalog/methods/{id}/"]}
    assert not behind


@pytest.mark.browser
def test_the_index_is_fetched_with_the_first_word_and_the_best_result_opens(real_site, tmp_path):
    """In the sealed site, by keyboard, with a word that is typed before the index is there."""
    sealed = tmp_path / "site"
    shutil.copytree(real_site, sealed, ignore=lambda folder, names: [n for n in names if n in ("years", "venues")])
    csp.main([str(sealed)])
    with served(sealed) as address, chromium() as browser:
        page = open_page(browser, address, viewport={"width": 1280, "height": 900})
        fetched = []
        page.on("request", lambda request: fetched.append(request.url.removeprefix(address)))
        page.goto(address)
        page.wait_for_load_state("networkidle")
        assert "catalog/search.json" not in fetched
        page.keyboard.press("/")
        page.keyboard.type("ties merging")
        page.wait_for_selector(".md-search-result__item")
        assert fetched.count("catalog/search.json") == 1
        assert page.locator(".md-search-result__item h1 mark").first.text_content() == "TIES"
        page.keyboard.press("Enter")
        page.wait_for_url("**/catalog/methods/ties_merging/**")
        assert not page.problems


def test_the_index_of_1500_papers_is_small(tmp_path):
    """Words that were drawn at random are the worst case: real ones repeat and compress."""
    catalog = load(make_catalog(tmp_path / "catalog", 1500).parent)
    index = explorer.dump(explorer.search_index(catalog, []))
    assert len(json.loads(index)["docs"]) > 1500 and len(gzip.compress(index.encode())) < 350_000
