"""What the OpenAPI document says beyond what FastAPI sees: parameters of addresses, and errors.

The routes read their parameters by name, so that one that is not known can be refused; here is what
each name means. Every error has one form, whatever refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI

from exemplars.explorer.answers import API
from exemplars.explorer.queries import OPERATIONS, PAGE

_TEXT: Mapping[str, Any] = {"type": "string"}
_PAGE: Mapping[str, Any] = {"type": "integer", "minimum": 1, "maximum": PAGE}
_NAMES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "_extra": ("sections to add, with commas between", _TEXT),
    "_facet": ("a column whose distribution is counted; may be repeated", _TEXT),
    "_next": ("where the page before this one ended", _TEXT),
    "_search": ("words of tokens, labels and contexts", _TEXT),
    "_size": ("rows of the page", _PAGE),
    "_sort": ("a column, the smallest first", _TEXT),
    "_sort_desc": ("a column, the largest first", _TEXT),
    "a": ("the dictionary from which", _TEXT),
    "b": ("the dictionary to which", _TEXT),
    "band": ("two distances in θ: 0.2-0.4", _TEXT),
    "collapse": ("1: members that read alike are one row", _TEXT),
    "cutoff": (
        "the cosine that counts as the same",
        {"type": "number", "minimum": -1, "maximum": 1},
    ),
    "direction": ("of the lens", {"type": "string", "enum": ["exemplar", "mean"]}),
    "fields": ("what is searched, with commas between: token, label, context, lens", _TEXT),
    "ids": ("these regions alone, with commas between", _TEXT),
    "k": ("how many", _PAGE),
    "kind": ("which", _TEXT),
    "names": ("columns, with commas between; all without it", _TEXT),
    "q": ("words", _TEXT),
    "view": ("rows, or the ids alone as u32", {"type": "string", "enum": ["rows", "ids"]}),
}
_LIST = ("_search", "_sort", "_sort_desc", "_size", "_next", "_facet", "ids")
_OF_PATHS: Mapping[str, tuple[str, ...]] = {
    "/d/{slug}/columns/{fingerprint}": ("names",),
    "/d/{slug}/regions": (*_LIST, "view"),
    "/d/{slug}/regions.csv": _LIST,
    "/d/{slug}/regions/{region}": ("_extra",),
    "/d/{slug}/regions/{region}/{section}": (
        "kind", "band", "_size", "_next", "collapse", "direction", "k",
    ),
    "/d/{slug}/search": ("q", "k", "fields"),
    "/drift": ("a", "b", "cutoff"),
    "/drift/columns": ("a", "b"),
    "/drift/sphere": ("a", "b"),
    "/drift/flows": ("a", "b"),
    "/drift/pairs": ("a", "b", "cutoff", "kind", "_sort", "_sort_desc", "_size", "_next"),
}  # fmt: skip
_FILTERS: Mapping[str, Any] = {
    "name": "filters",
    "in": "query",
    "style": "form",
    "explode": True,
    "description": f"COLUMN__OPERATION=value; the operations are {', '.join(OPERATIONS)}",
    "schema": {"type": "object", "additionalProperties": _TEXT},
}
_ERROR: Mapping[str, Any] = {
    "type": "object",
    "required": ["ok", "error", "errors", "status"],
    "properties": {
        "ok": {"const": False},
        "error": {**_TEXT, "description": "one sentence"},
        "errors": {"type": "array", "items": _TEXT},
        "status": {"type": "integer"},
    },
}
_FASTAPIS = ("HTTPValidationError", "ValidationError")


def describe(app: FastAPI) -> None:
    """Have the application's OpenAPI document say what its routes take and how they refuse."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _described(made())
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _described(document: dict[str, Any]) -> dict[str, Any]:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in _FASTAPIS:
        schemas.pop(name, None)
    schemas["Error"] = dict(_ERROR)
    refused = {"$ref": "#/components/schemas/Error"}
    for path, operations in document["paths"].items():
        names = _OF_PATHS.get(path.removeprefix(API), ())
        for operation in operations.values():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = {
                "description": "Refused, or failed",
                "content": {"application/json": {"schema": refused}},
            }
            if names:
                operation.setdefault("parameters", []).extend(map(_parameter, names))
            if "_search" in names:
                operation["parameters"].append(dict(_FILTERS))
    return document


def _parameter(name: str) -> dict[str, Any]:
    description, schema = _NAMES[name]
    return {"name": name, "in": "query", "description": description, "schema": dict(schema)}
