"""The adaptive limit: cut once by a burst of 429s, grown again by answers, never outside its bounds."""

from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from gembackend.prompts.limit import Limit
from gembackend.prompts.outcome import Health

events = st.lists(
    st.tuples(st.sampled_from(get_args(Health)), st.floats(0.0, 100.0), st.floats(0.0, 100.0)), max_size=200
)


def after(limit: Limit, health: Health, times: int) -> int:
    for _ in range(times):
        limit.record(health, started=1.0, now=2.0)
    return limit.value


def test_it_begins_at_its_ceiling() -> None:
    assert Limit(64).value == 64


def test_a_burst_of_rate_limits_cuts_it_once() -> None:
    assert after(Limit(64), "rate_limited", 64) == 32


def test_a_call_that_started_after_the_cut_cuts_again() -> None:
    limit = Limit(64)
    limit.record("rate_limited", started=1.0, now=2.0)
    limit.record("rate_limited", started=2.0, now=3.0)
    assert limit.value == 32
    limit.record("rate_limited", started=2.1, now=3.0)
    assert limit.value == 16


def test_a_round_of_answers_adds_about_one() -> None:
    limit = Limit(64)
    assert after(limit, "rate_limited", 1) == 32
    assert after(limit, "ok", 33) == 33
    assert after(limit, "ok", 3_000) == 64


def test_it_comes_back_from_one() -> None:
    limit = Limit(4)
    for moment in range(10):
        limit.record("rate_limited", started=moment + 0.5, now=moment + 1.0)
    assert limit.value == 1
    assert after(limit, "ok", 1) == 2


def test_other_failures_say_nothing_about_the_limit() -> None:
    limit = Limit(8)
    assert after(limit, "down", 9) == 8
    assert after(limit, "neutral", 9) == 8


@given(st.integers(1, 500), events)
def test_it_stays_between_one_and_its_ceiling(ceiling: int, calls: list[tuple[Health, float, float]]) -> None:
    limit = Limit(ceiling)
    for health, started, lasted in calls:
        limit.record(health, started=started, now=started + lasted)
        assert 1 <= limit.value <= ceiling


@given(st.integers(1, 500), events)
def test_only_a_rate_limit_lowers_it_and_only_an_answer_raises_it(
    ceiling: int, calls: list[tuple[Health, float, float]]
) -> None:
    limit = Limit(ceiling)
    for health, started, lasted in calls:
        before = limit.value
        limit.record(health, started=started, now=started + lasted)
        if limit.value < before:
            assert health == "rate_limited"
            assert limit.value >= before // 2
        if limit.value > before:
            assert health == "ok"
            assert limit.value == before + 1


@given(st.integers(1, 40), events)
def test_it_always_recovers(ceiling: int, calls: list[tuple[Health, float, float]]) -> None:
    limit = Limit(ceiling)
    for health, started, lasted in calls:
        limit.record(health, started=started, now=started + lasted)
    for _ in range(ceiling * (ceiling + 1)):
        limit.record("ok", started=0.0, now=1.0)
        if limit.value == ceiling:
            return
    raise AssertionError(limit.value)
