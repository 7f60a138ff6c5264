"""Prices as people read them, and what is wrong with some."""

import dataclasses
from decimal import Decimal

import pytest

from gembackend.billing.prices import Price, amount, in_words, notes, wrong

MONTHLY = Price(
    id="price_pro",
    active=True,
    live=True,
    currency="usd",
    amount=Decimal(999),
    interval="month",
    interval_count=1,
    metered=False,
    tiered=False,
    trial_days=0,
)


@pytest.mark.parametrize(
    ("currency", "smallest", "expected"),
    [
        ("usd", "999", "9.99 USD"),
        ("usd", "1000", "10.00 USD"),
        ("usd", "0", "0.00 USD"),
        ("usd", "0.5", "0.005 USD"),
        ("usd", "1050.25", "10.5025 USD"),
        ("eur", "1", "0.01 EUR"),
        ("jpy", "500", "500 JPY"),
        ("jpy", "10000", "10000 JPY"),
        ("krw", "0.5", "0.5 KRW"),
        ("kwd", "5120", "5.120 KWD"),
        ("tnd", "10", "0.010 TND"),
        ("isk", "500", "5 ISK"),
        ("ugx", "370000", "3700 UGX"),
        ("huf", "1045", "10.45 HUF"),
        ("JPY", "500", "500 JPY"),
    ],
)
def test_an_amount_is_told_in_its_currency(currency: str, smallest: str, expected: str) -> None:
    assert amount(currency, Decimal(smallest)) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "9.99 USD a month"),
        ({"interval": "year"}, "9.99 USD a year"),
        ({"interval_count": 3, "currency": "jpy", "amount": Decimal(500)}, "500 JPY every 3 months"),
        ({"interval": "week", "interval_count": 2}, "9.99 USD every 2 weeks"),
        ({"interval": None}, "9.99 USD, once"),
        ({"amount": None, "tiered": True}, "an amount by tiers a month"),
    ],
)
def test_a_price_is_told_in_words(changes: dict[str, object], expected: str) -> None:
    assert in_words(dataclasses.replace(MONTHLY, **changes)) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"active": False}, "is archived"),
        ({"interval": None}, "is paid once"),
        ({"metered": True}, "is metered"),
        ({"tiered": True, "amount": None}, "is tiered"),
    ],
)
def test_a_price_that_cannot_be_sold_says_why(changes: dict[str, object], expected: str) -> None:
    found = wrong(dataclasses.replace(MONTHLY, **changes))
    assert found is not None and expected in found


def test_a_good_price_has_nothing_wrong_and_nothing_to_note() -> None:
    assert (wrong(MONTHLY), notes(MONTHLY)) == (None, [])


def test_what_may_not_have_been_meant_is_noted() -> None:
    (trial,) = notes(dataclasses.replace(MONTHLY, trial_days=14))
    assert "14 days" in trial
    assert notes(dataclasses.replace(MONTHLY, amount=Decimal(0))) == ["it costs nothing"]
