"""The numbers of ops/accounts.md are those that the code goes by."""

import re

from gembackend.auth import delivery, rules
from tests.processes import ROOT

PAGE = (ROOT / "ops/accounts.md").read_text()


def test_every_number_of_the_page_is_the_codes() -> None:
    told = re.findall(r"(?m)^\| (\d+) \| .* \| `([A-Z_]+)` \|$", PAGE)
    assert {name: int(number) for number, name in told} == {
        name: value for name, value in vars(rules).items() if isinstance(value, int)
    }
    assert f"At most {delivery.MAX_UNDER_WAY} reset codes wait" in PAGE


def test_ten_strange_places_cannot_use_up_what_an_eleventh_has() -> None:
    assert rules.STRANGE_PLACES > 10
    assert rules.STRANGE_PLACES + rules.DAILY_STRANGE_REPEATS < rules.DAILY_UNKNOWN_FAILURES < rules.DAILY_CODE_FAILURES
