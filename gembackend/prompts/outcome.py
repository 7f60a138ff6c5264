"""What an attempt at a prompt ends in: the one table of decisions, and the pure functions that read it.

`of_reply` and `of_failure` judge what Gemini did; `decide` adds what depends on the prompt, attempts and backoff.
The same table for people is `ops/outcomes.md`; a test holds the two equal.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import isnan
from typing import Literal, NamedTuple

BACKOFF_BASE = 1.0
"""Seconds of the first backoff; each further one doubles."""

BACKOFF_CAP = 60.0
"""Seconds no backoff of ours exceeds; what Gemini asks for may."""

PATIENCE = 86_400.0
"""Seconds Gemini may ask a prompt to wait; past a day the prompt is given up, which undercuts nobody."""

LONGEST_REPLY = 65_536
"""Characters kept of a reply, some forty pages; Gemini's own bound is far below in the models that chat."""

CUT = "\n\n[…]"
"""What stands at the end of a reply that was longer."""

LONGEST_ID = 200
"""Characters kept of a response id, which becomes part of a key; Gemini's have about twenty."""

Verdict = Literal["answer", "retry", "give up"]

Health = Literal["ok", "rate_limited", "down", "neutral"]
"""What an attempt tells of Gemini as a whole: it works, it wants less, it fails for everybody, or nothing."""


class Rule(NamedTuple):
    """One line of the table: what to do, under which stable code, and what it says of Gemini as a whole."""

    verdict: Verdict
    code: str
    health: Health


STATUSES: dict[str, Rule] = {
    "UNAVAILABLE": Rule("retry", "gemini_unavailable", "down"),
    "CANCELLED": Rule("retry", "gemini_unavailable", "down"),
    "RESOURCE_EXHAUSTED": Rule("retry", "gemini_rate_limited", "rate_limited"),
    "DEADLINE_EXCEEDED": Rule("retry", "gemini_timeout", "down"),
    "TIMEOUT": Rule("retry", "gemini_timeout", "down"),
    "INTERNAL": Rule("retry", "gemini_error", "down"),
    "UNKNOWN": Rule("retry", "gemini_error", "down"),
    "DATA_LOSS": Rule("retry", "gemini_error", "down"),
    "ABORTED": Rule("retry", "gemini_error", "neutral"),
    "BROKEN": Rule("retry", "gemini_error", "down"),
    "UNAUTHENTICATED": Rule("give up", "gemini_unauthorized", "down"),
    "PERMISSION_DENIED": Rule("give up", "gemini_unauthorized", "down"),
    "NOT_FOUND": Rule("give up", "gemini_misconfigured", "down"),
    "UNIMPLEMENTED": Rule("give up", "gemini_misconfigured", "down"),
    "FAILED_PRECONDITION": Rule("give up", "gemini_misconfigured", "down"),
    "INVALID_ARGUMENT": Rule("give up", "gemini_rejected", "neutral"),
    "OUT_OF_RANGE": Rule("give up", "gemini_rejected", "neutral"),
    "ALREADY_EXISTS": Rule("give up", "gemini_rejected", "neutral"),
}
"""How a call without a reply is judged, by gRPC status; one that is not listed is judged as `UNKNOWN`."""

_ANSWER = Rule("answer", "", "ok")
_BLOCKED = Rule("give up", "content_blocked", "ok")
_INCOMPLETE = Rule("retry", "incomplete_answer", "ok")

EMPTY = Rule("retry", "empty_answer", "ok")
"""How a reply without any text is judged, unless its reasons say it was blocked."""

FINISHES: dict[str, Rule] = {
    "STOP": _ANSWER,
    "MAX_TOKENS": _ANSWER,
    "FINISH_REASON_UNSPECIFIED": _ANSWER,
    "NO_CANDIDATE": EMPTY,
    "SAFETY": _BLOCKED,
    "RECITATION": _BLOCKED,
    "LANGUAGE": _BLOCKED,
    "BLOCKLIST": _BLOCKED,
    "PROHIBITED_CONTENT": _BLOCKED,
    "SPII": _BLOCKED,
    "IMAGE_SAFETY": _BLOCKED,
    "OTHER": _INCOMPLETE,
    "MALFORMED_FUNCTION_CALL": _INCOMPLETE,
}
"""How a reply is judged, by finish reason; one that is not listed (a newer one) is judged as `OTHER`."""

BLOCKS: dict[str, Rule] = {
    "SAFETY": _BLOCKED,
    "OTHER": _BLOCKED,
    "BLOCKLIST": _BLOCKED,
    "PROHIBITED_CONTENT": _BLOCKED,
    "IMAGE_SAFETY": _BLOCKED,
}
"""How a prompt that Gemini refused to read is judged, by block reason; any other is judged as `OTHER`."""

MESSAGES: dict[str, str] = {
    "gemini_unavailable": "Gemini was unavailable; your prompt was not counted, please try again.",
    "gemini_rate_limited": "Gemini was too busy; your prompt was not counted, please try again later.",
    "gemini_timeout": "Gemini took too long to answer; your prompt was not counted, please try again.",
    "gemini_error": "Gemini failed to answer; your prompt was not counted, please try again.",
    "gemini_unauthorized": "This service may not use Gemini at the moment; your prompt was not counted.",
    "gemini_misconfigured": "This service is not set up for Gemini correctly; your prompt was not counted.",
    "gemini_rejected": "Gemini could not accept this prompt; it was not counted. Please change it and try again.",
    "content_blocked": "Gemini's content rules do not allow an answer; your prompt was not counted.",
    "incomplete_answer": "Gemini broke off its answer; your prompt was not counted, please try again.",
    "empty_answer": "Gemini gave no answer; your prompt was not counted, please try again.",
    "worker_lost": "Your prompt could not be worked on; it was not counted, please try again.",
}
"""What the user reads when a prompt is given up, by code."""

