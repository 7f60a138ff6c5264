"""The embedded Redis: data that stays, odd places, orphans, and data that a newer server wrote."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
import redis.asyncio

from gembackend.embedded.process import EmbeddedError
from gembackend.embedded.redis import EmbeddedRedis, find_program


@asynccontextmanager
async def running(server: EmbeddedRedis) -> AsyncIterator[redis.asyncio.Redis]:
    """A client of a server that is stopped at the end."""
    try:
        async with redis.asyncio.from_url(await server.start(), decode_responses=True) as client:
            yield client
    finally:
        await server.stop()


def process_of(server: EmbeddedRedis) -> psutil.Process:
    """The server's process."""
    return psutil.Process(int((server.home / "redis.pid").read_text()))


async def test_data_stays_from_one_start_to_the_next(tmp_path: Path) -> None:
    async with running(EmbeddedRedis(tmp_path)) as client:
        await client.set("kept", "yes")
    async with running(EmbeddedRedis(tmp_path)) as client:
        assert await client.get("kept") == "yes"


async def test_writes_are_kept_in_the_append_only_file(tmp_path: Path) -> None:
    async with running(EmbeddedRedis(tmp_path)) as client:
        settings = await client.config_get("append*")
    assert (settings["appendonly"], settings["appendfsync"]) == ("yes", "everysec")


async def test_it_listens_on_no_port_unless_it_is_told_to(tmp_path: Path, unused_tcp_port: int) -> None:
    async with running(EmbeddedRedis(tmp_path / "a")) as client:
        assert (await client.config_get("port"))["port"] == "0"
    by_port = redis.asyncio.from_url(f"redis://127.0.0.1:{unused_tcp_port}")
    async with running(EmbeddedRedis(tmp_path / "b", port=unused_tcp_port)), by_port as client:
        assert await client.ping()


@pytest.mark.parametrize("place", ["with space", "a 'quote' \"or\" two", "ünï%20code?#&", "deep/" * 30])
async def test_any_place_will_do(tmp_path: Path, place: str) -> None:
    async with running(EmbeddedRedis(tmp_path / place)) as client:
        assert await client.ping()


async def test_an_orphan_is_stopped_before_the_next_start(tmp_path: Path) -> None:
    first = EmbeddedRedis(tmp_path)
    async with running(first) as client:
        await client.set("kept", "yes")
        orphan = process_of(first)
        guard = orphan.parent()
        assert guard
        guard.kill()
        async with running(EmbeddedRedis(tmp_path)) as second:
            assert not orphan.is_running()
            assert await second.get("kept") == "yes"


async def test_data_of_a_newer_server_is_refused_in_one_sentence(tmp_path: Path) -> None:
    async with running(EmbeddedRedis(tmp_path)):
        pass
    program = await find_program()
    (tmp_path / "redis" / "written-by").write_text(f"{program.product} 99.1.0")
    with pytest.raises(EmbeddedError, match=rf"was written by {program.product} 99\.1\.0, but .* is {program}"):
        await EmbeddedRedis(tmp_path).start()


async def test_damaged_data_is_a_clear_error_and_not_a_hang(tmp_path: Path) -> None:
    async with running(EmbeddedRedis(tmp_path)) as client:
        await client.set("kept", "yes")
    for file in (tmp_path / "redis").rglob("appendonly*"):
        if file.is_file() and not file.name.endswith(".manifest"):
            file.write_bytes(b"*3\r\n$9\r\nnonsense\r\n" * 3)
    with pytest.raises(EmbeddedError, match=r"(?s)stopped while starting.*Bad file format"):
        await EmbeddedRedis(tmp_path).start()
