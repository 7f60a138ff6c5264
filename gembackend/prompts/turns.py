"""Who is next: each room whose prompt has ended goes on with its next one, or gives its hints back."""

from collections.abc import Sequence

from gembackend.plumbing.faults import Fault
from gembackend.prompts.claims import Claims
from gembackend.prompts.endings import ending_of
from gembackend.prompts.finish_store import Ending
from gembackend.prompts.pool import Ended, Run, WorkerPool
from gembackend.prompts.storing import Storing
from gembackend.prompts.writer import Done, StreamWriter, Wake


class Turns:
    """Claims in a statement of its own, after the commit, so that it sees what was accepted meanwhile."""

    def __init__(self, claims: Claims, pool: WorkerPool, storing: Storing, writer: StreamWriter) -> None:
        self._claims = claims
        self._pool = pool
        self._storing = storing
        self._writer = writer

    async def move_on(self, batch: Sequence[Ended], endings: Sequence[Ending]) -> None:
        """Give each room of a batch that has been stored its next prompt, or its hints back."""
        delays = {ending.id: ending.delay for ending in endings if ending.status == "queued"}
        runs = {ended.run.claimed.chatroom_id: ended.run for ended in batch if not ended.run.lost}
        ready = [room for room, run in runs.items() if run.claimed.id not in delays]
        keep = self._pool.turns(len(ready))
        try:
            claimed = await self._claims.claim(ready[:keep], suspects=0)
            waiting = await self._claims.due(ready[keep:])
        except Fault:
            claimed, waiting = [], ready
        if self._pool.stopping.is_set():
            # The drain began during the claim: nothing is begun any more.
            await self._storing.store([ending_of(prompt, None) for prompt in claimed])
            waiting, claimed = waiting + [prompt.chatroom_id for prompt in claimed], []
        for ended in batch:
            self._pool.release(ended.run)
            if runs.get(ended.run.claimed.chatroom_id) is not ended.run:
                # It was lost, or another prompt of its room has ended in this batch too and goes on with its own hints.
                self._let_go(ended.run)
        for prompt in claimed:
            self._pool.begin(prompt, runs.pop(prompt.chatroom_id).entry_ids)
        for room in waiting:
            self._writer.tell(Wake(room, "turn"))
        for run in runs.values():
            self._let_go(run)
            if run.claimed.id in delays:
                self._writer.tell_later(delays[run.claimed.id], Wake(run.claimed.chatroom_id, "retry"))

    def _let_go(self, run: Run) -> None:
        """Acknowledge the hints that a run came from."""
        if run.entry_ids:
            self._writer.tell(Done(run.entry_ids))
