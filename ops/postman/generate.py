"""Writes the Postman collection and its environment out of the API description: see --help."""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gembackend import config
from gembackend.app import Service
from gembackend.web.openapi import describe
from gembackend.web.server import ROUTES
from ops.postman.journey import ENVIRONMENT, JOURNEY, VARIABLES, Folder, Step

HERE = Path(__file__).parent
COLLECTION = HERE / "gembackend.postman_collection.json"
ENVIRONMENT_FILE = HERE / "gembackend.postman_environment.json"

DESCRIPTION = """\
Goes through the whole API from top to bottom: choose the environment, run the collection. A new user is made each
time, so it can be run again. It needs OTP_DELIVERY=response and Stripe, or its stand-in, all of which `./ops/run` has.
"""


def collection(document: dict[str, Any]) -> dict[str, Any]:
    """The collection of an API description."""
    return {
        "info": {
            "name": "gembackend",
            "description": DESCRIPTION,
            "schema": "https://schema.getpostman.com/json/collection/v2.1.0/collection.json",
        },
        "auth": {"type": "bearer", "bearer": [{"key": "token", "value": "{{token}}", "type": "string"}]},
        "item": [
            {"name": folder.name, "item": [_item(document, step) for step in _steps(document, folder)]}
            for folder in JOURNEY
        ],
    }


def environment() -> dict[str, Any]:
    """The variables, as they are before the first request."""
    values = [{"key": key, "value": value, "enabled": True} for key, value in ENVIRONMENT.items()]
    return {"name": "gembackend (local)", "values": values, "_postman_variable_scope": "environment"}


def _steps(document: dict[str, Any], folder: Folder) -> Iterator[Step]:
    """The folder's steps, then the endpoints of its group that no folder names."""
    yield from folder.steps
    named = {(step.method, step.path) for each in JOURNEY for step in each.steps}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            answers = operation["responses"]
            if folder.group in operation["tags"] and (method.upper(), path) not in named:
                query = {
                    parameter["name"]: str(parameter["example"])
                    for parameter in operation["parameters"]
                    if parameter.get("in") == "query" and parameter["required"]
                }
                statuses = tuple(int(status) for status in answers if status != "500")
                yield Step(method.upper(), path, statuses, query=query)


def _item(document: dict[str, Any], step: Step) -> dict[str, Any]:
    operation = document["paths"][step.path][step.method.lower()]
    path = step.path.replace("{asset}", "start.js").replace("{", "{{").replace("}", "}}")
    body = _body(operation, step)
    headers = step.headers | ({"Content-Type": "application/json"} if body is not None else {})
    query = [{"key": key, "value": value} for key, value in step.query.items()]
    raw = "&".join(f"{key}={value}" for key, value in step.query.items())
    request: dict[str, Any] = {
        "method": step.method,
        "header": [{"key": key, "value": value} for key, value in headers.items()],
        "url": {
            "raw": f"{{{{base_url}}}}{path}" + (f"?{raw}" if raw else ""),
            "host": ["{{base_url}}"],
            "path": path.removeprefix("/").split("/"),
            **({"query": query} if query else {}),
        },
        "description": operation["description"],
    }
    if not operation["security"]:
        request["auth"] = {"type": "noauth"}
    if body is not None:
        request["body"] = {
            "mode": "raw",
            "raw": json.dumps(body, indent=2, ensure_ascii=False),
            "options": {"raw": {"language": "json"}},
        }
    events = [_script("test", _tests(document, operation, step))]
    if step.before:
        events.insert(0, _script("prerequest", [step.before]))
    return {"name": step.name or operation["summary"], "request": request, "event": events, "response": []}


def _body(operation: dict[str, Any], step: Step) -> dict[str, Any] | None:
    if "requestBody" not in operation:
        return None
    example = operation["requestBody"]["content"]["application/json"]["example"]
    return {key: step.body.get(key, VARIABLES.get(key, value)) for key, value in example.items()}


def _tests(document: dict[str, Any], operation: dict[str, Any], step: Step) -> list[str]:
    """The test script: the status, the request id, the members of the reply, and what the step itself looks at."""
    statuses = ", ".join(map(str, step.status))
    lines = [
        f'pm.test("the status is right: {statuses}", () => pm.expect(pm.response.code).to.be.oneOf([{statuses}]));',
        'pm.test("the request has an id", () => pm.expect(pm.response.headers.get("X-Request-ID")).to.be.ok);',
    ]
    required = _required(document, operation, step.status[0])
    if required or step.saves or step.checks:
        lines.append(f"const reply = pm.response.code === 204 ? {{}} : pm.response.{_kind(operation)}();")
    if required and len(step.status) == 1:
        lines.append(
            f'pm.test("the reply has what is described", '
            f"() => pm.expect(reply).to.include.all.keys({json.dumps(required)}));"
        )
    lines += [f"pm.test({json.dumps(sentence)}, () => {{ {check} }});" for sentence, check in step.checks.items()]
    lines += [f'pm.environment.set("{name}", reply.{member});' for name, member in step.saves.items()]
    return lines


def _kind(operation: dict[str, Any]) -> str:
    """How a script reads the reply."""
    streams = any("text/event-stream" in answer.get("content", {}) for answer in operation["responses"].values())
    return "text" if streams else "json"


def _required(document: dict[str, Any], operation: dict[str, Any], status: int) -> list[str]:
    """The members that the reply with this status must have."""
    schema = operation["responses"][str(status)].get("content", {}).get("application/json", {}).get("schema", {})
    model = schema.get("$ref", "").rpartition("/")[2]
    return list(document["components"]["schemas"].get(model, {}).get("required", []))


def _script(listen: str, lines: list[str]) -> dict[str, Any]:
    return {"listen": listen, "script": {"type": "text/javascript", "exec": lines}}


async def current() -> dict[str, Any]:
    """The description of what the service serves; nothing is started for it."""
    service = Service(
        config.load(
            {
                "DATABASE_URL": "postgresql://127.0.0.1/unused",
                "REDIS_URL": "redis://127.0.0.1/0",
                "JWT_SECRET_KEY": "unused but long enough: 8Zk2TqVw5RmXj7Lp",
            },
            "dev",
        )
    )
    try:
        return describe(service.app[ROUTES])
    finally:
        await service.stop(1)


def files(document: dict[str, Any]) -> dict[Path, str]:
    """What belongs into which file."""
    written = {COLLECTION: collection(document), ENVIRONMENT_FILE: environment()}
    return {path: json.dumps(value, indent=2, ensure_ascii=False) + "\n" for path, value in written.items()}


def main() -> int:
    """Write the files, or with --check say whether they are up to date."""
    parser = argparse.ArgumentParser(
        prog="python -m ops.postman.generate", description="Writes the Postman collection out of the API description."
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is out of date")
    check = parser.parse_args().check
    outdated = [
        (path, text)
        for path, text in files(asyncio.run(current())).items()
        if not path.exists() or path.read_text() != text
    ]
    for path, text in outdated:
        if not check:
            path.write_text(text)
        print(f"{path.name}: {'out of date' if check else 'written'}")
    return 1 if check and outdated else 0


if __name__ == "__main__":
    sys.exit(main())
