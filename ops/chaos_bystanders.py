"""What rude clients cost everybody else: who they are, when they are at work, and what is measured meanwhile."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Any

import asyncpg
import psutil

from ops.chaos_apart import Apart
from ops.chaos_faults import LARGE_CHARS, Scene
from ops.chaos_probe import KINDS
from ops.chaos_rude import PATTERNS
from ops.chaos_verdict import Burden, Pace
from tests.acceptance.site import Site, User

GUESTS = 4
HOSTILE_MESSAGES = 4_000
LARGE_MESSAGES = 60
LOOK_SECONDS = 0.25
POOL = 10
"""DATABASE_POOL_SIZE of the processes, which is the default."""

_BACKENDS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'gembackend'"


class Bystanders:
    """One who uses the service as it is meant to be used, rude guests beside him, and a watch on what all that takes.

    Windows in which nobody is rude and such in which all are take turns, so that whatever else the machine has to do
    is in both.
    """

    def __init__(self, site: Site, scene: Scene, told: list[str], *, rude: bool, seed: int) -> None:
        """`told` gets the ids of the prompts that were accepted."""
        self._site = site
        self._scene = scene
        self._told = told
        self._rude = rude
        self._seed = seed
        self._at_work = False
        self._answers: list[dict[str, Any]] = []
        self._windows: dict[str, list[tuple[float, float]]] = {"undisturbed": [], "beside": []}
        self._idle = dict.fromkeys(self._windows, 0.0)
        self._done: Counter[str] = Counter()
        self._memory = self._backends = 0
        self._guests = Apart("ops.chaos_guests", self._hear_guests)
        self._probe = Apart("ops.chaos_probe", self._hear_probe)

    @asynccontextmanager
    async def present(self) -> AsyncIterator[None]:
        """While this lasts the service is used, and watched."""
        first = self._scene.processes[0]
        guests = [await self._guest(await self._site.user(first)) for _ in range(GUESTS if self._rude else 0)]
        other = await self._site.user(first)
        await self._guests.start(guests=guests, seed=self._seed)
        await self._probe.start(token=other.token, room=await other.room(first), urls=self._urls())
        at_work = [
            asyncio.create_task(work) for work in (self._direct(), self._watch_processes(), self._watch_backends())
        ]
        try:
            yield
        finally:
            for task in at_work:
                task.cancel()
            for who, status in (("the rude", await self._guests.end()), ("somebody else", await self._probe.end())):
                if status != 0:
                    self._scene.troubles.append(f"The process of {who} ended with status {status}.")

    @asynccontextmanager
    async def measured(self, *, rude: bool) -> AsyncIterator[None]:
        """While this lasts requests are counted; no fault must be under way."""
        begun, before = monotonic(), psutil.cpu_times()
        yield
        window = "beside" if rude else "undisturbed"
        self._windows[window].append((begun, monotonic()))
        self._idle[window] += psutil.cpu_times().idle - before.idle

    def let(self, *, rude: bool) -> None:
        """Let the guests begin, or leave off."""
        self._at_work = self._scene.large_replies = rude and self._rude
        self._tell()

    def burden(self) -> Burden:
        """What it came to, of all that has been measured."""
        counted = {name: self._within(windows) for name, windows in self._windows.items()}
        paces = [
            Pace(
                kind,
                *([one["took"] for one in counted[name] if one["kind"] == kind and one["done"]] for name in counted),
            )
            for kind in KINDS
        ]
        return Burden(
            paces=paces,
            refused=sum(not one["done"] for answers in counted.values() for one in answers),
            memory=self._memory,
            backends=self._backends,
            pools=POOL * len(self._scene.processes),
            busy=tuple(self._busy(name) for name in counted),
            done=dict(self._done),
        )

    def _busy(self, window: str) -> float:
        lasting = sum(ended - begun for begun, ended in self._windows[window]) * (psutil.cpu_count() or 1)
        return 1 - self._idle[window] / lasting if lasting else 0.0

    def _within(self, windows: list[tuple[float, float]]) -> list[dict[str, Any]]:
        return [one for one in self._answers if any(begun <= one["begun"] < ended for begun, ended in windows)]

    async def _guest(self, user: User) -> dict[str, str]:
        """A user with a room full of hostile texts, short ones and as long as replies may be."""
        first = self._scene.processes[0]
        full, asked = await user.room(first), await user.room(first)
        await self._site.fetch(FILL, full, list(PATTERNS), HOSTILE_MESSAGES, LARGE_MESSAGES, LARGE_CHARS)
        return {"token": user.token, "full": full, "asked": asked}

    async def _direct(self) -> None:
        """Keep both told of where the processes are: each new one has a port of its own."""
        while True:
            self._tell()
            await asyncio.sleep(LOOK_SECONDS)

    def _tell(self) -> None:
        self._guests.tell(urls=self._urls(), at_work=self._at_work)
        self._probe.tell(urls=self._urls())

    def _urls(self) -> list[str]:
        return [process.url for process in self._scene.processes]

    def _hear_guests(self, line: dict[str, Any]) -> None:
        self._told.extend(line["told"])
        self._done.update(line["done"])

    def _hear_probe(self, line: dict[str, Any]) -> None:
        self._answers.append(line)
        if line["told"] is not None:
            self._told.append(line["told"])

    async def _watch_processes(self) -> None:
        while True:
            for process in self._scene.processes:
                with suppress(psutil.Error):
                    self._memory = max(self._memory, psutil.Process(process.pid).memory_info().rss)
            await asyncio.sleep(LOOK_SECONDS)

    async def _watch_backends(self) -> None:
        while True:
            with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                self._backends = max(self._backends, await self._site.value(_BACKENDS))
            await asyncio.sleep(LOOK_SECONDS)


FILL = """
    WITH asked AS (
        INSERT INTO prompts (id, user_id, chatroom_id, sequence, content, status, request_id, finished_at)
        SELECT gen_random_uuid(), r.user_id, r.id, nr, format('%s of %s (long ago)', nr, r.id), 'answered', 'chaos',
               now()
        FROM chatrooms_metadata r, generate_series(1, $3::integer + $4::integer) nr WHERE r.id = $1::text::uuid
        RETURNING *
    ), numbered AS (
        UPDATE chatrooms_metadata SET last_sequence = $3::integer + $4::integer WHERE id = $1::text::uuid
    ), charged AS (
        INSERT INTO prompt_usage (user_id, day, used)
        SELECT user_id, (now() AT TIME ZONE 'UTC')::date, $3::integer + $4::integer
        FROM chatrooms_metadata WHERE id = $1::text::uuid
    )
    INSERT INTO chatrooms_messages (id, user_id, chatroom_id, prompt_id, position, role, content, created_at)
    SELECT a.id || '_A', a.user_id, a.chatroom_id, a.id, 2 * a.sequence + 1, 'assistant',
           left(repeat(pattern, size), size), a.created_at
    FROM asked a,
         LATERAL (SELECT ($2::text[])[1 + a.sequence % cardinality($2::text[])] AS pattern) said,
         LATERAL (SELECT CASE WHEN a.sequence > $3::integer THEN $5::integer
                              ELSE (a.sequence * 37 % 1000)::integer + 10 END AS size) long
"""
"""A room with so many messages of some hundred characters and so many of the most that is kept, pattern by pattern."""
