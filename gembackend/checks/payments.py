"""Stripe: all that the service will want of it is tried, and nothing is changed there."""

import asyncio
from typing import get_args
from urllib.parse import urlsplit

from gembackend.billing import prices
from gembackend.billing.faults import StripeFault
from gembackend.billing.stripe import Permission, Stripe
from gembackend.checks.report import Report, causes, why_away
from gembackend.config import Settings

_NOT_SECRET_KEYS = ("pk_", "whsec_", "we_", "price_", "prod_")
_NOT_SIGNING_SECRETS = ("sk_", "rk_", "pk_", "we_", "price_", "prod_")


async def examine(settings: Settings) -> Report:
    """What people pay, and whether Stripe will do for our key what the service asks of it."""
    if not settings.stripe_secret_key:
        return Report("STRIPE_SECRET_KEY is not set: there are no subscriptions")
    report = _look(settings)
    if settings.stripe_secret_key.startswith(_NOT_SECRET_KEYS):
        report.faults.append("STRIPE_SECRET_KEY is not a secret key (sk_… or rk_…)")
        return report
    client = Stripe(settings.stripe_secret_key, settings.pro_price_ids[0], api_base=settings.stripe_api_base)
    try:
        await _price(client, settings, report)
        if report.said:
            report.faults += [trouble for trouble in await _permissions(client, settings) if trouble]
            await _portal(client, report)
    finally:
        await client.close()
    return report


def _look(settings: Settings) -> Report:
    """What the signing secrets look like; only an event of Stripe's could try them."""
    report = Report()
    for secret in settings.stripe_webhook_signing_secrets:
        if secret.startswith(_NOT_SIGNING_SECRETS):
            report.faults.append("STRIPE_WEBHOOK_SIGNING_SECRET is no signing secret (whsec_…): no event is believed")
        elif not secret.startswith("whsec_"):
            report.warnings.append("STRIPE_WEBHOOK_SIGNING_SECRET does not begin with whsec_ as Stripe's secrets do")
    return report


async def _price(client: Stripe, settings: Settings, report: Report) -> None:
    """Say what people pay, and what is wrong with the price. If nothing is said, nothing more can be tried."""
    price_id = settings.pro_price_ids[0]
    if price_id.startswith("prod_"):
        report.faults.append("PRO_PRICE_ID is a product (prod_…), not one of its prices (price_…)")
        return
    try:
        price = await client.price()
    except StripeFault as fault:
        known = fault.reason != "resource_missing"
        missing = f"has no price {price_id} where this key belongs (test or live): see PRO_PRICE_ID"
        report.faults.append(_in_words(fault, "read the price of PRO_PRICE_ID", settings) if known else missing)
        return
    mode = "live mode" if price.live else "test mode: no money moves"
    report.said = f"{price.id}, {prices.in_words(price)}, {mode}"
    if trouble := prices.wrong(price):
        report.faults.append(f"{price.id} {trouble}: see PRO_PRICE_ID")
    report.warnings += prices.notes(price)


async def _permissions(client: Stripe, settings: Settings) -> list[str | None]:
    """What the key may not do, or could not be tried, each once."""
    permissions: tuple[Permission, ...] = get_args(Permission)

    async def events() -> str | None:
        try:
            await client.undelivered_events(limit=1)
        except StripeFault as fault:
            return _in_words(fault, "list events, without which missed webhooks are not found", settings)
        return None

    async def tried(permission: Permission) -> str | None:
        try:
            await client.try_permission(permission)
        except StripeFault as fault:
            return _in_words(fault, permission, settings)
        return None

    return list(dict.fromkeys(await asyncio.gather(events(), *map(tried, permissions))))


async def _portal(client: Stripe, report: Report) -> None:
    try:
        if not await client.has_portal_settings():
            report.warnings.append("the customer portal opens for nobody until its settings are saved in the dashboard")
    except StripeFault:
        return  # the service itself never reads them, so the key need not be allowed to


def _in_words(fault: StripeFault, wish: str, settings: Settings) -> str:
    base = settings.stripe_api_base
    match fault.reason:
        case "unreachable" | "timeout":
            where = f"{urlsplit(base).hostname} of STRIPE_API_BASE " if base else ""
            return f"{where}cannot be reached ({why_away(list(causes(fault))[-1])})"
        case "key_refused":
            return "refuses the key of STRIPE_SECRET_KEY: it is mistyped or has been rolled"
        case "permission_missing":
            lacks = f" (it lacks {fault.permission})" if fault.permission else ""
            return f"the key of STRIPE_SECRET_KEY may not {wish}{lacks}"
        case "server_error":
            return "answers with an error of its own; ask again later"
        case "rate_limited":
            return "wants fewer calls of this key at the moment"
        case reason:
            return f"does not let us {wish} ({reason})"
