"""`gembackend check`: a line for each thing the service stands on, and whether it can be reached."""

import asyncio
from collections.abc import Awaitable, Callable

from gembackend.billing.faults import StripeFault
from gembackend.billing.stripe import Stripe
from gembackend.config import Settings
from gembackend.gemini.client import Gemini
from gembackend.plumbing import redis, traces
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.postgres import SCHEMA_VERSION, Database, SchemaMismatch, check_schema
from gembackend.plumbing.traces import TracesRefused

SECONDS = 10.0


async def check(settings: Settings, say: Callable[[str], None]) -> int:
    """Print a line for each check; the exit status is 1 when one of them failed."""
    say("ok    configuration")
    checks: list[tuple[str, Awaitable[str]]] = [
        ("PostgreSQL", _postgres(settings)),
        ("Redis", _redis(settings)),
        ("Gemini", _gemini(settings)),
        ("Stripe", _stripe(settings)),
    ]
    if settings.traces_endpoint:
        checks.append(("Traces", _traces(settings.traces_endpoint)))
    status = 0
    for name, work in checks:
        try:
            async with asyncio.timeout(SECONDS):
                say(f"ok    {name}: {await work}")
        except (*_TOLD, Fault, TimeoutError, *redis.OUTAGES) as error:
            status = 1
            say(f"FAIL  {name}: {error if isinstance(error, _TOLD) else _reason(error)}")
    return status


class _Failed(Exception):
    """A check failed; the text says why, for a person."""


_TOLD = (_Failed, SchemaMismatch, TracesRefused)
"""Failures whose text is for a person."""


def _reason(error: Exception) -> str:
    if isinstance(error, StripeFault):
        return error.reason
    cause = error.__cause__ or error
    return f"cannot be reached ({type(cause).__name__})"


async def _postgres(settings: Settings) -> str:
    assert settings.database_url
    database = Database(settings.database_url, 1)
    try:
        await database.open()
        async with database.connection() as connection:
            await check_schema(connection)
            version = await connection.fetchval("SHOW server_version")
    finally:
        await database.close()
    return f"version {version}, schema version {SCHEMA_VERSION}"


async def _redis(settings: Settings) -> str:
    assert settings.redis_url
    client = redis.connect(settings.redis_url)
    try:
        version = (await client.info("server"))["redis_version"]
        persistent = (await client.info("persistence"))["aof_enabled"]
    finally:
        await client.aclose()
    return f"version {version}" + ("" if persistent else "; the append-only file is off: turn it on (appendonly yes)")


async def _gemini(settings: Settings) -> str:
    client = Gemini(
        api_key=settings.gemini_api_key or "",
        model=settings.gemini_model,
        fallback_model=settings.gemini_fallback_model,
        endpoint=settings.gemini_endpoint,
        timeout=settings.gemini_timeout_seconds,
    )
    try:
        failure = await client.check(SECONDS / 2)
    finally:
        await client.close()
    if failure is not None:
        raise _Failed(f"{settings.gemini_model}: {failure.status}")
    return settings.gemini_model


async def _stripe(settings: Settings) -> str:
    if not settings.stripe_secret_key:
        return "STRIPE_SECRET_KEY is not set: there are no subscriptions"
    client = Stripe(settings.stripe_secret_key, settings.pro_price_ids[0], api_base=settings.stripe_api_base)
    try:
        return await client.describe_price()
    finally:
        await client.close()


async def _traces(endpoint: str) -> str:
    trouble = await traces.reach(endpoint, SECONDS / 2)
    if trouble is not None:
        raise _Failed(f"the collector does not take spans ({trouble})")
    return "the collector takes spans"
