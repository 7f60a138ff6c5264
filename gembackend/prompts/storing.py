"""Putting a batch of endings into the database, whatever single ones of them are like."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Literal
from uuid import UUID

import asyncpg

from gembackend.plumbing import logs, metrics
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.postgres import Database, DatabaseAway
from gembackend.prompts import finish_store
from gembackend.prompts.endings import unstorable
from gembackend.prompts.finish_store import Ending

log = logs.logger(__name__)

PAUSE_SECONDS = 0.25

Delay = Literal["locked", "slow"]
"""Why an ending could not be stored now: somebody else has locked what it needs, or it takes too long."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What was stored of each prompt, and what is to be tried again, and why. What is in neither was stale."""

    changed: dict[UUID, Ending] = field(default_factory=dict)
    delayed: dict[UUID, Delay] = field(default_factory=dict)

    def __or__(self, other: "Stored") -> "Stored":
        return Stored(self.changed | other.changed, self.delayed | other.delayed)


class Storing:
    """Stores endings; `forgiven` is how many failures of a day are refunded to a user who may have brought them about.

    A row that PostgreSQL refuses, or that makes the statement take too long, is singled out and does not stop the rest.
    While the database is away it goes on trying.
    """

    def __init__(self, database: Database, *, forgiven: int) -> None:
        self._database = database
        self._forgiven = forgiven

    async def store(self, endings: Sequence[Ending]) -> Stored:
        """Store endings in one statement, or in as many as it takes."""
        while endings:
            begun = monotonic()
            try:
                async with self._database.connection() as connection:
                    finished = await finish_store.finish(connection, endings, self._forgiven)
            except Fault as fault:
                log.warning("commit_waits", count=len(endings), fault=fault.code.name)
                if isinstance(fault, DatabaseAway) and fault.slow:
                    return await self._halves(endings) if len(endings) > 1 else Stored(delayed={endings[0].id: "slow"})
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            except (asyncpg.PostgresError, ValueError) as error:
                if len(endings) > 1:
                    return await self._halves(endings)
                log.warning("ending_refused", prompt_id=str(endings[0].id), error=type(error).__name__)
                substitute = unstorable(endings[0], taken=isinstance(error, asyncpg.UniqueViolationError))
                if substitute is None:
                    return Stored()
                endings = [substitute]
                continue
            metrics.COMMIT_SECONDS.observe(monotonic() - begun)
            metrics.COMMIT_BATCH.observe(len(endings))
            changed = {ending.id: ending for ending in endings if ending.id in finished.changed}
            return Stored(changed, dict.fromkeys(finished.locked, "locked"))
        return Stored()

    async def _halves(self, endings: Sequence[Ending]) -> Stored:
        middle = len(endings) // 2
        return await self.store(endings[:middle]) | await self.store(endings[middle:])