_NO_MORE = "your prompt was counted, because no more failures of yours are given back today."

COUNTED: dict[str, str] = {
    "gemini_timeout": f"Gemini took too long to answer; {_NO_MORE}",
    "gemini_error": f"Gemini failed to answer; {_NO_MORE}",
    "gemini_rejected": f"Gemini could not accept this prompt; {_NO_MORE}",
    "content_blocked": f"Gemini's content rules do not allow an answer; {_NO_MORE}",
    "incomplete_answer": f"Gemini broke off its answer; {_NO_MORE}",
    "empty_answer": f"Gemini gave no answer; {_NO_MORE}",
}
"""Failures that a prompt can bring about, each time at the price of calls: only so many a day are given back. By code,
what the user reads when one is not."""


@dataclass(frozen=True, slots=True)
class Answered:
    """Gemini answered: `text` is not blank and can be stored; `response_id` can be too, and may be empty."""

    response_id: str
    text: str
    prompt_tokens: int
    reply_tokens: int


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again after `delay` seconds, which from `of_failure` is only what Gemini asks, and from `decide` is final.

    `counted` is False when this attempt is to be given back, because Gemini as a whole was down.
    """

    code: str
    message: str
    delay: float
    counted: bool = True


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The prompt has failed for good, with what its user is told.

    `outage` says that Gemini as a whole was down, so that the prompt is not to blame.
    """

    code: str
    message: str
    outage: bool = False

    @property
    def counted(self) -> str | None:
        """What its user is told instead when its unit is not given back; None: it always is."""
        return None if self.outage else COUNTED.get(self.code)


Outcome = Answered | Retry | GiveUp

WORKER_LOST = GiveUp("worker_lost", MESSAGES["worker_lost"])
"""For a prompt whose attempts are all spent without an outcome: each time its process died, or lost its lease."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def clean_text(text: str) -> str:
    """The text without NUL and lone surrogates, which PostgreSQL refuses."""
    return _UNSTORABLE.sub("", text)


def failure_class(status: str) -> Health:
    """What a failed call with this status says of Gemini as a whole."""
    return STATUSES.get(status, STATUSES["UNKNOWN"]).health


def of_reply(
    *,
    response_id: str,
    text: str,
    finish_reason: str,
    block_reason: str | None,
    prompt_tokens: int,
    reply_tokens: int,
) -> Answered | Retry | GiveUp:
    """Judge a reply: a refusal to read the prompt first, then how it ended, then whether there is any text."""
    cleaned = clean_text(text)
    rule = FINISHES.get(finish_reason, FINISHES["OTHER"])
    if block_reason is not None:
        rule = BLOCKS.get(block_reason, BLOCKS["OTHER"])
    elif rule.verdict == "answer" and not cleaned.strip():
        rule = EMPTY
    if rule.verdict == "answer":
        text = cleaned if len(cleaned) <= LONGEST_REPLY else cleaned[:LONGEST_REPLY] + CUT
        return Answered(clean_text(response_id)[:LONGEST_ID], text, prompt_tokens, reply_tokens)
    return _setback(rule, 0.0)


def of_failure(*, status: str, retry_after: float | None) -> Retry | GiveUp:
    """Judge a call that brought no reply; `retry_after` is the seconds Gemini asked to wait, if it did."""
    asked = 0.0 if retry_after is None or isnan(retry_after) else max(0.0, retry_after)
    return _setback(STATUSES.get(status, STATUSES["UNKNOWN"]), asked)


def decide(outcome: Outcome, *, attempt: int, max_attempts: int, outage: bool, random: Callable[[], float]) -> Outcome:
    """The final outcome of an attempt; only a retry still changes here.

    `attempt` counts from 1 and includes this one; `outage` is whether the breaker is anything but closed now that it
    knows of this call, and then an unreachable Gemini costs the prompt nothing; `random` draws from [0, 1).
    """
    if not isinstance(outcome, Retry):
        return outcome
    spared = outage and outcome.code == "gemini_unavailable"
    if outcome.delay > PATIENCE or (attempt >= max_attempts and not spared):
        return GiveUp(outcome.code, outcome.message, outage)
    delay = outcome.delay + backoff(attempt, random)
    return Retry(outcome.code, outcome.message, delay, counted=not spared)


def backoff(attempt: int, random: Callable[[], float]) -> float:
    """Seconds to wait after the given attempt (from 1): doubling up to the cap, the later half of it drawn."""
    ceiling = min(BACKOFF_CAP, BACKOFF_BASE * 2.0 ** min(attempt - 1, 16))
    return ceiling * (0.5 + 0.5 * random())


def _setback(rule: Rule, asked: float) -> Retry | GiveUp:
    message = MESSAGES[rule.code]
    return Retry(rule.code, message, asked) if rule.verdict == "retry" else GiveUp(rule.code, message)
