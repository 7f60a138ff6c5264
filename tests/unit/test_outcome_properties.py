"""Properties of the outcome table and the backoff, over everything a server might send."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gembackend.prompts import outcome
from gembackend.prompts.outcome import Answered, GiveUp, Retry, backoff, clean_text, decide, of_failure, of_reply

draws = st.floats(0.0, 1.0, exclude_max=True)
anything = st.text(st.characters(min_codepoint=0, max_codepoint=0x10FFFF, exclude_categories=()))
names = st.sampled_from([*outcome.STATUSES, *outcome.FINISHES, *outcome.BLOCKS]) | st.text(max_size=12)


@given(anything)
def test_cleaned_text_can_be_stored_and_cleaning_it_again_changes_nothing(text: str) -> None:
    cleaned = clean_text(text)
    assert "\x00" not in cleaned
    cleaned.encode("utf-8")
    assert clean_text(cleaned) == cleaned


@given(anything, anything, names, st.none() | names)
def test_every_reply_has_an_outcome_and_an_answer_always_has_storable_text(
    response_id: str, text: str, finish: str, block: str | None
) -> None:
    value = of_reply(
        response_id=response_id, text=text, finish_reason=finish, block_reason=block, prompt_tokens=1, reply_tokens=1
    )
    if isinstance(value, Answered):
        assert block is None
        assert value.text.strip()
        assert clean_text(value.text) == value.text
        assert clean_text(value.response_id) == value.response_id
        assert len(value.response_id) <= outcome.LONGEST_ID
    else:
        assert value.message == outcome.MESSAGES[value.code]


@given(st.integers(1, 10_000), draws)
def test_a_backoff_is_never_nothing_and_never_above_the_cap(attempt: int, draw: float) -> None:
    wait = backoff(attempt, lambda: draw)
    assert outcome.BACKOFF_BASE / 2 <= wait <= outcome.BACKOFF_CAP


@given(st.integers(1, 10_000), draws)
def test_the_later_half_of_a_backoff_is_drawn(attempt: int, draw: float) -> None:
    assert backoff(attempt, lambda: draw) == pytest.approx(backoff(attempt, lambda: 0.0) * (1 + draw))


@given(st.integers(1, 100), draws)
def test_a_later_attempt_never_waits_less(attempt: int, draw: float) -> None:
    assert backoff(attempt, lambda: draw) <= backoff(attempt + 1, lambda: draw)


@given(names, st.none() | st.floats(), st.integers(1, 20), st.integers(1, 20), st.booleans(), draws)
def test_a_retry_is_never_earlier_than_gemini_asked_and_attempts_end(
    status: str, retry_after: float | None, attempt: int, max_attempts: int, outage: bool, draw: float
) -> None:
    judged = of_failure(status=status, retry_after=retry_after)
    value = decide(judged, attempt=attempt, max_attempts=max_attempts, outage=outage, random=lambda: draw)
    assert isinstance(value, Retry | GiveUp)
    if isinstance(value, Retry):
        assert isinstance(judged, Retry)
        assert 0.0 < value.delay <= outcome.PATIENCE + outcome.BACKOFF_CAP
        assert retry_after is None or not retry_after > value.delay
        assert attempt < max_attempts or not value.counted
        assert value.counted or (outage and value.code == "gemini_unavailable")
