"""From what an attempt ended in to what is stored. Pure."""

from dataclasses import replace

from gembackend.prompts.attempt import Result
from gembackend.prompts.finish_store import Ending
from gembackend.prompts.outcome import Answered, GiveUp, Retry
from gembackend.prompts.store import Claimed


def ending_of(claimed: Claimed, result: Result | None) -> Ending:
    """What to store; without a result (the attempt was cut off by a drain) the prompt goes back with its attempt."""
    outcome = result.outcome if result else None
    match outcome:
        case None:
            return Ending(claimed.id, claimed.fence, "queued", attempts_back=1)
        case Answered():
            return Ending(
                claimed.id,
                claimed.fence,
                "answered",
                response_id=outcome.response_id or str(claimed.id),
                reply=outcome.text,
                prompt_tokens=outcome.prompt_tokens,
                reply_tokens=outcome.reply_tokens,
            )
        case Retry():
            back = 0 if outcome.counted else 1
            return Ending(claimed.id, claimed.fence, "queued", delay=outcome.delay, attempts_back=back)
        case GiveUp():
            return Ending(
                claimed.id,
                claimed.fence,
                "failed",
                error_code=outcome.code,
                error_message=outcome.message,
                counted=outcome.counted,
            )


def unstorable(ending: Ending, *, taken: bool) -> Ending | None:
    """What to store instead of an ending that PostgreSQL refused, or None when nothing is left to try.

    When the message id was `taken` (Gemini repeated a response id), the prompt's own id makes it unique. Anything
    else in the answer that cannot be stored is a failure, which the user is told.
    """
    if ending.status != "answered":
        return None
    if taken and ending.response_id and not ending.response_id.endswith(str(ending.id)):
        return replace(ending, response_id=f"{ending.response_id}-{ending.id}")
    return Ending(
        ending.id,
        ending.fence,
        "failed",
        error_code="answer_unstorable",
        error_message="Gemini's answer could not be stored; your prompt was not counted, please try again.",
    )
