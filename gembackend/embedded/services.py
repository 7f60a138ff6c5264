"""What `gembackend dev` runs beside the service: whatever the settings lack, started first and stopped last."""

import asyncio
import fcntl
import os
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

from gembackend.config import Settings
from gembackend.embedded.postgres import MIGRATE, EmbeddedPostgres, migrate
from gembackend.embedded.process import EmbeddedError
from gembackend.embedded.redis import EmbeddedRedis
from gembackend.plumbing.addresses import hosts, url_of

__all__ = ["EmbeddedError", "embedded_services", "parent_gone"]

Say = Callable[[str], None]


@asynccontextmanager
async def embedded_services(settings: Settings, say: Say) -> AsyncIterator[Settings]:
    """Start what the settings lack, give settings that lack nothing, and stop it all at the end.

    `say` gets one line of progress at a time, for a person. Raises EmbeddedError, whose text is for a person too, when
    something does not start or another process uses the data directory.
    """
    async with AsyncExitStack() as running:
        try:
            running.enter_context(_claimed(settings.data_dir))
            settings = replace(settings, jwt_secret_key=settings.jwt_secret_key or _signing_key(settings.data_dir))
            settings = await _with_servers(settings, say, running)
        except OSError as error:
            raise EmbeddedError(f"cannot use {error.filename or settings.data_dir}: {error.strerror}") from error
        settings = await _with_vendors(settings, say, running)
        yield settings


async def parent_gone() -> None:
    """Return when the parent process has ended, within half a second.

    Never returns in a process that is meant to go on without its parent: one started under nohup, or by process 1.
    """
    parent = os.getppid()
    on_its_own = parent <= 1 or signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    while on_its_own or os.getppid() == parent:  # noqa: ASYNC110 (a process is not told of its parent's end)
        await asyncio.sleep(0.5)


@contextmanager
def _claimed(data_dir: Path) -> Iterator[None]:
    """Hold the data directory for this process alone; raise EmbeddedError naming the one that has it."""
    data_dir.mkdir(parents=True, exist_ok=True)
    with open(data_dir / "lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise EmbeddedError(
                f"another `gembackend dev` (process {file.read().strip()}) is using {data_dir}: stop it, "
                "or give this one a directory of its own with GEMBACKEND_DATA_DIR"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _signing_key(data_dir: Path) -> str:
    """Return the JWT key kept in the data directory, made at the first start, readable by its owner alone."""
    path = data_dir / "jwt.key"
    if not path.exists():
        draft = path.with_suffix(".new")
        draft.unlink(missing_ok=True)
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_urlsafe(48))
        draft.rename(path)
    return path.read_text()


async def _with_servers(settings: Settings, say: Say, running: AsyncExitStack) -> Settings:
    """Start PostgreSQL and Redis, side by side, unless their URLs are set; bring an embedded database up to date."""

    async def database() -> str:
        if settings.database_url:
            say(f"Using the PostgreSQL of DATABASE_URL; its schema is yours to apply: psql … -f {MIGRATE}")
            return settings.database_url
        postgres = EmbeddedPostgres(settings.data_dir)
        if not postgres.exists:
            say(f"Creating a PostgreSQL cluster in {postgres.home} (first start only) …")
        running.push_async_callback(postgres.stop)
        url = await postgres.start()
        await migrate(url)
        say(f"PostgreSQL is ready, its data in {postgres.home}.")
        return url

    async def streams() -> str:
        if settings.redis_url:
            say("Using the Redis of REDIS_URL.")
            return settings.redis_url
        redis = EmbeddedRedis(settings.data_dir)
        running.push_async_callback(redis.stop)
        url = await redis.start()
        say(f"Redis is ready, its data in {redis.home}.")
        return url

    # Both are waited for, also when one fails, so that none is still starting while the other is being stopped.
    found = [asyncio.create_task(database()), asyncio.create_task(streams())]
    await asyncio.gather(*found, return_exceptions=True)
    return replace(settings, database_url=found[0].result(), redis_url=found[1].result())


async def _with_vendors(settings: Settings, say: Say, running: AsyncExitStack) -> Settings:
    """Start a stand-in for every vendor that has neither a key nor an address."""
    if not (settings.gemini_api_key or settings.gemini_endpoint):
        settings = await _with_gemini(settings, say, running)
    if not settings.stripe_secret_key:
        settings = await _with_stripe(settings, say, running)
    return settings


async def _with_gemini(settings: Settings, say: Say, running: AsyncExitStack) -> Settings:
    from gembackend.embedded.gemini import Behaviour, GeminiStandIn  # slow to import, and not needed with a key

    gemini = GeminiStandIn(Behaviour(pieces=16, pace=0.04), keep=100)
    running.push_async_callback(gemini.stop)
    endpoint = await gemini.start()
    say(f"GEMINI_API_KEY is not set: a stand-in at {endpoint} answers in Gemini's place, and says so in its answers.")
    return replace(settings, gemini_endpoint=endpoint)


async def _with_stripe(settings: Settings, say: Say, running: AsyncExitStack) -> Settings:
    from gembackend.embedded.stripe import StripeStandIn  # not needed with a key

    stripe = StripeStandIn(webhook_url=_webhook_url(settings), path=settings.data_dir / "stripe.json")
    running.push_async_callback(stripe.stop)
    api_base = await stripe.start()
    say(f"STRIPE_SECRET_KEY is not set: a stand-in at {api_base} sells Pro for no money; its pages say so.")
    return replace(
        settings,
        stripe_secret_key=stripe.secret_key,
        pro_price_ids=(stripe.account.price_id,),
        stripe_webhook_signing_secrets=(stripe.account.webhook_secret,),
        stripe_api_base=api_base,
    )


def _webhook_url(settings: Settings) -> str | None:
    """Where this machine reaches the webhook; None when the port is not known before the service listens."""
    if not settings.server_port:
        return None
    return f"{url_of(hosts(settings.server_host)[0], settings.server_port)}/v1/webhook/stripe"
