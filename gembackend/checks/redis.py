"""Redis: its version, the settings that the service relies on, and whether it takes every command."""

from typing import Any

from redis.asyncio import Redis
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    NoPermissionError,
    ResponseError,
)

from gembackend.checks.redis_trial import REPLICA, Trial, words
from gembackend.checks.report import Failed, Report, causes, why_away
from gembackend.plumbing import redis, redis_address

OLDEST = (6, 2)


async def examine(url: str) -> Report:
    """Try everything; raises Failed when Redis cannot even be reached."""
    where = redis_address.read(url).where
    client = redis.connect(url)
    try:
        await _reach(client, where)
        report = Report()
        await _look(client, report)
        if not report.faults:
            await _try(client, report)
        return report
    finally:
        await client.aclose()


async def _reach(client: Redis, where: str) -> None:
    """Connect and log in."""
    try:
        await client.ping()
    except NoPermissionError as error:
        if "'ping'" in str(error).lower():
            return  # the connection is there; the trial will tell
        raise Failed(f"{where} refuses the connection ({words(error)})") from error
    except redis.OUTAGES as error:
        raise Failed(f"{where} {_refusal(error)}") from error


def _refusal(error: Exception) -> str:
    """What came of connecting; redis-py hides what the server said behind an error of its own."""
    for cause in causes(error):
        if isinstance(cause, AuthenticationError | AuthorizationError):
            return f"refuses the login of REDIS_URL ({words(cause)})"
        if isinstance(cause, ResponseError | BusyLoadingError):
            return f"refuses the connection ({words(cause)})"
    return f"cannot be reached ({why_away(error)})"


async def _look(client: Redis, report: Report) -> None:
    """Judge the server by what it says of itself."""
    try:
        info: dict[str, Any] = await client.info()
    except ResponseError:
        report.said = "takes what the service sends"
        report.warnings.append("INFO is forbidden: version, eviction policy and append-only file were not looked at")
        return
    version = str(info.get("redis_version", "unknown"))
    report.said = f"version {version}"
    if _number(version) < OLDEST:
        report.faults.append(f"is version {version}: gembackend needs Redis 6.2 or newer, or Valkey")
    if info.get("role") == "slave":
        report.faults.append(REPLICA)
    if info.get("redis_mode") == "cluster" and not await _whole(client):
        report.faults.append("is one node of a cluster: gembackend needs one Redis that holds every key")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        report.warnings.append(
            f"maxmemory-policy is {policy}: when full it drops what rate limits count by; set it to noeviction"
        )
    if not info.get("aof_enabled", True):
        report.warnings.append("the append-only file is off, a restart loses what was written: set appendonly yes")


async def _try(client: Redis, report: Report) -> None:
    """Send it what the service sends."""
    try:
        denied = await Trial(client).run()
    except Failed as failure:
        report.faults.append(str(failure))
        return
    if denied:
        report.faults.append(
            f"the login of REDIS_URL may not use {', '.join(denied)}: it needs the keys ~gembackend:*, "
            "the channels &gembackend:* and these commands"
        )


def _number(version: str) -> tuple[int, ...]:
    """The first two numbers of a version; one that cannot be read will do."""
    parts = version.split(".")[:2]
    return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else OLDEST


async def _whole(client: Redis) -> bool:
    """Whether a cluster has but one node, which then works like a single server."""
    command: Any = client.execute_command
    try:
        told = await command("CLUSTER INFO")
    except ResponseError:
        return False
    return str(told.get("cluster_state")) == "ok" and str(told.get("cluster_size")) == "1"
