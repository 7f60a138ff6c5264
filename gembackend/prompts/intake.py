"""Accepts prompts: gathers what arrived while the last commit ran, and decides it all in one statement."""

import asyncio
from dataclasses import replace
from time import monotonic

import asyncpg

from gembackend.actors import Actor, Asked, Mailbox, MailboxClosed, MailboxFull, ask
from gembackend.messages.rules import NewPrompt, Verdict
from gembackend.plumbing import logs, metrics, traces
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.postgres import Database
from gembackend.prompts import spans, store
from gembackend.prompts.admission import Admission
from gembackend.prompts.announcer import Announcer

log = logs.logger(__name__)

BATCH = 64
CAPACITY = 4096
PATIENCE_SECONDS = 2.6
"""How long a client waits for a decision before it hears that the database is unavailable."""

Question = Asked[NewPrompt, Verdict]


class Intake(Actor):
    """Asked with a `NewPrompt`, answers with a `Verdict`; the 202 a client gets stands on the commit made here.

    A prompt whose asker has gone before its batch began is not accepted at all.
    """

    def __init__(
        self,
        database: Database,
        announcer: Announcer,
        admission: Admission,
        *,
        daily_prompts: int,
        room_limit: int,
    ) -> None:
        super().__init__("intake")
        self._database = database
        self._announcer = announcer
        self._admission = admission
        self._daily_prompts = daily_prompts
        self._room_limit = room_limit
        self._mailbox: Mailbox[Question] = Mailbox(CAPACITY)

    async def accept(self, prompt: NewPrompt) -> Verdict:
        """Ask for a decision; raises Fault when there is none within PATIENCE_SECONDS."""
        with spans.accepting(prompt) as span:
            verdict = await self._ask(replace(prompt, traceparent=span.traceparent) if traces.on() else prompt)
            spans.accepted(span, verdict)
        return verdict

    async def _ask(self, prompt: NewPrompt) -> Verdict:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await ask(self._mailbox, prompt)
        except MailboxClosed as error:
            raise Fault("shutting_down", "This process is shutting down; try again.", retry_after=1) from error
        except MailboxFull as error:
            raise Fault("busy", "Too many prompts arrive at once; try again.", retry_after=1) from error
        except TimeoutError as error:
            text = "The database did not answer in time; send the prompt again with the same Idempotency-Key."
            raise Fault("database_unavailable", text, retry_after=1) from error

    def wind_down(self) -> None:
        """Decide what has been asked, then end."""
        self._mailbox.close()

    async def run(self) -> None:
        """Decide in batches until closed and empty."""
        while batch := await self._mailbox.drain(BATCH):
            waiting = [asked for asked in batch if not asked.gone]
            if waiting:
                await self._decide(waiting)

    async def teardown(self) -> None:
        """Nobody waits for a stopped actor."""
        if self.stopping.is_set():
            self._mailbox.abandon()

    async def _decide(self, batch: list[Question]) -> None:
        try:
            verdicts = await self._accept([asked.question for asked in batch])
        except Fault as fault:
            for asked in batch:
                asked.fail(fault)
        except asyncpg.PostgresError as error:
            if len(batch) == 1:
                log.error("accept_failed", error=type(error).__name__, prompt_id=str(batch[0].question.id))
                batch[0].fail(error)
                return
            for asked in batch:
                await self._decide([asked])
        except BaseException as error:
            for asked in batch:
                asked.fail(Fault("busy", "The prompt could not be accepted; try again.", retry_after=1))
            raise error
        else:
            for asked, verdict in zip(batch, verdicts, strict=True):
                with traces.joined(asked.question.traceparent):
                    self._report(asked.question, verdict)
                asked.answer(verdict)

    async def _accept(self, prompts: list[NewPrompt]) -> list[Verdict]:
        begun = monotonic()
        async with self._database.connection() as connection:
            verdicts = await store.accept(
                connection, prompts, self._daily_prompts, self._room_limit, self._admission.free()
            )
        metrics.ACCEPT_SECONDS.observe(monotonic() - begun)
        metrics.ACCEPT_BATCH.observe(len(prompts))
        return verdicts

    def _report(self, prompt: NewPrompt, verdict: Verdict) -> None:
        if verdict.decision == "accepted":
            metrics.PROMPTS_ACCEPTED.inc()
            self._announcer.accepted(prompt.chatroom_id)
            log.info(
                "prompt_accepted",
                prompt_id=str(prompt.id),
                chatroom_id=str(prompt.chatroom_id),
                request_id=prompt.request_id,
            )
        elif verdict.decision != "replayed":
            metrics.PROMPTS_REFUSED.labels(verdict.decision).inc()
