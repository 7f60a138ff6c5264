"""The day of the quota, the bound of what is given back, and the names of phones."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from gembackend.quota.phones import Phones
from gembackend.quota.rules import forgiven_a_day, resets_at, seconds_until_reset


@pytest.mark.parametrize(
    ("now", "seconds"),
    [
        (datetime(2026, 3, 1, 0, 0, 0, tzinfo=UTC), 86_400),
        (datetime(2026, 3, 1, 0, 0, 0, 1, tzinfo=UTC), 86_400),
        (datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC), 43_200),
        (datetime(2026, 3, 1, 23, 59, 58, 500_000, tzinfo=UTC), 2),
        (datetime(2026, 3, 1, 23, 59, 59, 999_999, tzinfo=UTC), 1),
        (datetime(2026, 3, 2, 1, 0, 0, tzinfo=timezone(timedelta(hours=5))), 4 * 3600),
        (datetime(2026, 2, 28, 20, 0, 0, tzinfo=timezone(timedelta(hours=-8))), 20 * 3600),
    ],
)
def test_the_quota_comes_back_at_the_next_midnight_of_utc(now: datetime, seconds: int) -> None:
    assert seconds_until_reset(now) == seconds
    midnight = resets_at(now)
    assert midnight > now and (midnight - now) <= timedelta(days=1)
    assert (midnight.utcoffset(), midnight.time().isoformat()) == (timedelta(0), "00:00:00")


@pytest.mark.parametrize(("daily", "forgiven"), [(0, 5), (1, 5), (5, 5), (6, 6), (1000, 1000)])
def test_as_many_failures_are_given_back_as_a_day_has_prompts_and_five_at_least(daily: int, forgiven: int) -> None:
    assert forgiven_a_day(daily) == forgiven


def test_a_phone_is_named_alike_by_the_same_key_only_and_known_by_the_names_of_earlier_keys() -> None:
    old, new = Phones("old key"), Phones("new key", ["old key", "older key"])
    phone = "+14155550100"
    assert old.name(phone) == Phones("old key").name(phone) != old.name("+14155550101")
    assert new.names(phone) == [new.name(phone), old.name(phone), Phones("older key").name(phone)]
    assert len(set(new.names(phone))) == 3 and phone.encode() not in b"".join(new.names(phone))
