"""The errors of the API description: which a route may answer with, and how they look."""

from collections import defaultdict
from typing import Any

from gembackend.plumbing.faults import CODES, Code, CodeName, Family
from gembackend.web.problems import PROBLEM_JSON, STATUSES, status_of, type_of
from gembackend.web.routing import Route

_ANY: tuple[CodeName, ...] = ("malformed_request", "internal_error")
_SESSION: tuple[CodeName, ...] = ("unauthorized", "database_unavailable", "shutting_down")
_BODY: tuple[CodeName, ...] = ("malformed_json", "payload_too_large", "unsupported_media_type", "validation_failed")


def codes_of(route: Route) -> list[Code]:
    """Every fault code that a route may answer with, in the registry's order."""
    names: set[CodeName] = {*_ANY, *route.errors}
    if route.session:
        names.update(_SESSION)
    if route.body is not None:
        names.update((*_BODY, "database_unavailable"))
    if route.refuses_bodies:
        names.update(_BODY)
    if any(parameter.type is not str for parameter in route.parameters):
        names.add("validation_failed")
    if "{" in route.path:
        names.add("not_found")
    return [code for code in CODES.values() if code.name in names]


def by_status(route: Route) -> dict[int, list[Code]]:
    """The same, by HTTP status."""
    statuses: defaultdict[int, list[Code]] = defaultdict(list)
    for code in codes_of(route):
        statuses[status_of(code)].append(code)
    return dict(sorted(statuses.items()))


def component_name(codes: list[Code]) -> str:
    """The name under which the description keeps a response with any of these codes."""
    return "Or".join("".join(word.capitalize() for word in code.name.split("_")) for code in codes)


def response(status: int, codes: list[Code]) -> dict[str, Any]:
    """A response of one status, whose problem document has any of these codes."""
    headers = {"X-Request-ID": {"$ref": "#/components/headers/X-Request-ID"}}
    if status == STATUSES[Family.UNAUTHORIZED]:
        headers["WWW-Authenticate"] = {"$ref": "#/components/headers/WWW-Authenticate"}
    if status in (STATUSES[Family.LIMITED], STATUSES[Family.UNAVAILABLE]):
        headers["Retry-After"] = {"$ref": "#/components/headers/Retry-After"}
    narrowed = {"properties": {"status": {"const": status}, "code": {"enum": [code.name for code in codes]}}}
    return {
        "description": "; ".join(f"`{code.name}`: {code.title}" for code in codes),
        "headers": headers,
        "content": {
            PROBLEM_JSON: {
                "schema": {"allOf": [{"$ref": "#/components/schemas/Problem"}, narrowed]},
                "examples": {code.name: {"value": _example(code)} for code in codes},
            }
        },
    }


def registry_table() -> str:
    """Every code of the registry, as a Markdown table."""
    rows = [f"| `{code.name}` | {status_of(code)} | {code.title} |" for code in CODES.values()]
    return "\n".join(["| code | status | title |", "| --- | --- | --- |", *rows])


def _example(code: Code) -> dict[str, Any]:
    example: dict[str, Any] = {
        "type": type_of(code),
        "title": code.title,
        "status": status_of(code),
        "detail": f"{code.title}: a sentence for people, which may change.",
        "code": code.name,
        "request_id": "7c1e0d6a4bb14d8f9a51c4e6d2f0a3b9",
    }
    if code.name == "validation_failed":
        example["errors"] = [{"field": "name", "message": "Expected str of length >= 1"}]
    return example
