"""The API description: valid, complete, and true to what the service answers."""

import copy
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker
from openapi_spec_validator import OpenAPIV31SpecValidator

from gembackend.app import Service
from gembackend.plumbing.faults import CODES
from gembackend.web.openapi import describe
from gembackend.web.problems import status_of
from gembackend.web.server import ROUTES
from tests.accounts import PASSWORD, Answer, new_phone, settings
from tests.whole import Whole, whole_service

NOWHERE = "01980f5d-ac96-774b-bcce-b302099a8057"
OWN_HEADERS = {
    "Content-Disposition",
    "Location",
    "Preference-Applied",
    "Retry-After",
    "WWW-Authenticate",
    "X-Request-ID",
}


class Description:
    """The document, and what it says of an answer."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self._components = document["components"]
        self._strict = copy.deepcopy(self._components)
        for schema in self._strict["schemas"].values():
            if "properties" in schema:
                schema["additionalProperties"] = False

    def operations(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Method, path and operation of each endpoint."""
        for path, item in self.document["paths"].items():
            for method, operation in item.items():
                yield method.upper(), path, operation

    def operation(self, method: str, path: str) -> dict[str, Any]:
        """The operation that a request goes to."""
        for known, template, operation in self.operations():
            if known == method and re.fullmatch(re.sub(r"{\w+}", "[^/]+", template), path.partition("?")[0]):
                return operation
        raise AssertionError(f"{method} {path} is not described")

    def response(self, operation: dict[str, Any], status: int) -> dict[str, Any]:
        """What is said of one status; fails when nothing is."""
        found = operation["responses"][str(status)]
        if "$ref" in found:
            found = self._components["responses"][found["$ref"].rpartition("/")[2]]
        return dict(found)

    def holds(self, value: Any, schema: dict[str, Any]) -> None:
        """Fail unless a value is what a schema describes, and has no field beyond."""
        whole = {**schema, "components": self._strict}
        Draft202012Validator(whole, format_checker=FormatChecker()).validate(value)

    def confirm(self, method: str, path: str, answer: Answer) -> None:
        """Fail unless an answer's status, headers and body are as described."""
        described = self.response(self.operation(method, path), answer.status)
        assert OWN_HEADERS & answer.headers.keys() <= described["headers"].keys()
        assert "X-Request-ID" in answer.headers
        if answer.status == 204:
            assert not answer.body
            return
        media = answer.headers["Content-Type"].partition(";")[0]
        content = described["content"][media]
        self.holds(answer.body if media.endswith("json") else answer.body.decode(), content["schema"])


