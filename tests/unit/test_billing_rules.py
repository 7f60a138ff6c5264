"""What the state at Stripe means: tiers, signatures, and which events matter."""

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest
import stripe

from gembackend.billing.rules import (
    LONGEST_WAIT_SECONDS,
    RELEVANT_TYPES,
    RENEWAL_ALLOWANCE,
    Entitlement,
    Plan,
    Subscription,
    customer_of,
    entitlement,
    foremost,
    live,
    retry_seconds,
    signed,
)
from gembackend.billing.stripe import API_VERSION
from gembackend.embedded.stripe_wire import signature

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
PLAN = Plan(("price_pro", "price_earlier"), 7 * DAY)
BASIC = Entitlement("Basic", None)
BODY = b'{"id": "evt_1"}'


def pro(until: datetime) -> Entitlement:
    return Entitlement("Pro", until)


def having(
    status: str,
    *,
    price: str = "price_pro",
    end: datetime | None = NOW + 20 * DAY,
    cancel_at: datetime | None = None,
    since: datetime | None = None,
    age: int = 10,
    idle: bool = False,
) -> Subscription:
    idle_prices = (price,) if idle else ()
    return Subscription(f"sub_{status}_{age}", status, (price,), end, cancel_at, NOW - age * DAY, since, idle_prices)


@pytest.mark.parametrize(
    ("subscriptions", "expected"),
    [
        ([], BASIC),
        ([having("incomplete")], BASIC),
        ([having("trialing")], pro(NOW + 20 * DAY + RENEWAL_ALLOWANCE)),
        ([having("active")], pro(NOW + 20 * DAY + RENEWAL_ALLOWANCE)),
        ([having("active", price="price_earlier")], pro(NOW + 20 * DAY + RENEWAL_ALLOWANCE)),
        ([having("active", price="price_of_somebody_else")], BASIC),
        ([having("active", end=NOW - DAY)], pro(NOW - DAY + RENEWAL_ALLOWANCE)),
        ([having("active", end=NOW - RENEWAL_ALLOWANCE)], BASIC),
        ([having("active", cancel_at=NOW + 20 * DAY)], pro(NOW + 20 * DAY)),
        ([having("active", cancel_at=NOW)], BASIC),
        ([having("trialing", cancel_at=NOW + DAY)], pro(NOW + DAY)),
        ([having("past_due", since=NOW)], pro(NOW + 7 * DAY)),
        ([having("past_due", since=NOW - 6 * DAY)], pro(NOW + DAY)),
        ([having("past_due", since=NOW - 7 * DAY)], BASIC),
        ([having("past_due")], pro(NOW + 7 * DAY)),
        ([having("past_due", since=NOW, cancel_at=NOW + DAY)], pro(NOW + DAY)),
        ([having("past_due", since=NOW, price="price_of_somebody_else")], BASIC),
        ([having("unpaid")], BASIC),
        ([having("paused")], BASIC),
        ([having("canceled")], BASIC),
        ([having("incomplete_expired")], BASIC),
        ([having("a word of the future")], BASIC),
        ([having("incomplete_expired"), having("active")], pro(NOW + 20 * DAY + RENEWAL_ALLOWANCE)),
        ([having("active"), having("canceled", age=1)], pro(NOW + 20 * DAY + RENEWAL_ALLOWANCE)),
        ([having("active", cancel_at=NOW + DAY), having("past_due", since=NOW)], pro(NOW + 7 * DAY)),
        ([having("active", price="price_x"), having("unpaid")], BASIC),
        ([having("active", idle=True)], BASIC),
        ([having("trialing", idle=True)], BASIC),
        ([having("past_due", since=NOW, idle=True)], BASIC),
        ([having("active", idle=True), having("active", cancel_at=NOW + DAY)], pro(NOW + DAY)),
    ],
)
def test_the_tier_follows_from_the_subscriptions(subscriptions: list[Subscription], expected: Entitlement) -> None:
    assert entitlement(subscriptions, PLAN, NOW) == expected
    assert entitlement(subscriptions[::-1], PLAN, NOW) == expected


def test_without_grace_a_payment_that_failed_ends_pro_at_once() -> None:
    assert entitlement([having("past_due", since=NOW)], Plan(("price_pro",), timedelta(0)), NOW) == BASIC


def test_one_price_of_ours_in_force_is_enough() -> None:
    several = dataclasses.replace(having("active"), price_ids=("price_x", "price_pro", "price_earlier"))
    idle = dataclasses.replace(several, idle_price_ids=("price_pro",))
    assert entitlement([idle], PLAN, NOW) == pro(NOW + 20 * DAY + RENEWAL_ALLOWANCE)
    assert entitlement([dataclasses.replace(idle, idle_price_ids=("price_pro", "price_earlier"))], PLAN, NOW) == BASIC


