"""The Postman collection: what the API description makes of it, and a journey that newman can go."""

import asyncio
import json
from pathlib import Path

from ops.postman.generate import COLLECTION, ENVIRONMENT_FILE, current, files
from ops.postman.journey import JOURNEY
from tests.billing import selling_at, stand_in
from tests.tools import failures_of, newman
from tests.whole import whole_service


async def test_the_files_are_what_is_generated() -> None:
    for path, text in files(await current()).items():
        assert path.read_text() == text, "run python -m ops.postman.generate"


async def test_every_endpoint_is_in_the_collection() -> None:
    document = await current()
    requests = [item["request"] for folder in json.loads(COLLECTION.read_text())["item"] for item in folder["item"]]
    assert {(request["method"], request["description"]) for request in requests} == {
        (method.upper(), operation["description"])
        for operations in document["paths"].values()
        for method, operation in operations.items()
    }
    assert {step.path for folder in JOURNEY for step in folder.steps} <= document["paths"].keys()


async def test_newman_goes_the_whole_journey(database_url: str, redis_url: str, tmp_path: Path) -> None:
    command = await asyncio.to_thread(newman)
    report = tmp_path / "report.json"
    defaults = {"OTP_RESEND_SECONDS": "30", "AUTH_RATE_LIMIT": "30/300"}
    async with stand_in() as stripe, whole_service(database_url, redis_url, **defaults, **selling_at(stripe)) as whole:
        process = await asyncio.create_subprocess_exec(
            *(*command, "run", str(COLLECTION), "--environment", str(ENVIRONMENT_FILE)),
            *("--env-var", f"base_url={whole.service.url}", "--timeout-request", "35000"),
            *("--reporters", "json", "--reporter-json-export", str(report)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
    assert failures_of(report) == []
    assert process.returncode == 0, output.decode()
    run = json.loads(report.read_text())["run"]["stats"]
    assert run["assertions"]["total"] > 2 * run["requests"]["total"] > 0
