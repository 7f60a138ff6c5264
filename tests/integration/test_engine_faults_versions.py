"""Schema and engine on every server version at hand: those of the wheels, and those that are installed here."""

import shutil
from pathlib import Path

import pytest

from gembackend.embedded import postgres, redis
from gembackend.embedded.gemini import Behaviour
from gembackend.embedded.postgres import EmbeddedPostgres
from gembackend.embedded.redis import EmbeddedRedis
from gembackend.prompts.dead_letter_store import replay
from gembackend.prompts.stream import STREAM
from gembackend.prompts.sweep_store import waiting_rooms
from tests.engine import Engine, running
from tests.faults import at_rest
from tests.servers import FAST
from tests.tools import lacking, on_path

OLDEST, WHEEL = 15, (16, 18)
INSTALLED = {
    int(place.parent.name): place
    for place in Path("/usr/lib/postgresql").glob("*/bin")
    if place.parent.name.isdigit() and (place / "initdb").exists()
}
"""PostgreSQL as Debian installs it, by major version."""

REDIS = (None, "redis-server", "valkey-server")
"""Programs, which are Debian's packages too; None is the wheel's."""


@pytest.mark.parametrize("version", sorted({OLDEST, *WHEEL, *INSTALLED}))
async def test_schema_and_engine_work_on_this_postgresql(
    version: int, tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = postgres.binaries
    if version not in {*WHEEL, *INSTALLED}:
        lacking(f"PostgreSQL-{version}", f"postgresql-{version}")

    def binaries(wanted: int = postgres.NEWEST) -> Path:
        return wheel(wanted) if wanted in WHEEL else INSTALLED[wanted]

    monkeypatch.setattr(postgres, "binaries", binaries)
    server = EmbeddedPostgres(tmp_path, version=version, settings=FAST)
    try:
        url = await server.start()
        await postgres.migrate(url)
        async with running(url, redis_url) as engine:
            assert (await engine.fetch("SHOW server_version")).startswith(f"{version}.")
            await a_day_at_work(engine)
    finally:
        await server.stop()


@pytest.mark.parametrize("program", REDIS)
async def test_the_engine_works_on_this_redis(
    program: str | None, tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = program and on_path(program, program)
    monkeypatch.setattr(shutil, "which", lambda name: path if name == "redis-server" else None)
    server = EmbeddedRedis(tmp_path)
    try:
        async with running(database_url, await server.start()) as engine:
            version = (await engine.redis.info("server"))["redis_version"]
            assert tuple(map(int, version.split(".")))[:2] >= redis.OLDEST
            await a_day_at_work(engine)
            await engine.redis.flushall()
            await a_day_at_work(engine)
    finally:
        await server.stop()


async def a_day_at_work(engine: Engine) -> None:
    """An answer, a failure with its refund, its replay, a turn of the sweeper, and nothing left behind."""
    user = await engine.user("Basic")
    room = await engine.room(user)
    engine.gemini.script(Behaviour(), Behaviour(finish_reason="SAFETY"), Behaviour())
    prompts = [await engine.ask(room, f"number {number}") for number in range(2)]
    assert [prompt.status for prompt in prompts] == ["answered", "failed"]
    assert await engine.fetch("SELECT used FROM prompt_usage WHERE user_id = $1", user) == 1
    async with engine.database.transaction() as connection:
        assert await replay(connection, [prompts[1].id]) == [prompts[1].id]
        assert [waiting for waiting, _since in (await waiting_rooms(connection, 0.0, 10)).rooms] == [room[1]]
    await engine.redis.xadd(STREAM, {"chatroom": str(room[1])})
    assert (await engine.finished(room, prompts[1].id)).status == "answered"
    await at_rest(engine)
