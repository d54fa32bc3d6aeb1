"""Writes api.md from the OpenAPI document: `python -m docs.api`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from promo_service.openapi import openapi_document
from promo_service.settings import Settings

PAGE = Path(__file__).with_name("api.md")

Node = dict[str, Any]


def page() -> str:
    """Return the page for the default prefix and paths."""
    return "\n".join(_lines(openapi_document(Settings("mongodb://localhost", "promo")))) + "\n"


def _lines(document: Node) -> Iterator[str]:
    yield "# API"
    yield ""
    yield "Made from the document that the service answers at `/openapi.json`, which also has the"
    yield "schemas, by `python -m docs.api`. Bodies are JSON, and so is every error:"
    yield '`{"success":false,"error":"<message>","code":"<CODE>"}`.'
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield from _operation(method.upper(), path, operation)


def _operation(method: str, path: str, operation: Node) -> Iterator[str]:
    yield ""
    yield f"## `{method} {path}`"
    yield ""
    yield f"{operation['summary']}."
    if operation.get("security"):
        yield ""
        yield "Needs `Authorization: Bearer <token>`."
    if "requestBody" in operation:
        media = operation["requestBody"]["content"]["application/json"]
        yield ""
        yield "```json"
        yield json.dumps(media["example"])
        yield "```"
    yield ""
    yield "| status | | code |"
    yield "| --- | --- | --- |"
    for status, response in sorted(operation["responses"].items()):
        codes = ", ".join(f"`{code}`" for code in _codes(response))
        yield f"| {status} | {response['description']} | {codes} |"


def _codes(response: Node) -> list[str]:
    schema = response.get("content", {}).get("application/json", {}).get("schema", {})
    codes: list[str] = schema.get("properties", {}).get("code", {}).get("enum", [])
    return codes


if __name__ == "__main__":
    PAGE.write_text(page())
