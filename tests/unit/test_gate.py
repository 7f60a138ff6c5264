"""The gate: as many calls as both the limit and the breaker allow, and both learn of every one."""

from gembackend.prompts.breaker import PAUSE, PROBE_TIME, Breaker
from gembackend.prompts.gate import Gate
from gembackend.prompts.limit import COOL_OFF, AdaptiveLimit


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_as_many_calls_may_begin_as_the_limit_leaves_beside_those_in_flight() -> None:
    gate = Gate(AdaptiveLimit(8), Breaker(2), Clock())
    assert (gate.free(0), gate.free(5), gate.free(9)) == (8, 3, -1)


def test_a_rate_limit_cuts_what_may_begin_and_is_no_outage() -> None:
    clock = Clock()
    gate = Gate(AdaptiveLimit(8), Breaker(1), clock)
    assert [gate.record("rate_limited") for _ in range(3)] == [False] * 3
    assert gate.free(0) == 4
    clock.now += COOL_OFF
    gate.record("rate_limited")
    assert gate.free(0) == 2


def test_failures_shut_it_for_all_but_a_probe_and_an_answer_opens_it() -> None:
    clock = Clock()
    gate = Gate(AdaptiveLimit(8), Breaker(2), clock)
    assert [gate.record("down"), gate.record("down")] == [False, True]
    assert gate.free(0) == 0
    clock.now += PAUSE
    assert gate.free(0) == 1
    gate.started()
    assert gate.free(0) == 0, "others wait for what the probe says"
    clock.now += PROBE_TIME
    assert gate.free(0) == 1, "the probe was lost"
    gate.started()
    assert gate.record("neutral"), "who knows nothing of Gemini does not end an outage"
    assert not gate.record("ok")
    assert gate.free(0) == 8
