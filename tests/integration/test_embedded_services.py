"""What `dev` starts, as a whole: one process a data directory, keys that stay, nothing left behind."""

import asyncio
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import asyncpg
import psutil
import pytest

from gembackend import config
from gembackend.embedded.redis import find_program
from gembackend.embedded.services import EmbeddedError, embedded_services, parent_gone

# Starts what dev starts, says "ready", and goes on until it is killed.
CHILD = (
    "import asyncio, os, sys\n"
    "from gembackend import config\n"
    "from gembackend.embedded.services import embedded_services\n"
    "async def main():\n"
    "    async with embedded_services(config.load({'GEMBACKEND_DATA_DIR': sys.argv[1]}, 'dev'), lambda _: None):\n"
    "        print('ready', flush=True)\n"
    "        await asyncio.Event().wait()\n"
    "asyncio.run(main())\n"
)


@pytest.fixture
def settings(tmp_path: Path) -> config.Settings:
    """The settings of a `dev` for which nothing is set but its data directory."""
    return config.load({"GEMBACKEND_DATA_DIR": str(tmp_path / "data")}, "dev")


def ignore(_: str) -> None:
    """Nobody is listening."""


async def test_everything_that_is_missing_is_there_afterwards(settings: config.Settings) -> None:
    said: list[str] = []
    async with embedded_services(settings, said.append) as complete:
        assert complete.database_url
        db = await asyncpg.connect(complete.database_url)
        assert await db.fetchval("SELECT count(*) FROM users") == 0
        await db.close()
        assert (complete.redis_url or "").startswith("unix://")
        assert (complete.gemini_endpoint or "").startswith("grpc://127.0.0.1:")
        assert (complete.stripe_api_base or "").startswith("http://127.0.0.1:")
        assert len(complete.jwt_secret_key or "") >= 32
    assert any("first start only" in line for line in said)
    assert sum("stand-in" in line for line in said) == 2


async def test_what_is_set_is_used_and_not_started(
    settings: config.Settings, database_url: str, redis_url: str
) -> None:
    given = replace(
        settings,
        database_url=database_url,
        redis_url=redis_url,
        jwt_secret_key="k" * 40,
        gemini_api_key="key",
        stripe_secret_key="sk_test_key",
    )
    async with embedded_services(given, ignore) as complete:
        assert complete == given
    assert sorted(path.name for path in settings.data_dir.iterdir()) == ["lock"]


async def test_the_signing_key_is_made_once_and_for_its_owner_alone(
    settings: config.Settings, database_url: str, redis_url: str
) -> None:
    given = replace(settings, database_url=database_url, redis_url=redis_url, gemini_api_key="key")
    async with embedded_services(given, ignore) as first:
        pass
    async with embedded_services(given, ignore) as second:
        assert second.jwt_secret_key == first.jwt_secret_key
    assert (settings.data_dir / "jwt.key").stat().st_mode & 0o777 == 0o600


async def test_a_second_one_on_the_same_directory_is_told_who_has_it(
    settings: config.Settings, database_url: str, redis_url: str
) -> None:
    given = replace(settings, database_url=database_url, redis_url=redis_url, gemini_api_key="key")
    async with embedded_services(given, ignore):
        with pytest.raises(EmbeddedError, match=rf"process {os.getpid()}\) is using {settings.data_dir}"):
            async with embedded_services(given, ignore):
                raise AssertionError("it was let in")
    async with embedded_services(given, ignore):
        pass


async def test_two_directories_have_two_sets_of_servers(settings: config.Settings, tmp_path: Path) -> None:
    other = replace(settings, data_dir=tmp_path / "other")
    async with embedded_services(settings, ignore) as one, embedded_services(other, ignore) as two:
        assert one.database_url != two.database_url
        assert one.redis_url != two.redis_url
        assert one.jwt_secret_key != two.jwt_secret_key


async def test_a_directory_that_cannot_be_made_is_named(settings: config.Settings, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedError, match=f"cannot use {tmp_path}/file/data: Not a directory"):
        async with embedded_services(replace(settings, data_dir=tmp_path / "file" / "data"), ignore):
            raise AssertionError("it was let in")


async def test_a_server_that_fails_takes_the_other_with_it(settings: config.Settings) -> None:
    (settings.data_dir / "redis").mkdir(parents=True)
    (settings.data_dir / "redis" / "written-by").write_text(f"{(await find_program()).product} 99.0.0")
    with pytest.raises(EmbeddedError, match=r"was written by \w+ 99\.0\.0"):
        async with embedded_services(settings, ignore):
            raise AssertionError("it was let in")
    assert not (settings.data_dir / "postgres" / "postmaster.pid").exists()


def test_the_servers_of_a_killed_process_end_and_the_next_start_finds_the_directory_free(tmp_path: Path) -> None:
    def start() -> subprocess.Popen[str]:
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout
        assert child.stdout.readline() == "ready\n"
        return child

    first = start()
    servers = psutil.Process(first.pid).children(recursive=True)
    assert "postgres" in {server.name() for server in servers}
    first.kill()
    first.communicate()
    second = start()
    assert psutil.wait_procs(servers, timeout=20)[1] == []
    later = psutil.Process(second.pid).children(recursive=True)
    second.kill()
    second.communicate()
    assert psutil.wait_procs(later, timeout=20)[1] == []


ORPHAN = """
import asyncio, os, signal, sys
from gembackend.embedded.services import parent_gone

async def main():
    signal.signal(signal.SIGHUP, getattr(signal, sys.argv[1]))
    parent, gone = os.getppid(), asyncio.create_task(parent_gone())
    await asyncio.sleep(0)
    print("waiting", flush=True)
    while os.getppid() == parent:
        await asyncio.sleep(0.01)
    print("told" if (await asyncio.wait([gone], timeout=float(sys.argv[2])))[0] else "left in peace")

asyncio.run(main())
"""
"""Says how it hears of its parent's end. SIGHUP it sets itself, because these tests may run under nohup."""


@pytest.mark.parametrize(("hangup", "seconds", "said"), [("SIG_DFL", 60, "told"), ("SIG_IGN", 1.2, "left in peace")])
def test_a_process_whose_parent_dies_is_told_unless_it_was_started_to_outlive_it(
    hangup: str, seconds: float, said: str
) -> None:
    parent = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"
    command = [sys.executable, "-c", parent, ORPHAN, hangup, str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "waiting\n"
        process.kill()
        assert process.stdout.read() == f"{said}\n"


async def test_a_process_whose_parent_lives_is_left_in_peace() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.6):
            await parent_gone()