def test_what_is_not_paid_for_now_may_be_charged_for_later() -> None:
    assert live([having("active", idle=True)], PLAN) == [having("active", idle=True)]


def test_only_what_may_be_charged_for_is_live() -> None:
    statuses = ("active", "trialing", "past_due", "unpaid", "paused", "incomplete", "incomplete_expired", "canceled")
    found = live([having(status) for status in statuses], PLAN)
    assert [each.status for each in found] == ["active", "trialing", "past_due", "unpaid", "paused"]
    assert live([having("active", price="price_x")], PLAN) == []


def test_the_best_live_subscription_is_shown_or_else_the_newest() -> None:
    assert foremost([], PLAN) is None
    assert foremost([having("active", price="price_x")], PLAN) is None
    shown = foremost([having("canceled", age=1), having("past_due", age=5), having("active", age=9)], PLAN)
    assert shown is not None and shown.status == "active"
    newest = foremost([having("incomplete_expired", age=2), having("canceled", age=1)], PLAN)
    assert newest is not None and newest.status == "canceled"


@pytest.mark.parametrize(
    ("kind", "object_id", "customer", "expected"),
    [
        ("subscription", "sub_1", "cus_1", "cus_1"),
        ("invoice", "in_1", {"id": "cus_1", "object": "customer"}, "cus_1"),
        ("customer", "cus_1", None, "cus_1"),
        ("customer", "cus_1", "cus_of_somebody_else", "cus_1"),
        ("price", "price_1", None, None),
        ("subscription", "sub_1", {"id": 5}, None),
        ("subscription", "sub_1", ["cus_1"], None),
        ("subscription", "sub_1", "cus_\0", None),
        ("subscription", "sub_1", "cus_1\n", None),
        ("subscription", "sub_1", "", None),
        ("customer", None, "cus_1", None),
    ],
)
def test_the_customer_of_an_event(kind: str, object_id: str | None, customer: object, expected: str | None) -> None:
    assert customer_of(kind, object_id, customer) == expected


@pytest.mark.parametrize(
    ("header", "good"),
    [
        (signature(BODY, "whsec_one", 1000), True),
        (signature(BODY, "whsec_two", 1000), True),
        (signature(BODY, "whsec_other", 1000), False),
        (signature(BODY + b" ", "whsec_one", 1000), False),
        (signature(BODY, "whsec_one", 700), True),
        (signature(BODY, "whsec_one", 699), False),
        (signature(BODY, "whsec_one", 1300), True),
        (signature(BODY, "whsec_one", 1301), False),
        (signature(BODY, "whsec_one", 1000).replace(",", ", "), True),
        (signature(BODY, "whsec_one", 1000) + ",v1=" + "0" * 64, True),
        (signature(BODY, "whsec_one", 1000) + ",v0=x,scheme", True),
        (signature(BODY, "whsec_one", 1000).replace("v1=", "v0="), False),
        (signature(BODY, "whsec_one", 1000) + ",t=1000", False),
        (signature(BODY, "whsec_one", 1000).upper(), False),
        ("", False),
        ("t=1000", False),
        ("v1=" + "0" * 64, False),
        ("t=,v1=,", False),
        ("t=1e3,v1=aa", False),
        ("t=-1000,v1=aa", False),
        ("t=١٠٠٠,v1=aa", False),
        ("t=" + "9" * 5000 + ",v1=aa", False),
        ("t=1000,v1=é", False),
        ("t=1000,v1=\udcff", False),
        ("=,=,=", False),
    ],
)
def test_a_signature_is_by_one_of_the_secrets_and_of_about_now(header: str, good: bool) -> None:
    assert signed(BODY, header, ("whsec_one", "whsec_two"), 1000.0) is good


def test_nothing_is_signed_without_a_secret() -> None:
    assert not signed(BODY, signature(BODY, "", 1000), (), 1000.0)


def test_waiting_grows_and_has_a_bound() -> None:
    waits = [retry_seconds(failures) for failures in range(1, 20)]
    assert waits == sorted(waits) and waits[:4] == [1, 2, 4, 8] and waits[-1] == LONGEST_WAIT_SECONDS


def test_stripe_takes_the_types_that_are_asked_for() -> None:
    assert len(RELEVANT_TYPES) <= 20  # https://docs.stripe.com/api/events/list


def test_the_version_of_the_api_is_the_one_that_the_sdk_was_made_for() -> None:
    assert stripe.api_version == API_VERSION
