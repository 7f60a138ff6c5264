"""A price as people read it, and what is wrong with one that cannot be sold as a subscription."""

from dataclasses import dataclass
from decimal import Decimal

_NO_DECIMALS = "BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF VND VUV XAF XOF XPF"
_THREE_DECIMALS = "BHD JOD KWD OMR TND"
_ALWAYS_WHOLE = "ISK UGX"
"""They have no decimals any more, but Stripe goes on counting their amounts in hundredths."""


@dataclass(frozen=True, slots=True)
class Price:
    """A price of Stripe's. `amount` is in the currency's smallest unit, None when there is not one for all.

    `interval` is Stripe's word (day, week, month, year), None for what is paid once.
    """

    id: str
    active: bool
    live: bool
    currency: str
    amount: Decimal | None
    interval: str | None
    interval_count: int
    metered: bool
    tiered: bool
    trial_days: int


def amount(currency: str, smallest: Decimal) -> str:
    """An amount out of its smallest unit: "9.99 USD", "500 JPY". https://docs.stripe.com/currencies#minor-units"""
    code = currency.upper()
    digits = 0 if code in _NO_DECIMALS else 3 if code in _THREE_DECIMALS else 2
    exact = smallest.scaleb(-digits)
    if code in _ALWAYS_WHOLE and exact == exact.to_integral_value():
        return f"{exact.to_integral_value():f} {code}"
    shown = exact.quantize(Decimal(1).scaleb(-digits))
    return f"{shown if shown == exact else exact.normalize():f} {code}"


def in_words(price: Price) -> str:
    """What people pay and how often: "500 JPY every 3 months"."""
    paid = "an amount by tiers" if price.amount is None else amount(price.currency, price.amount)
    if price.interval is None:
        return f"{paid}, once"
    return f"{paid} " + (
        f"a {price.interval}" if price.interval_count == 1 else f"every {price.interval_count} {price.interval}s"
    )


def wrong(price: Price) -> str | None:
    """Why this price cannot be sold as the Pro plan, for its operator; None when it can."""
    if not price.active:
        return "is archived (inactive), so that nobody can buy it"
    if price.interval is None:
        return f"is paid once ({in_words(price)}); a subscription needs a recurring price"
    if price.metered:
        return "is metered, so that nothing is paid in advance; Pro needs a price that is not (usage_type licensed)"
    if price.tiered or price.amount is None:
        return "is tiered, so that it has no one amount; Pro needs a price for each unit (billing_scheme per_unit)"
    return None


def notes(price: Price) -> list[str]:
    """What is not wrong with this price, and perhaps not meant either."""
    found = []
    if price.trial_days:
        found.append(f"its trial of {price.trial_days} days is not given: Checkout does not take trials from prices")
    if price.amount == 0:
        found.append("it costs nothing")
    return found
