"""The composition root: what there is, how it is wired, and the order of starting and stopping."""

import asyncio
from collections.abc import Awaitable
from functools import partial

from gembackend.actors import Supervisor, each_alone
from gembackend.auth.limits import RateLimits
from gembackend.auth.passwords import Cost
from gembackend.auth.room import Auth
from gembackend.auth.routes import AuthRoutes
from gembackend.billing.room import REQUESTS, Billing, plan_of
from gembackend.billing.routes import BillingRoutes
from gembackend.billing.subscriptions import Standings
from gembackend.chatrooms.routes import ChatroomRoutes
from gembackend.config import Settings
from gembackend.gemini.client import Gemini
from gembackend.messages.event_routes import EventRoutes
from gembackend.messages.reading_routes import ReadingRoutes
from gembackend.messages.routes import MessageRoutes
from gembackend.messages.search_indexer import SearchIndexer
from gembackend.plumbing import logs, redis, traces
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.health import Trouble
from gembackend.plumbing.outages import Outages
from gembackend.plumbing.postgres import Database, DatabaseAway, check_schema
from gembackend.plumbing.share import Share
from gembackend.plumbing.vitals import Vitals
from gembackend.prompts.engine import PromptEngine
from gembackend.quota.sweeper import QuotaSweeper
from gembackend.users.routes import UserRoutes
from gembackend.web.server import HttpServer, build_app, metrics_app

log = logs.logger(__name__)

CHECK_SECONDS = 0.7
"""How long one readiness check may take."""
HTTP_SECONDS = 1.0
"""Kept back from the grace period for the last requests."""
TRACES_SECONDS = 2.0
"""How long the last spans may take to leave, within the grace period."""
PATIENCE_SECONDS = 15.0
"""How long a start waits for a database that is starting too."""


