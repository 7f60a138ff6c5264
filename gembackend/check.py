"""`gembackend check`: lines for each thing the service stands on, and whether it could work with it."""

import asyncio
from collections.abc import Awaitable, Callable

from gembackend.checks import database, payments, redis, vendors
from gembackend.checks.report import Failed, Report
from gembackend.config import Settings
from gembackend.plumbing import traces
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.postgres import Database, DatabaseAway
from gembackend.plumbing.traces import TracesRefused

SECONDS = 10.0


async def check(settings: Settings, say: Callable[[str], None]) -> int:
    """Print what each check found, in their order; the exit status is 1 when one of them failed.

    They are made side by side: the slowest says how long it takes.
    """
    checks: list[tuple[str, Awaitable[Report | str]]] = [
        ("PostgreSQL", _postgres(settings)),
        ("Redis", _redis(settings)),
        ("Gemini", vendors.gemini(settings, SECONDS / 2)),
        ("Stripe", payments.examine(settings)),
    ]
    if settings.otp_delivery == "webhook" and settings.otp_webhook_url:
        checks.append(("OTP gateway", vendors.gateway(settings.otp_webhook_url)))
    if settings.traces_endpoint:
        checks.append(("Traces", _traces(settings.traces_endpoint)))
    reports = [("configuration", Report(warnings=list(settings.warnings)))]
    found = await asyncio.gather(*(_found(work) for _, work in checks))
    reports += zip((name for name, _ in checks), found, strict=True)
    for name, report in reports:
        for line in report.lines(name):
            say(line)
    return 1 if any(report.faults for _, report in reports) else 0


async def _found(work: Awaitable[Report | str]) -> Report:
    """The report of a check, whatever comes of it: no check ends another."""
    try:
        async with asyncio.timeout(SECONDS):
            report = await work
    except _TOLD as error:
        return Report(faults=[str(error)])
    except Exception as error:
        return Report(faults=[_reason(error)])
    return Report(report) if isinstance(report, str) else report


_TOLD = (Failed, TracesRefused)
"""Failures whose text is for a person."""


def _reason(error: Exception) -> str:
    if isinstance(error, DatabaseAway):
        return f"{error.where}: {error.why}"
    if isinstance(error, Fault | TimeoutError):
        return f"cannot be reached ({type(error.__cause__ or error).__name__})"
    return f"cannot be judged ({type(error).__name__})"


async def _postgres(settings: Settings) -> Report:
    pool = Database.of(settings, 1, wait_seconds=min(settings.database_connect_seconds, SECONDS - 1) + 0.5)
    try:
        await pool.open()
        async with pool.connection() as connection:
            report = await database.examine(connection, settings.database_pool_size)
    finally:
        await pool.close()
    if pool.pooled:
        report.said += ", through a pooler (taken for one in transaction mode)"
    return report


async def _redis(settings: Settings) -> Report:
    assert settings.redis_url
    return await redis.examine(settings.redis_url)


async def _traces(endpoint: str) -> str:
    trouble = await traces.reach(endpoint, SECONDS / 2)
    if trouble is not None:
        raise Failed(f"the collector does not take spans ({trouble})")
    return "the collector takes spans"
