"""DATABASE_URL out of the environment, whole or in the parts DB_HOST, DB_PORT, DB_NAME, DB_USER and DB_PASS."""

from gembackend.environment import Reader
from gembackend.plumbing import database_tls, database_url


def read(env: Reader) -> tuple[str | None, float]:
    """The database's URL, if any, and how many seconds connecting may take unless a variable says."""
    name = "DATABASE_URL" if env.given("DATABASE_URL") else "DB_HOST"

    def parse(raw: str) -> tuple[str | None, float | None]:
        url = raw if name == "DATABASE_URL" else _composed(env, raw)
        target = database_url.read(url)
        database_tls.look_at_files(target, env.text("PGSSLROOTCERT"))
        return url, target.connect_seconds

    nothing: tuple[str | None, float | None] = None, None
    url, seconds = env.parsed(name, parse, nothing, "")
    return url, seconds or database_url.CONNECT_SECONDS


def _composed(env: Reader, host: str) -> str:
    """The URL that DB_HOST and its neighbours come to."""
    port = env.integer("DB_PORT", database_url.DEFAULT_PORT, 1, 65535)
    user, name = env.text("DB_USER") or "postgres", env.text("DB_NAME") or "postgres"
    return database_url.compose(host, port, user, env.text("DB_PASS") or "", name)