@pytest.fixture
async def whole(database_url: str, redis_url: str) -> AsyncIterator[Whole]:
    async with whole_service(database_url, redis_url, BASIC_DAILY_PROMPTS="2") as started:
        yield started


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A service that is not started: enough to describe."""
    made = Service(settings("postgresql://127.0.0.1:9/nothing", "redis://127.0.0.1:9"))
    yield made
    await made.stop(1)


@pytest.fixture
def description(service: Service) -> Description:
    return Description(describe(service.app[ROUTES]))


async def test_a_validator_of_openapi_finds_nothing_wrong(description: Description) -> None:
    assert list(OpenAPIV31SpecValidator(description.document).iter_errors()) == []


async def test_no_licence_is_claimed_that_the_owner_has_not_chosen(description: Description) -> None:
    assert "license" not in description.document["info"]


async def test_every_route_is_described_and_nothing_else(service: Service, description: Description) -> None:
    app = service.app
    served = {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    described = {(method, path) for method, path, _ in description.operations()}
    assert described == served == {(route.method, route.path) for route in app[ROUTES]}


async def test_operations_have_names_groups_and_texts_of_their_own(description: Description) -> None:
    operations = [operation for _, _, operation in description.operations()]
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names))
    groups = {tag["name"] for tag in description.document["tags"]}
    assert {tag for operation in operations for tag in operation["tags"]} <= groups
    assert all(operation["summary"] and operation["description"] for operation in operations)


async def test_every_code_is_listed(description: Description) -> None:
    assert description.document["components"]["schemas"]["ErrorCode"]["enum"] == list(CODES)
    for code in CODES.values():
        assert f"| `{code.name}` | {status_of(code)} |" in description.document["info"]["description"]


async def test_every_path_parameter_is_described(description: Description) -> None:
    for _, path, operation in description.operations():
        named = {parameter["name"] for parameter in operation["parameters"] if parameter.get("in") == "path"}
        assert named == set(re.findall(r"{(\w+)}", path))


async def test_every_example_is_what_its_schema_describes(description: Description) -> None:
    for _, _, operation in description.operations():
        bodies = [operation["requestBody"]] if "requestBody" in operation else []
        for described in [*bodies, *(description.response(operation, int(code)) for code in operation["responses"])]:
            for content in described.get("content", {}).values():
                examples = [example["value"] for example in content.get("examples", {}).values()]
                for example in [*examples, *([content["example"]] if "example" in content else [])]:
                    description.holds(example, content["schema"])
        for parameter in operation["parameters"]:
            if "example" in parameter:
                description.holds(parameter["example"], parameter["schema"])


async def test_a_session_is_asked_for_where_the_description_says_so(whole: Whole, description: Description) -> None:
    whole.client.token = None
    for method, path, operation in description.operations():
        answer = await whole.client.call(method, path.replace("_id}", "").replace("{", NOWHERE))
        assert (answer.status == 401) == bool(operation["security"]), path
        description.confirm(method, path, answer)


class Witness:
    """A client whose every answer must be as described."""

    def __init__(self, whole: Whole, description: Description) -> None:
        self._client = whole.client
        self._description = description

    async def sees(self, status: int, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Send a request, check the answer and return its body."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self._client.call(method, path, body, headers=sent)
        assert answer.status == status, answer.body
        self._description.confirm(method, path, answer)
        return answer.body

    async def log_in(self, phone: str, password: str) -> None:
        """Become a user."""
        sent = await self.sees(200, "POST", "/v1/auth/send-otp", {"phone": phone, "password": password})
        wrong = "000000" if sent["otp"] != "000000" else "111111"
        await self.sees(401, "POST", "/v1/auth/verify-otp", {"phone": phone, "otp": wrong})
        code = {"phone": phone, "otp": sent["otp"]}
        self._client.token = (await self.sees(200, "POST", "/v1/auth/verify-otp", code))["token"]


async def test_accounts_answer_as_described(whole: Whole, description: Description) -> None:
    witness, phone, other = Witness(whole, description), new_phone(), "a better passphrase"
    account = {"phone": phone, "password": PASSWORD, "name": "Ada"}
    await witness.sees(201, "POST", "/v1/auth/signup", account)
    await witness.log_in(phone, PASSWORD)
    await witness.sees(409, "POST", "/v1/auth/signup", account)
    await witness.sees(422, "POST", "/v1/auth/signup", account | {"password": "short"})
    await witness.sees(401, "POST", "/v1/auth/send-otp", {"phone": phone, "password": "wrong"})
    await witness.sees(200, "GET", "/v1/user/me")
    await witness.sees(200, "PATCH", "/v1/user/me", {"name": "Grace"})
    await witness.sees(422, "PATCH", "/v1/user/me", {"name": "Grace", "subscription_tier": "Pro"})
    change = {"old_password": PASSWORD, "new_password": other}
    session = await witness.sees(200, "POST", "/v1/auth/change-password", change)
    await witness.sees(401, "GET", "/v1/user/me")
    reset = await witness.sees(200, "POST", "/v1/auth/forgot-password", {"phone": phone})
    body = {"phone": phone, "otp": reset["otp"], "new_password": PASSWORD}
    await witness.sees(200, "POST", "/v1/auth/reset-password", body)
    await witness.sees(401, "POST", "/v1/auth/reset-password", body)
    await witness.sees(401, "GET", "/v1/user/me", Authorization=f"Bearer {session['token']}")
    await witness.log_in(phone, PASSWORD)
    await witness.sees(204, "POST", "/v1/auth/logout")
    await witness.log_in(phone, PASSWORD)
    await witness.sees(401, "DELETE", "/v1/user/me", {"password": other})
    await witness.sees(204, "DELETE", "/v1/user/me", {"password": PASSWORD})


async def test_rooms_and_prompts_answer_as_described(whole: Whole, description: Description) -> None:
    witness = Witness(whole, description)
    await witness.sees(200, "GET", "/v1/chatroom")
    room = f"/v1/chatroom/{(await witness.sees(201, 'POST', '/v1/chatroom', {'name': 'room'}))['id']}"
    await witness.sees(201, "POST", "/v1/chatroom", {})
    cursor = (await witness.sees(200, "GET", "/v1/chatroom?limit=1"))["next_cursor"]
    await witness.sees(200, "GET", f"/v1/chatroom?limit=1&cursor={cursor}")
    await witness.sees(422, "GET", "/v1/chatroom?limit=0")
    await witness.sees(200, "PATCH", room, {"name": "another name"})
    await witness.sees(200, "GET", f"{room}/message")
    question = {"prompt": "Why is the sky blue?"}
    waiting = await witness.sees(202, "POST", f"{room}/message", question, Idempotency_Key="one")
    await witness.sees(422, "POST", f"{room}/message", {"prompt": "else"}, Idempotency_Key="one")
    await witness.sees(200, "GET", f"/v1/prompt/{waiting['id']}", Prefer="wait=20")
    again = await witness.sees(200, "POST", f"/v1/prompt/{waiting['id']}/regenerate", Prefer="wait=20")
    await witness.sees(429, "POST", f"/v1/prompt/{again['id']}/regenerate")
    await witness.sees(409, "POST", f"/v1/prompt/{waiting['id']}/regenerate")
    await witness.sees(404, "POST", f"/v1/prompt/{NOWHERE}/regenerate")
    await witness.sees(429, "POST", f"{room}/message", question)
    await witness.sees(400, "POST", f"{room}/message", None, Content_Type="application/json")
    await witness.sees(415, "POST", f"{room}/message", None)
    await witness.sees(200, "GET", f"{room}/message")
    await witness.sees(200, "GET", f"{room}/message/all?limit=3")
    await witness.sees(200, "GET", f"{room}/export")
    cursor = (await witness.sees(200, "GET", "/v1/search?q=sky&limit=1"))["next_cursor"]
    await witness.sees(200, "GET", f"/v1/search?q=sky&limit=1&cursor={cursor}")
    await witness.sees(422, "GET", "/v1/search?q=%20")
    await witness.sees(422, "GET", "/v1/search")
    await witness.sees(200, "GET", room)
    await witness.sees(404, "GET", f"/v1/prompt/{NOWHERE}")
    await witness.sees(204, "DELETE", room)
    await witness.sees(404, "GET", room)
    await witness.sees(404, "GET", f"{room}/export")


async def test_the_services_own_pages_answer_as_described(whole: Whole, description: Description) -> None:
    witness = Witness(whole, description)
    assert await witness.sees(200, "GET", "/openapi.json") == description.document
    for page in ("/v1/", "/livez", "/readyz", "/metrics", "/docs", "/docs/start.js"):
        await witness.sees(200, "GET", page)
    await witness.sees(200, "GET", "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    await witness.sees(404, "GET", "/docs/nothing.js")
