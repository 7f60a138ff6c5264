"""`gembackend check`: a line for each thing, and an exit status that scripts can use."""

import dataclasses
from pathlib import Path

import pytest

from gembackend import config
from gembackend.check import check
from gembackend.embedded.gemini import GeminiStandIn
from tests.accounts import settings


async def checked(chosen: config.Settings) -> tuple[int, list[str]]:
    lines: list[str] = []
    return await check(chosen, lines.append), lines


@pytest.fixture
async def chosen(database_url: str, redis_url: str) -> config.Settings:
    return settings(database_url, redis_url, GEMINI_ENDPOINT="grpc://127.0.0.1:9")


async def test_all_is_well(chosen: config.Settings) -> None:
    standin = GeminiStandIn()
    try:
        status, lines = await checked(dataclasses.replace(chosen, gemini_endpoint=await standin.start()))
    finally:
        await standin.stop()
    assert status == 0, lines
    assert [line.split(":")[0] for line in lines] == [
        "ok    configuration",
        "ok    PostgreSQL",
        "ok    Redis",
        "ok    Gemini",
        "ok    Stripe",
    ]


async def test_each_thing_that_is_away_is_named(chosen: config.Settings, tmp_path: Path) -> None:
    away = dataclasses.replace(
        chosen,
        database_url=f"postgresql://postgres@/x?host={tmp_path}",
        redis_url=f"unix://{tmp_path}/redis",
        stripe_secret_key="sk_test_never_shown",
        pro_price_ids=("price_1",),
        stripe_api_base="http://127.0.0.1:9",
    )
    status, lines = await checked(away)
    assert status == 1
    assert [line.split(":")[0] for line in lines[1:]] == [
        "FAIL  PostgreSQL",
        "FAIL  Redis",
        "FAIL  Gemini",
        "FAIL  Stripe",
    ]
    assert "never_shown" not in "".join(lines)


async def test_a_database_without_the_schema_is_told_what_to_do(
    chosen: config.Settings, empty_database_url: str
) -> None:
    status, lines = await checked(dataclasses.replace(chosen, database_url=empty_database_url))
    [line] = [line for line in lines if "PostgreSQL" in line]
    assert status == 1
    assert line.startswith("FAIL") and "sql/migrate.sql" in line
