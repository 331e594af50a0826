"""What other programs read from the head of a page: Highwire names, Open Graph and schema.org.

Plain values; the theme escapes them where it prints them.
"""

from __future__ import annotations

from collections.abc import Mapping

from tools.exporting import links
from tools.records import Method, Paper, Venue


def citation(paper: Paper, venue: Venue | None) -> dict[str, object]:
    """What reference managers read, printed as citation_<key>. The page does not host the paper, so no PDF is named."""
    journal = venue is not None and venue.kind == "journal"
    found = {
        "title": paper.title,
        "author": list(paper.authors),
        "publication_date": str(paper.year),
        "journal_title" if journal else "conference_title": venue.name if venue else None,
        "doi": paper.doi,
        "arxiv_id": paper.arxiv,
    }
    return {key: value for key, value in found.items() if value}


def social(title: str, description: str) -> dict[str, str]:
    """What a shared link shows, printed as og:<key>."""
    return {"title": title, "description": description, "type": "article", "site_name": "Model Fusion Atlas"}


def article(paper: Paper, venue: Venue | None, orcids: Mapping[str, str]) -> dict[str, object]:
    """The paper as schema.org's ScholarlyArticle; an author whose ORCID is known is identified by it."""
    held = {"conference": "CreativeWork", "workshop": "CreativeWork", "journal": "Periodical"}.get(venue.kind) if venue else None
    found = {
        "@context": "https://schema.org",
        "@type": "ScholarlyArticle",
        "name": paper.title,
        "author": [_author(name, orcids) for name in paper.authors],
        "datePublished": str(paper.year),
        "isPartOf": {"@type": held, "name": venue.name} if held else None,
        "description": paper.summary,
        "sameAs": links(paper),
    }
    return {key: value for key, value in found.items() if value}


def _author(name: str, orcids: Mapping[str, str]) -> dict[str, str]:
    known = {"@id": f"https://orcid.org/{orcids[name]}"} if name in orcids else {}
    return {"@type": "Person", **known, "name": name}


def software(method: Method, paper: Paper | None, venue: Venue | None, orcids: Mapping[str, str]) -> dict[str, object]:
    """The implementation of a method as schema.org's SoftwareSourceCode, with the paper that it follows."""
    found: dict[str, object] = {
        "@context": "https://schema.org",
        "@type": "SoftwareSourceCode",
        "name": method.name,
        "alternateName": list(method.aliases),
        "description": method.summary,
        "programmingLanguage": "Python",
        "runtimePlatform": "PyTorch",
        "license": "https://spdx.org/licenses/MIT.html",
    }
    if paper:
        cited = article(paper, venue, orcids)
        found["citation"] = {key: value for key, value in cited.items() if key not in ("@context", "description")}
    return {key: value for key, value in found.items() if value}
