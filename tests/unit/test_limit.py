"""The adaptive limit: cut once by a burst of 429s, grown again by answers, never outside its bounds."""

from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from gembackend.prompts.limit import COOL_OFF, AdaptiveLimit
from gembackend.prompts.outcome import Health

events = st.lists(st.tuples(st.sampled_from(get_args(Health)), st.floats(0.0, 10.0)), max_size=200)


def after(limit: AdaptiveLimit, health: Health, times: int, *, apart: float = 0.0) -> int:
    for moment in range(times):
        limit.record(health, moment * apart)
    return limit.value


def test_it_begins_at_its_ceiling() -> None:
    assert AdaptiveLimit(64).value == 64


def test_a_burst_of_rate_limits_cuts_it_once() -> None:
    assert after(AdaptiveLimit(64), "rate_limited", 64) == 32


def test_rate_limits_that_go_on_cut_it_down_to_one() -> None:
    assert after(AdaptiveLimit(64), "rate_limited", 3, apart=COOL_OFF) == 8
    assert after(AdaptiveLimit(64), "rate_limited", 99, apart=COOL_OFF) == 1


def test_a_round_of_answers_adds_about_one() -> None:
    limit = AdaptiveLimit(64)
    assert after(limit, "rate_limited", 1) == 32
    assert after(limit, "ok", 33) == 33
    assert after(limit, "ok", 3_000) == 64


def test_it_comes_back_from_one() -> None:
    limit = AdaptiveLimit(4)
    assert after(limit, "rate_limited", 9, apart=COOL_OFF) == 1
    assert after(limit, "ok", 1) == 2


def test_other_failures_say_nothing_about_the_limit() -> None:
    limit = AdaptiveLimit(8)
    assert after(limit, "down", 9) == 8
    assert after(limit, "neutral", 9) == 8


@given(st.integers(1, 500), events)
def test_it_stays_in_its_bounds_and_moves_only_for_a_reason(ceiling: int, calls: list[tuple[Health, float]]) -> None:
    limit = AdaptiveLimit(ceiling)
    now = 0.0
    for health, passed in calls:
        now += passed
        before = limit.value
        limit.record(health, now)
        assert 1 <= limit.value <= ceiling
        if limit.value < before:
            assert health == "rate_limited"
            assert limit.value >= before // 2
        if limit.value > before:
            assert health == "ok"
            assert limit.value == before + 1


@given(st.integers(1, 40), events)
def test_it_always_recovers(ceiling: int, calls: list[tuple[Health, float]]) -> None:
    limit = AdaptiveLimit(ceiling)
    now = 0.0
    for health, passed in calls:
        now += passed
        limit.record(health, now)
    assert after(limit, "ok", ceiling * ceiling + 1) == ceiling
