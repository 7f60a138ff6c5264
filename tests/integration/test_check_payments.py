"""`gembackend check` tries at Stripe what the service will do there, and tells in one line what would not work."""

from collections.abc import AsyncIterator

import pytest

from gembackend import config
from gembackend.checks import payments
from gembackend.embedded.stripe import Behaviour, Call, StripeStandIn
from gembackend.embedded.stripe_wire import Object
from tests.billing import settings, stand_in


@pytest.fixture
async def stripe() -> AsyncIterator[StripeStandIn]:
    async with stand_in() as standing:
        yield standing


def chosen(stripe: StripeStandIn, **environment: str) -> config.Settings:
    return settings("postgresql://127.0.0.1:1/none", "redis://127.0.0.1:1", stripe, **environment)


async def test_all_is_well_and_nothing_is_changed(stripe: StripeStandIn) -> None:
    report = await payments.examine(chosen(stripe))
    assert (report.faults, report.warnings) == ([], [])
    assert report.said == f"{stripe.account.price_id}, 9.99 USD a month, test mode: no money moves"
    account = stripe.account
    assert not any((account.customers, account.sessions, account.portals, account.subscriptions, account.events))


@pytest.mark.parametrize(
    ("terms", "told"),
    [
        (
            {"currency": "jpy", "unit_amount": 500, "recurring": {"interval": "month", "interval_count": 3}},
            "500 JPY every 3 months, test mode",
        ),
        ({"currency": "kwd", "unit_amount": 5120, "livemode": True}, "5.120 KWD a month, live mode"),
        ({"unit_amount": None, "unit_amount_decimal": "99.5"}, "0.995 USD a month"),
        (
            {"recurring": {"interval": "year", "interval_count": 1, "trial_period_days": 14}},
            "9.99 USD a year, test mode",
        ),
    ],
)
async def test_the_price_is_told_as_people_read_it(stripe: StripeStandIn, terms: Object, told: str) -> None:
    stripe.account.terms = terms
    report = await payments.examine(chosen(stripe))
    assert report.faults == [] and told in report.said
    assert [("trial of 14 days" in warning) for warning in report.warnings] == [True] * ("year" in told)


@pytest.mark.parametrize(
    ("terms", "told"),
    [
        ({"active": False}, "is archived"),
        ({"recurring": None, "type": "one_time"}, "is paid once (9.99 USD, once)"),
        ({"recurring": {"interval": "month", "interval_count": 1, "usage_type": "metered"}}, "is metered"),
        ({"billing_scheme": "tiered", "unit_amount": None, "tiers_mode": "volume"}, "is tiered"),
    ],
)
async def test_a_price_that_cannot_be_sold_says_why(stripe: StripeStandIn, terms: Object, told: str) -> None:
    stripe.account.terms = terms
    (wrong,) = (await payments.examine(chosen(stripe))).faults
    assert told in wrong and "PRO_PRICE_ID" in wrong


FORBIDDEN = {
    "events": (("GET", "/v1/events"), "list events", "rak_event_read"),
    "customers": (("POST", "/v1/customers/"), "create customers", "rak_customer_write"),
    "subscriptions": (("POST", "/v1/subscriptions/"), "change subscriptions", "rak_subscription_write"),
    "checkout": (("POST", "/v1/checkout/"), "open Checkout", "rak_checkout_write"),
    "portal": (("POST", "/v1/billing_portal/"), "open the customer portal", "rak_billing_portal_write"),
}


@pytest.mark.parametrize("forbidden", FORBIDDEN.values(), ids=FORBIDDEN)
async def test_a_permission_that_the_key_lacks_is_named(
    stripe: StripeStandIn, forbidden: tuple[tuple[str, str], str, str]
) -> None:
    (method, path), told, permission = forbidden

    def refuse(call: Call) -> Behaviour | None:
        return Behaviour(status=403) if call.method == method and call.path.startswith(path) else None

    stripe.rule(refuse)
    (wrong,) = (await payments.examine(chosen(stripe))).faults
    assert told in wrong and permission in wrong


async def test_a_stripe_that_cannot_be_asked_is_told_once(stripe: StripeStandIn) -> None:
    for status, told in (
        (401, "refuses the key of STRIPE_SECRET_KEY"),
        (503, "an error of its own"),
        (429, "fewer calls"),
    ):
        stripe.rule(lambda _, status=status: Behaviour(status=status))
        (wrong,) = (await payments.examine(chosen(stripe))).faults
        assert told in wrong
    await stripe.stop()
    (wrong,) = (await payments.examine(chosen(stripe))).faults
    assert wrong == "127.0.0.1 of STRIPE_API_BASE cannot be reached (connection refused)"


async def test_a_price_that_is_not_there_is_told(stripe: StripeStandIn) -> None:
    (wrong,) = (await payments.examine(chosen(stripe, PRO_PRICE_ID="price_nobody"))).faults
    assert "no price price_nobody" in wrong and "PRO_PRICE_ID" in wrong


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("STRIPE_SECRET_KEY", "pk_test_canary", "STRIPE_SECRET_KEY is not a secret key"),
        ("STRIPE_SECRET_KEY", "whsec_canary", "STRIPE_SECRET_KEY is not a secret key"),
        ("STRIPE_WEBHOOK_SIGNING_SECRET", "we_canary", "STRIPE_WEBHOOK_SIGNING_SECRET is no signing secret"),
        ("STRIPE_WEBHOOK_SIGNING_SECRET", "whsec_a,sk_canary", "STRIPE_WEBHOOK_SIGNING_SECRET is no signing secret"),
        ("PRO_PRICE_ID", "prod_nobody", "PRO_PRICE_ID is a product"),
    ],
)
async def test_values_in_the_wrong_place_are_told_and_not_shown(
    stripe: StripeStandIn, variable: str, value: str, told: str
) -> None:
    report = await payments.examine(chosen(stripe, **{variable: value}))
    (wrong,) = report.faults
    assert told in wrong and "canary" not in "".join(report.lines("Stripe"))


async def test_a_secret_that_looks_odd_and_a_portal_without_settings_are_noted(stripe: StripeStandIn) -> None:
    stripe.account.portal_settings.clear()
    report = await payments.examine(chosen(stripe, STRIPE_WEBHOOK_SIGNING_SECRET="secret"))
    assert report.faults == []
    secret, portal = report.warnings
    assert "customer portal" in portal and "whsec_" in secret
