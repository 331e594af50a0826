"""No page kind breaks a rule of WCAG 2.2 AA that axe can see, in light and in dark; everything can be reached by keyboard."""

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.site.test_browser import KINDS

pytestmark = pytest.mark.browser
RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(browser, address, scheme):
    page = browser.new_context(color_scheme=scheme, viewport={"width": 1280, "height": 900}, bypass_csp=True).new_page()
    found = {}
    for kind, path in {**KINDS, "not found": "no/such/page/"}.items():
        page.goto(address + path)
        page.wait_for_timeout(200)
        violations = Axe().run(page, options=RULES).response["violations"]
        if violations:
            found[kind] = [(v["id"], [node["html"][:160] for node in v["nodes"][:4]]) for v in violations]
    assert not found, "\n".join(f"{kind}: {rules}" for kind, rules in found.items())
