"""The whole catalog as one JSON document, and the JSON Schema of that document.

The document holds the lists papers, methods, codebases, resources, reading_lists, taxonomy, venues, people and redirects.
Each record has its `id` and every field of its type (null or empty where nothing is recorded); a method also has its `chapter` and its
`implementation`, "module:function" or null.
"""

from __future__ import annotations

import json

from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from tools.catalog import TABLES, Catalog
from tools.records import KINDS, Chapter, Slug
from tools.rules import ID_TYPES

TYPES = {**KINDS, **TABLES}


def json_document(catalog: Catalog) -> str:
    document = {}
    for kind in TYPES:
        document[kind] = [
            {"id": id} | _computed(catalog, kind, id) | record.model_dump(mode="json")
            for id, record in sorted(getattr(catalog, kind).items())
        ]
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _computed(catalog: Catalog, kind: str, id: str) -> dict[str, str | None]:
    if kind != "methods":
        return {}
    return {"chapter": catalog.chapters[id], "implementation": catalog.implementation(id)}


def json_schema(catalog: Catalog) -> str:
    """What every such document satisfies; it depends on the types only, not on the catalog."""
    _, schema = models_json_schema([(type_, "serialization") for type_ in TYPES.values()], ref_template="#/$defs/{model}")
    defs = schema["$defs"]
    for kind, type_ in TYPES.items():
        computed = {"id": TypeAdapter(ID_TYPES.get(kind, Slug)).json_schema()}
        if kind == "methods":
            target = {"type": "string", "pattern": r"^reference_impls\.[a-z_]+\.[a-z0-9_]+:[a-z0-9_]+$"}
            computed |= {"chapter": TypeAdapter(Chapter).json_schema(), "implementation": {"anyOf": [target, {"type": "null"}]}}
        record = defs[type_.__name__]
        record["properties"] = computed | record["properties"]
        record["required"] = list(record["properties"])
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Model Fusion Atlas: the whole catalog",
        "type": "object",
        "properties": {kind: {"type": "array", "items": {"$ref": f"#/$defs/{type_.__name__}"}} for kind, type_ in TYPES.items()},
        "required": list(TYPES),
        "additionalProperties": False,
        "$defs": defs,
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"
