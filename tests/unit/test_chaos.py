"""The chaos run's verdict, its order of faults and its options."""

import random
import subprocess
from dataclasses import replace
from itertools import islice

import pytest

from ops.chaos import Recovery, parse, verdict
from ops.chaos_faults import FAULTS, in_random_order
from tests.acceptance.accounting import Account
from tests.listeners import misheard
from tests.processes import ROOT

KEPT = Account(accepted=1200, answered=1199, failed=1, lost=0, repeated=0, out_of_order=0, miscounted=0)


def test_promises_that_were_kept_are_a_verdict_with_status_0() -> None:
    text, status = verdict(KEPT, [Recovery("one", 0.5), Recovery("another", 2.25), Recovery("a third", 1.0)], [])
    assert status == 0
    assert text.splitlines()[0].split()[:2] == ["accepted", "1,200"]
    assert "longest recovery     2.2  seconds until every room went on, after: another" in text
    assert text.endswith("Every promise was kept.")


@pytest.mark.parametrize("promise", ["lost", "repeated", "out_of_order", "miscounted", "misheard"])
def test_a_promise_that_was_broken_is_a_verdict_with_status_1(promise: str) -> None:
    text, status = verdict(replace(KEPT, **{promise: 3}), [], [])
    assert status == 1
    assert promise.replace("_", " ") + " " * (24 - len(promise) - 1) + "3" in text
    assert text.endswith("PROMISES WERE BROKEN.")


def test_whatever_else_went_wrong_is_told_and_breaks_the_promise_too() -> None:
    text, status = verdict(KEPT, [], ["A process ended with status 1."])
    assert status == 1 and "A process ended with status 1.\nPROMISES WERE BROKEN." in text


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
