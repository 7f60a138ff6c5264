"""What the prompt engine decided, as what the sender of a prompt is told."""

from datetime import UTC, datetime
from uuid import UUID

from gembackend.messages.rules import Regenerable, Verdict
from gembackend.plumbing.faults import CodeName, Fault, not_found
from gembackend.quota.rules import seconds_until_reset

BUSY_RETRY_SECONDS = 5
"""When a client whose room or whose service is full may try again."""

REFUSALS: tuple[CodeName, ...] = ("daily_limit_reached", "room_busy", "backlog_full", "busy", "idempotency_key_reused")
"""The fault codes that any route may answer with that sends a prompt."""


def taken(verdict: Verdict, *, daily_prompts: int) -> UUID:
    """The id of the prompt that was accepted, now or earlier; raises the Fault that says why none was."""
    match verdict.decision:
        case "accepted" | "replayed":
            assert verdict.prompt_id is not None
            return verdict.prompt_id
        case "not_found":
            raise not_found("chatroom")
        case "key_reused":
            raise Fault("idempotency_key_reused", "This Idempotency-Key was used with another request.")
        case "room_busy":
            text = "This chatroom has too many unfinished prompts; wait for some of them."
            raise Fault("room_busy", text, retry_after=BUSY_RETRY_SECONDS)
        case "backlog_full":
            text = "Too many prompts are waiting for Gemini; try again shortly."
            raise Fault("backlog_full", text, retry_after=BUSY_RETRY_SECONDS)
        case "daily_limit_reached":
            text = f"Basic users may send {daily_prompts} prompts a day (UTC); Pro has no limit."
            raise Fault("daily_limit_reached", text, retry_after=seconds_until_reset(datetime.now(UTC)))


def problem_with_regenerating(earlier: Regenerable) -> Fault | None:
    """Why a prompt cannot be asked once more, or None.

    A key that is known is for the engine to judge: the same request gets its first answer again, although the room
    has gone on since.
    """
    if earlier.key_known or (earlier.finished and earlier.latest):
        return None
    if not earlier.finished:
        return Fault("prompt_unfinished", "This prompt has not finished yet; wait for it, or cancel it.")
    return Fault("not_latest", "A later prompt of this chatroom has finished; only the latest can be asked once more.")
