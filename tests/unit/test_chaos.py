"""The chaos run's verdict, its order of faults and its options."""

import random
import subprocess
from dataclasses import replace
from itertools import islice

import pytest

from ops.chaos import parse
from ops.chaos_faults import FAULTS, in_random_order
from ops.chaos_rude import hostile
from ops.chaos_verdict import ENOUGH, FEW_BACKENDS, KEPT_SO_FAR, MEMORY, QUIET, Burden, Pace, Recovery, verdict
from tests.acceptance.accounting import Account
from tests.listeners import misheard
from tests.processes import ROOT

KEPT = Account(accepted=1200, answered=1199, failed=1, lost=0, repeated=0, out_of_order=0, miscounted=0)
QUICK, SLOW = [0.010] * ENOUGH, [0.010] * (ENOUGH * 98 // 100) + [0.0199] * (ENOUGH * 2 // 100)
BORNE = Burden(
    paces=[Pace("reading", QUICK, SLOW), Pace("asking", SLOW, SLOW)],
    memory=MEMORY - 1,
    backends=20 + FEW_BACKENDS,
    pools=20,
    busy=(0.5, 0.75),
    done={"searches": 1500},
)


def test_promises_that_were_kept_are_a_verdict_with_status_0() -> None:
    text, status = verdict(KEPT, [Recovery("one", 0.5), Recovery("another", 2.25), Recovery("a third", 1.0)], BORNE, [])
    assert status == 0
    assert text.splitlines()[0].split()[:2] == ["accepted", "1,200"]
    assert "longest recovery     2.2  seconds until every room went on, after: another" in text
    assert text.endswith("Every promise was kept.")


@pytest.mark.parametrize("promise", ["lost", "repeated", "out_of_order", "miscounted", "misheard"])
def test_a_promise_that_was_broken_is_a_verdict_with_status_1(promise: str) -> None:
    text, status = verdict(replace(KEPT, **{promise: 3}), [], BORNE, [])
    assert status == 1
    assert promise.replace("_", " ") + " " * (24 - len(promise) - 1) + "3" in text
    assert text.endswith("PROMISES WERE BROKEN.")


def test_whatever_else_went_wrong_is_told_and_breaks_the_promise_too() -> None:
    text, status = verdict(KEPT, [], BORNE, ["A process ended with status 1."])
    assert status == 1 and "A process ended with status 1.\nPROMISES WERE BROKEN." in text


def test_what_rude_clients_cost_others_is_told_with_the_kind_of_requests_that_suffered_most() -> None:
    text, status = verdict(KEPT, [], BORNE, [])
    assert status == 0
    assert "slowdown            1.99  times the undisturbed p99, for others beside rude clients, of: reading" in text
    assert "  reading: p50 10.0 and 10.0 ms, p99 10.0 and 19.9 ms, 200 and 200 times" in text
    assert "largest memory       400  MB" in text and "most backends         25  of PostgreSQL, for pools of 20" in text
    assert (
        "cores in use         50%  without them, 75% beside them" in text
        and "rude clients       1,500  searches" in text
    )


@pytest.mark.parametrize(
    "burden",
    [
        replace(BORNE, paces=[Pace("reading", QUICK, QUICK), Pace("asking", QUICK, [2 * one for one in QUICK])]),
        replace(BORNE, refused=1),
        replace(BORNE, memory=MEMORY),
        replace(BORNE, backends=21 + FEW_BACKENDS),
    ],
    ids=["twice as slow", "refused", "memory", "backends"],
)
def test_others_who_paid_are_a_verdict_with_status_1(burden: Burden) -> None:
    text, status = verdict(KEPT, [], burden, [])
    assert status == 1 and text.endswith("PROMISES WERE BROKEN.")


@pytest.mark.parametrize(
    "burden",
    [
        replace(BORNE, paces=[Pace("reading", QUICK, [0.1] * (ENOUGH - 1))]),
        replace(BORNE, paces=[Pace("reading", QUICK, [0.1] * ENOUGH)], busy=(QUIET + 0.01, 1.0)),
    ],
    ids=["few requests", "a busy machine"],
)
def test_a_p99_that_says_nothing_is_told_and_not_judged_which_is_told_too(burden: Burden) -> None:
    text, status = verdict(KEPT, [], burden, [])
    assert status == 0 and text.splitlines()[-1] == KEPT_SO_FAR
    assert "  reading: p50 10.0 and 100.0 ms, p99 10.0 and 100.0 ms" in text
    assert verdict(KEPT, [], replace(burden, memory=MEMORY), [])[1] == 1


def test_hostile_texts_are_as_long_as_is_asked_for_and_end_in_what_they_are_full_of() -> None:
    texts = [hostile(random.Random(seed), 500) for seed in range(20)]
    assert {len(text) for text in texts} <= {499, 500} and len(set(texts)) > 10


def test_one_seed_is_one_order_of_faults_in_which_each_has_its_turn() -> None:
    count = len(FAULTS)
    first, second = (list(islice(in_random_order(random.Random(5)), 3 * count)) for _ in range(2))
    assert first == second
    for turns in (first[:count], first[count : 2 * count], first[2 * count :]):
        assert {faults[0] for faults in turns} == set(FAULTS)
    together = [faults for faults in first if len(faults) == 2]
    assert together and all(one.part != other.part for one, other in together)


def test_options_have_defaults_and_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    assert (parse([]).minutes, parse([]).processes) == (1.0, 2)
    assert parse(["--minutes", "0.5", "--seed", "7"]).seed == 7
    assert parse([]).rude and not parse(["--no-rude"]).rude
    for wrong in (
        ["--minutes", "0"],
        ["--minutes", "long"],
        ["--processes", "0"],
        ["--lease", "0.5"],
        ["--speed", "1"],
    ):
        with pytest.raises(SystemExit) as refusal:
            parse(wrong)
        assert refusal.value.code == 2
    assert "--lease: must be from 1 to 3600" in capsys.readouterr().err


def test_the_command_describes_itself() -> None:
    answer = subprocess.run([str(ROOT / "ops" / "chaos"), "--help"], capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "--minutes N" in answer.stdout and "Exit status" in answer.stdout


QUEUED, RUNNING, ANSWERED = "prompt.queued", "prompt.running", "prompt.answered"


@pytest.mark.parametrize(
    "story",
    [
        [QUEUED, RUNNING, "text: all of it", ANSWERED],
        [QUEUED, RUNNING, "text: of no use", RUNNING, RUNNING, "text: all of it", ANSWERED],
    ],
)
def test_a_prompt_that_was_told_once_and_whole_was_heard_well(story: list[str]) -> None:
    assert misheard({"1": story, "2": [QUEUED, "prompt.cancelled"]}, [("1", "answered", "all of it")]) == []
    assert misheard({"2": [QUEUED, RUNNING, "prompt.failed"]}, [("2", "failed", None)]) == []


@pytest.mark.parametrize(
    "story",
    [
        [],
        [RUNNING, "text: all of it", ANSWERED],
        [QUEUED, RUNNING, "text: all of it"],
        [QUEUED, QUEUED, RUNNING, "text: all of it", ANSWERED],
        [QUEUED, RUNNING, "text: all of it", ANSWERED, ANSWERED],
        [QUEUED, RUNNING, "text: all of", ANSWERED],
        [QUEUED, RUNNING, "text: all of it", "prompt.failed"],
        [QUEUED, RUNNING, "text: all of it", RUNNING, ANSWERED],
    ],
)
def test_a_prompt_that_was_told_twice_or_in_part_was_misheard(story: list[str]) -> None:
    assert misheard({"1": story}, [("1", "answered", "all of it")]) == ["1"]
