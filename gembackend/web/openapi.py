"""The description of the API (OpenAPI 3.1), made of the route table and the types that go in and out."""

import inspect
import re
from collections.abc import Sequence
from typing import Any

from gembackend import __version__
from gembackend.web import openapi_errors as errors
from gembackend.web.openapi_examples import example_of
from gembackend.web.openapi_schemas import components, reference
from gembackend.web.openapi_text import GROUPS, INTRODUCTION, REPLY_HEADERS, TITLE
from gembackend.web.params import REQUEST_ID
from gembackend.web.problems import Problem
from gembackend.web.routing import Parameter, Route

_NAMED = re.compile(r"{(\w+)}")


def describe(routes: Sequence[Route], prefix: str = "") -> dict[str, Any]:
    """The OpenAPI document of these routes, which browsers see below a prefix."""
    requests = {kind for route in routes for kind in (route.body, route.raw_body) if kind is not None}
    replies = {route.reply for route in routes if route.reply is not None}
    schemas = components([*requests], [Problem, *replies])
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": TITLE,
            "version": __version__,
            "summary": "A chat backend over Gemini",
            "description": INTRODUCTION,
        },
        "servers": [{"url": prefix or "/", "description": "Where this description came from."}],
        "tags": [{"name": name, "description": text} for name, text in GROUPS.items()],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "responses": _error_responses(routes),
            "headers": {
                name: {"description": text, "schema": {"type": "string"}, "example": example}
                for name, (text, example) in REPLY_HEADERS.items()
            },
            "parameters": {REQUEST_ID.name: _parameter(REQUEST_ID)},
            "securitySchemes": {
                "session": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "The `token` that `POST /v1/auth/verify-otp` gave.",
                }
            },
        },
    }


def operation_id(method: str, path: str) -> str:
    """The name of an operation, such as `getPromptByPromptId`."""
    words = re.findall(r"[A-Za-z0-9]+", path.removeprefix("/v1/").replace("{", "by_") or "card")
    return method.lower() + "".join(word.capitalize() for part in words for word in part.split("_"))


def _operation(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": operation_id(route.method, route.path),
        "tags": [route.group],
        "summary": route.summary,
        "description": route.description or inspect.getdoc(route.handler) or route.summary,
        "security": [{"session": []}] if route.session else [],
        "parameters": [
            *(_path_parameter(name) for name in _NAMED.findall(route.path)),
            *(_parameter(parameter) for parameter in route.parameters),
            {"$ref": f"#/components/parameters/{REQUEST_ID.name}"},
        ],
    }
    if body := route.body or route.raw_body:
        operation["requestBody"] = {"required": True, "content": {"application/json": _content(body, schemas)}}
    operation["responses"] = {
        **{str(status): _reply(route, status, schemas) for status in sorted((route.success, *route.also))},
        **{
            str(status): {"$ref": f"#/components/responses/{errors.component_name(codes)}"}
            for status, codes in errors.by_status(route).items()
        },
    }
    return operation


def _reply(route: Route, status: int, schemas: dict[str, Any]) -> dict[str, Any]:
    """The answer when all is well, or when something is not and the reply says so itself."""
    names = ["X-Request-ID", *route.headers, *(["Retry-After"] if status == 503 else [])]
    reply: dict[str, Any] = {
        "description": "No content" if status == 204 else route.summary,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names},
    }
    if route.reply is not None:
        reply["content"] = {media: _content(route.reply, schemas) for media in route.media}
    elif status != 204:
        example = {"example": route.example} if route.example else {}
        reply["content"] = {media: {"schema": {"type": "string"}, **example} for media in route.media}
    return reply


def _content(kind: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    schema = reference(kind)
    return {"schema": schema, "example": example_of(schema, schemas)}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    described = {
        "name": parameter.name,
        "in": parameter.where,
        "required": parameter.required,
        "description": parameter.description,
        "schema": reference(parameter.type),
    }
    return described if parameter.example is None else {**described, "example": parameter.example}


def _path_parameter(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": f"The {name.removesuffix('_id').replace('_', ' ')}'s id.",
        "schema": {"type": "string", "format": "uuid"} if name.endswith("_id") else {"type": "string"},
        "example": "01980f5d-ac96-774b-bcce-b302099a8057" if name.endswith("_id") else "start.js",
    }


def _error_responses(routes: Sequence[Route]) -> dict[str, Any]:
    """Every error response that some route has, by name."""
    found = {
        errors.component_name(codes): errors.response(status, codes)
        for route in routes
        for status, codes in errors.by_status(route).items()
    }
    return dict(sorted(found.items()))