class Service:
    """The whole service in one process and one event loop; `settings` must be complete. Made inside the loop."""

    def __init__(self, settings: Settings, *, password_cost: Cost | None = None) -> None:
        assert settings.database_url and settings.redis_url
        self._settings = settings
        # Two pools, so that a flood of requests does not keep the engine from storing answers.
        reserved = max(1, settings.database_pool_size // 3)
        self._engine_database, self.database = (
            Database.of(settings, size) for size in (reserved, settings.database_pool_size - reserved)
        )
        self._redis = redis.connect(settings.redis_url)
        self._reading = redis.connect(settings.redis_url, connections=1)
        self._gemini = Gemini.of(settings)
        self._auth = Auth(settings, self.database, self._redis, cost=password_cost)
        self._engine = PromptEngine(settings, self._engine_database, self._redis, self._reading, self._gemini)
        self._indexer = SearchIndexer(self.database)
        self._billing = Billing(settings, self.database) if settings.stripe_secret_key else None
        self._supervisor = Supervisor(
            [
                Vitals(requests=self.database, engine=self._engine_database),
                self._auth.sweeper,
                QuotaSweeper(self.database),
                self._indexer,
                *self._engine.actors,
                *(self._billing.actors if self._billing else ()),
            ]
        )
        self._draining = False
        deletions = Share(self.database, "deletions")
        self.app = build_app(
            [
                *AuthRoutes(self.database, self._auth, trusted_proxies=settings.trusted_proxies).table(),
                *UserRoutes(
                    self.database,
                    self._auth.versions,
                    self._auth.credentials.confirm,
                    daily_prompts=settings.basic_daily_prompts,
                    phones=self._auth.phones,
                    deletions=deletions,
                    dropped=self._engine.canceller.dropped,
                ).table(),
                *ChatroomRoutes(self.database, deletions, self._engine.canceller.dropped).table(),
                *MessageRoutes(
                    self.database,
                    self._engine.intake.accept,
                    self._engine.waiters,
                    self._engine.canceller.cancel,
                    longest_prompt=settings.prompt_max_chars,
                    daily_prompts=settings.basic_daily_prompts,
                ).table(),
                *ReadingRoutes(self.database, self._indexer.look).table(),
                *EventRoutes(self.database, self._engine.feed).table(),
                *BillingRoutes(
                    self._billing,
                    Standings(self.database, plan_of(settings)),
                    RateLimits(self._redis, REQUESTS).admit,
                ).table(),
            ],
            authenticate=self._auth.sessions.authenticate,
            health=self.health,
            settings=settings,
        )
        self._listeners = [HttpServer(self.app, host=settings.server_host, port=settings.server_port)]
        if settings.metrics_port is not None:
            self._listeners.append(HttpServer(metrics_app(), host=settings.server_host, port=settings.metrics_port))

    @property
    def url(self) -> str:
        """Where the API is, once it has started."""
        return self._listeners[0].url

    async def start(self) -> None:
        """Start everything; raises TracesRefused, SchemaMismatch, DatabaseAway or OSError (port taken)."""
        traces.start(self._settings.traces_endpoint)
        await self.database.open()
        await self._engine_database.open()
        await self._reach_database()
        await self._auth.start()
        await self._supervisor.start()
        for listener in self._listeners:
            await listener.start()
        if self._settings.environment == "production" and self._settings.otp_delivery == "response":
            log.warning("otp_codes_in_replies", why="OTP_DELIVERY=response lets anyone log in as anyone")
        log.info("ready", url=self.url, environment=self._settings.environment)

    async def stop(self, grace: float) -> None:
        """Stop within `grace` seconds: not ready at once, work in flight finished or put back, results written.

        The listener goes last, so that readiness can be seen to fail while the work drains.
        """
        self._draining = True
        now = asyncio.get_running_loop().time
        deadline = now() + grace
        await each_alone(
            lambda: self._supervisor.stop(deadline - HTTP_SECONDS),
            *(partial(self._stop_listener, listener, deadline) for listener in self._listeners),
            lambda: self._auth.stop(deadline - now()),
            *((self._billing.close,) if self._billing is not None else ()),
            self._gemini.close,
            self._reading.aclose,
            self._redis.aclose,
            self._engine_database.close,
            self.database.close,
            lambda: traces.stop(min(TRACES_SECONDS, deadline - now())),
        )

    async def _stop_listener(self, listener: HttpServer, deadline: float) -> None:
        await listener.stop(max(0.1, deadline - asyncio.get_running_loop().time()))

    async def failed(self) -> str:
        """Wait until an actor cannot be kept alive; tells which and why."""
        await self._supervisor.failed.wait()
        return self._supervisor.failure or "an actor failed"

    async def health(self) -> dict[str, Trouble | None]:
        """What the service stands on: None when well, else what is the matter.

        Without Redis prompts are accepted and answered, so its trouble is not serious; nor is that of payments, which
        another process would have too.
        """
        database, redis_ = await asyncio.gather(_reached(self.database.ping()), _reached(self._redis.ping()))
        redis_ = self._engine.redis.trouble or redis_
        serious = {"database": database} | self._supervisor.health()
        if self._draining:
            serious["process"] = "shutting down"
        troubles = {name: Trouble(reason) if reason else None for name, reason in serious.items()}
        mild = {"redis": redis_} | ({"payments": self._billing.trouble} if self._billing is not None else {})
        return troubles | {name: Trouble(reason, serious=False) if reason else None for name, reason in mild.items()}

    async def _reach_database(self) -> None:
        """Wait for the database, which may be starting too, and check its schema."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        outages = Outages()
        while True:
            try:
                async with self.database.connection() as connection:
                    await check_schema(connection)
                return
            except DatabaseAway as away:
                if away.hopeless or asyncio.get_running_loop().time() > deadline:
                    raise
                if outages.failed(away.why):
                    log.warning("database_awaited", where=away.where, why=away.why)
                await asyncio.sleep(0.5)


async def _reached(answer: Awaitable[object]) -> str | None:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await answer
    except DatabaseAway as away:
        return away.told_anyone
    except (Fault, TimeoutError, *redis.OUTAGES):
        return "cannot be reached"
    return None
