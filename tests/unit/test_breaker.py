"""The breaker: opened by failures in a row, tried by one call at a time, closed by an answer, and never stuck."""

from collections.abc import Callable
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gembackend.prompts import breaker as rules
from gembackend.prompts.breaker import Breaker
from gembackend.prompts.outcome import Health

Event = tuple[float, Health | None]
events = st.lists(st.tuples(st.floats(0.0, 200.0), st.none() | st.sampled_from(get_args(Health))), max_size=200)


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(rules.THRESHOLD):
        breaker.record("down", now)
    return breaker


def nothing(_: float) -> None:
    """The check of a test that looks at the end alone."""


def play(breaker: Breaker, happened: list[Event], check: Callable[[float], None] = nothing) -> float:
    """Let time pass and calls end (or, for None, start if they may); returns the time it is then."""
    now = 0.0
    for passed, health in happened:
        now += passed
        if health is not None:
            breaker.record(health, now)
        elif breaker.allow(now):
            breaker.started(now)
        check(now)
    return now


def test_it_is_closed_and_lets_everything_through_at_first() -> None:
    breaker = Breaker()
    assert (breaker.state, breaker.allow(0.0)) == ("closed", rules.UNLIMITED)


def test_failures_in_a_row_open_it() -> None:
    breaker = opened(10.0)
    assert breaker.state == "open"
    assert breaker.retry_at == 10.0 + rules.PAUSE
    assert breaker.allow(10.0) == 0


def test_its_threshold_can_be_as_low_as_the_attempts_a_prompt_has() -> None:
    breaker = Breaker(2)
    states: list[str] = []
    for _ in range(2):
        breaker.record("down", 0.0)
        states.append(breaker.state)
    assert states == ["closed", "open"]


@pytest.mark.parametrize("sign", ["ok", "rate_limited"])
def test_any_sign_of_life_between_the_failures_keeps_it_closed(sign: Health) -> None:
    breaker = Breaker()
    for _ in range(10 * rules.THRESHOLD):
        breaker.record("down", 0.0)
        breaker.record(sign, 0.0)
    assert breaker.state == "closed"


def test_failures_far_apart_do_not_open_it() -> None:
    breaker = Breaker()
    for times in range(10):
        breaker.record("down", times * (rules.WINDOW + 1.0))
    assert breaker.state == "closed"


def test_after_the_pause_one_call_at_a_time_may_probe() -> None:
    breaker = opened()
    now = rules.PAUSE
    assert breaker.allow(now) == 1
    breaker.started(now)
    assert breaker.state == "half_open"
    assert breaker.allow(now) == 0


def test_a_probe_that_is_answered_closes_it() -> None:
    breaker = opened()
    breaker.started(rules.PAUSE)
    breaker.record("ok", rules.PAUSE + 0.1)
    assert (breaker.state, breaker.allow(rules.PAUSE + 0.1)) == ("closed", rules.UNLIMITED)


def test_probes_that_fail_double_the_pause_up_to_the_cap_and_an_answer_forgets_it() -> None:
    breaker = opened()
    now, pauses = 0.0, []
    for _ in range(8):
        pauses.append(breaker.retry_at - now)
        now = breaker.retry_at
        breaker.started(now)
        breaker.record("down", now)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0, 15.0]
    breaker.record("ok", now)
    for _ in range(rules.THRESHOLD):
        breaker.record("down", now)
    assert breaker.retry_at == now + rules.PAUSE


def test_calls_that_were_on_their_way_when_it_opened_do_not_prolong_it() -> None:
    breaker = opened()
    for _ in range(100):
        breaker.record("down", 0.5)
    assert breaker.retry_at == rules.PAUSE


def test_a_probe_that_says_nothing_lets_another_one_try() -> None:
    breaker = opened()
    breaker.started(2.0)
    breaker.record("neutral", 3.0)
    assert (breaker.state, breaker.allow(3.0)) == ("half_open", 1)


def test_a_probe_that_was_lost_is_replaced() -> None:
    breaker = opened()
    breaker.started(2.0)
    assert breaker.allow(2.0 + rules.PROBE_TIME - 0.1) == 0
    assert breaker.allow(2.0 + rules.PROBE_TIME) == 1


@given(events)
def test_it_is_unlimited_exactly_when_it_is_closed_and_lets_at_most_one_through_else(happened: list[Event]) -> None:
    breaker = Breaker()

    def check(now: float) -> None:
        allowed = breaker.allow(now)
        assert (allowed == rules.UNLIMITED) == (breaker.state == "closed")
        assert allowed in (0, 1, rules.UNLIMITED)

    play(breaker, happened, check)


@given(events)
def test_it_never_stays_shut_longer_than_a_pause_or_a_lost_probe(happened: list[Event]) -> None:
    breaker = Breaker()
    now = play(breaker, happened)
    assert breaker.allow(now + max(rules.PAUSE_CAP, rules.PROBE_TIME) + 1e-6) >= 1


@given(events)
def test_an_answer_closes_it_whatever_came_before(happened: list[Event]) -> None:
    breaker = Breaker()
    now = play(breaker, happened)
    breaker.record("ok", now)
    assert breaker.allow(now) == rules.UNLIMITED


@given(st.lists(st.sampled_from(["ok", "neutral", "rate_limited"]), max_size=50), events)
def test_without_failures_it_never_opens(healths: list[Health], happened: list[Event]) -> None:
    breaker = Breaker()
    for (passed, _), health in zip(happened, healths, strict=False):
        breaker.started(passed)
        breaker.record(health, passed)
        assert breaker.state == "closed"
