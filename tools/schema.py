"""JSON Schemas for editors, written from the types into `catalog/schema/`; `python -m tools fmt` writes them."""

from __future__ import annotations

import json

from pydantic import TypeAdapter

from tools.records import KINDS, Line, Node, Person, Redirect, Reference, Slug, TaxonomyId, Venue

FOLDER = "schema"


def schemas() -> dict[str, str]:
    """File name -> the text that belongs there."""
    tables = {
        "taxonomy": dict[TaxonomyId, Node],
        "venues": dict[Slug, Venue],
        "people": dict[Line, Person],
        "redirects": dict[Reference, Redirect],
    }
    types = {**KINDS, **tables}
    return {f"{kind}.json": _text(kind, TypeAdapter(type_).json_schema()) for kind, type_ in types.items()}


def _text(kind: str, schema: dict) -> str:
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": kind}
    if "patternProperties" in schema:  # a table: a key that is not an id would pass unseen
        schema["additionalProperties"] = False
    return json.dumps({**head, **schema, **head}, indent=2, ensure_ascii=False) + "\n"
