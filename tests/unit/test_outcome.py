"""The outcome table: every status, reason and shape of a reply has one typed outcome, and the docs say the same."""

from pathlib import Path

import grpc
import pytest

from gembackend.prompts import outcome
from gembackend.prompts.outcome import Answered, GiveUp, Outcome, Retry, decide, of_failure, of_reply

GRPC_FAILURES = [code.name for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
RETRIED = {
    "UNAVAILABLE",
    "INTERNAL",
    "UNKNOWN",
    "DATA_LOSS",
    "DEADLINE_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "ABORTED",
    "CANCELLED",
    "TIMEOUT",
    "BROKEN",
}


def reply(text: str = "Hello", finish: str = "STOP", block: str | None = None) -> Answered | Retry | GiveUp:
    return of_reply(
        response_id="r1", text=text, finish_reason=finish, block_reason=block, prompt_tokens=3, reply_tokens=1
    )


def settle(value: Outcome, *, attempt: int = 1, outage: bool = False, draw: float = 0.0) -> Outcome:
    return decide(value, attempt=attempt, max_attempts=5, outage=outage, random=lambda: draw)


@pytest.mark.parametrize("status", [*GRPC_FAILURES, "TIMEOUT", "BROKEN"])
def test_every_status_either_retries_or_gives_up_as_the_contract_says(status: str) -> None:
    value = of_failure(status=status, retry_after=None)
    assert isinstance(value, Retry if status in RETRIED else GiveUp)
    assert value.message == outcome.MESSAGES[value.code]


def test_every_status_of_the_table_is_one_that_a_call_can_end_in() -> None:
    assert set(outcome.STATUSES) == {*GRPC_FAILURES, "TIMEOUT", "BROKEN"}


def test_a_status_nobody_knows_is_retried_as_unknown() -> None:
    assert of_failure(status="SOMETHING_NEW", retry_after=None) == of_failure(status="UNKNOWN", retry_after=None)
    assert outcome.failure_class("SOMETHING_NEW") == "down"


@pytest.mark.parametrize(
    ("status", "health"),
    [
        ("RESOURCE_EXHAUSTED", "rate_limited"),
        ("UNAVAILABLE", "down"),
        ("PERMISSION_DENIED", "down"),
        ("INVALID_ARGUMENT", "neutral"),
    ],
)
def test_a_failure_tells_the_breaker_what_it_says_of_gemini_as_a_whole(status: str, health: str) -> None:
    assert outcome.failure_class(status) == health


@pytest.mark.parametrize("finish", ["STOP", "MAX_TOKENS", "FINISH_REASON_UNSPECIFIED"])
def test_a_finished_text_is_an_answer(finish: str) -> None:
    assert reply(finish=finish) == Answered("r1", "Hello", 3, 1)


@pytest.mark.parametrize("finish", ["STOP", "MAX_TOKENS", "FINISH_REASON_UNSPECIFIED", "NO_CANDIDATE"])
@pytest.mark.parametrize("text", ["", " \n\t", "\x00", "\ud800 \x00"])
def test_an_empty_answer_is_never_a_success(finish: str, text: str) -> None:
    value = reply(text, finish)
    assert isinstance(value, Retry) and value.code == "empty_answer"
    assert settle(value, attempt=5) == GiveUp("empty_answer", outcome.MESSAGES["empty_answer"])


@pytest.mark.parametrize("finish", [name for name, rule in outcome.FINISHES.items() if rule.code == "content_blocked"])
@pytest.mark.parametrize("text", ["", "half an ans"])
def test_a_blocked_answer_is_given_up_even_with_some_text(finish: str, text: str) -> None:
    assert reply(text, finish) == GiveUp("content_blocked", outcome.MESSAGES["content_blocked"])


@pytest.mark.parametrize("block", [*outcome.BLOCKS, "UNKNOWN_9"])
def test_a_blocked_prompt_is_given_up_whatever_else_the_reply_says(block: str) -> None:
    assert reply("text", "STOP", block) == GiveUp("content_blocked", outcome.MESSAGES["content_blocked"])


@pytest.mark.parametrize("finish", ["OTHER", "MALFORMED_FUNCTION_CALL", "UNKNOWN_99"])
def test_an_answer_that_broke_off_for_no_known_reason_is_asked_for_again(finish: str) -> None:
    value = reply("half an ans", finish)
    assert isinstance(value, Retry) and value.code == "incomplete_answer"


def test_an_answer_loses_what_postgresql_cannot_store_and_nothing_else() -> None:
    assert reply(" a\x00b\ud800c\udfff\U0001f600\n") == Answered("r1", " abc\U0001f600\n", 3, 1)


def test_a_reply_that_is_longer_than_any_is_cut_and_says_so() -> None:
    longest = "x" * outcome.LONGEST_REPLY
    assert reply(longest) == Answered("r1", longest, 3, 1)
    assert reply(longest + "y") == Answered("r1", longest + outcome.CUT, 3, 1)


def test_the_last_attempt_gives_up_with_the_code_of_what_failed() -> None:
    value = of_failure(status="UNAVAILABLE", retry_after=None)
    assert isinstance(settle(value, attempt=4), Retry)
    assert settle(value, attempt=5) == GiveUp(
        "gemini_unavailable", "Gemini was unavailable; your prompt was not counted, please try again."
    )


def test_an_outage_costs_no_attempt_not_even_the_last() -> None:
    value = settle(of_failure(status="UNAVAILABLE", retry_after=None), attempt=5, outage=True)
    assert isinstance(value, Retry) and not value.counted


@pytest.mark.parametrize("status", ["INTERNAL", "TIMEOUT", "RESOURCE_EXHAUSTED"])
def test_a_failure_that_may_be_the_prompts_own_doing_is_counted_even_in_an_outage(status: str) -> None:
    value = settle(of_failure(status=status, retry_after=None), outage=True)
    assert isinstance(value, Retry) and value.counted
    assert isinstance(settle(of_failure(status=status, retry_after=None), attempt=5, outage=True), GiveUp)


def test_a_wait_longer_than_a_day_is_not_worth_it() -> None:
    assert isinstance(settle(of_failure(status="RESOURCE_EXHAUSTED", retry_after=3.2e11)), GiveUp)


@pytest.mark.parametrize("value", [Answered("r", "t", 1, 1), GiveUp("worker_lost", "gone")])
def test_what_is_final_stays_as_it_is(value: Outcome) -> None:
    assert settle(value, attempt=9) is value


def test_the_documented_table_is_the_one_in_the_code() -> None:
    documented = Path(__file__).parents[2].joinpath("ops/outcomes.md").read_text()
    for line in table():
        assert line in documented.splitlines()
    rows = [line for line in documented.splitlines() if line.startswith("| `")]
    assert rows == table()


def test_what_stays_charged_is_documented_as_it_is_told() -> None:
    documented = Path(__file__).parents[2].joinpath("ops/outcomes.md").read_text()
    told = [f"- `{code}`: {message}" for code, message in outcome.COUNTED.items()]
    assert [line for line in documented.splitlines() if line.startswith("- `")] == told
    assert all("was counted" in message for message in outcome.COUNTED.values())
    assert all("not counted" in message for message in outcome.MESSAGES.values())


@pytest.mark.parametrize(
    ("value", "bounded"),
    [
        (reply("", "SAFETY"), True),
        (reply("", "STOP", "PROHIBITED_CONTENT"), True),
        (reply(""), True),
        (reply("half", "OTHER"), True),
        (of_failure(status="INVALID_ARGUMENT", retry_after=None), True),
        (of_failure(status="TIMEOUT", retry_after=None), True),
        (of_failure(status="INTERNAL", retry_after=None), True),
        (of_failure(status="UNAVAILABLE", retry_after=None), False),
        (of_failure(status="RESOURCE_EXHAUSTED", retry_after=None), False),
        (of_failure(status="PERMISSION_DENIED", retry_after=None), False),
        (of_failure(status="NOT_FOUND", retry_after=None), False),
        (outcome.WORKER_LOST, False),
    ],
)
def test_what_a_prompt_can_bring_about_is_given_back_with_a_bound_and_what_is_our_fault_always(
    value: Outcome, bounded: bool
) -> None:
    settled = settle(value, attempt=5)
    assert isinstance(settled, GiveUp)
    assert settled.counted == (outcome.COUNTED[settled.code] if bounded else None)


def test_a_prompt_is_not_to_blame_while_gemini_as_a_whole_is_down() -> None:
    settled = settle(of_failure(status="INTERNAL", retry_after=None), attempt=5, outage=True)
    assert isinstance(settled, GiveUp) and settled.counted is None


def table() -> list[str]:
    """The rows of `ops/outcomes.md`, in order: statuses, finish reasons, block reasons, empty text, messages."""
    lines = [f"| `{name}` | {row(rule)} | {rule.health} |" for name, rule in outcome.STATUSES.items()]
    lines += [f"| `{name}` | {row(rule)} |" for name, rule in outcome.FINISHES.items()]
    lines += [f"| `{name}` | {row(rule)} |" for name, rule in outcome.BLOCKS.items()]
    lines += [f"| `{code}` | {message} |" for code, message in outcome.MESSAGES.items()]
    return lines


def row(rule: outcome.Rule) -> str:
    return f"{rule.verdict} | `{rule.code}`" if rule.code else f"{rule.verdict} |"
