"""What `gembackend check` finds out about Stripe: all that the service will want of it is tried, nothing is changed."""

import asyncio
from dataclasses import dataclass
from typing import get_args

from gembackend.billing import prices
from gembackend.billing.faults import StripeFault
from gembackend.billing.stripe import Permission, Stripe
from gembackend.config import Settings

_NOT_SECRET_KEYS = ("pk_", "whsec_", "price_", "prod_")
_NOT_SIGNING_SECRETS = ("sk_", "rk_", "pk_", "we_", "price_")
_REASONS = {
    "unreachable": "cannot be reached",
    "timeout": "does not answer",
    "server_error": "answers with an error of its own",
    "rate_limited": "wants fewer calls of this key at the moment",
    "key_refused": "refuses STRIPE_SECRET_KEY: it is mistyped or has been rolled",
}


@dataclass(frozen=True, slots=True)
class Findings:
    """What there is to say, for a person: `wrong` keeps people from paying, `notes` may not be what was meant."""

    facts: str
    wrong: list[str]
    notes: list[str]

    def __str__(self) -> str:
        return "; ".join(self.wrong or [self.facts, *self.notes])


async def look_at(settings: Settings) -> Findings:
    """Ask Stripe for everything that the service will; needs a secret key and a price."""
    assert settings.stripe_secret_key and settings.pro_price_ids
    wrong = _misplaced(settings)
    client = Stripe(settings.stripe_secret_key, settings.pro_price_ids[0], api_base=settings.stripe_api_base)
    try:
        facts, troubles, notes = await _price(client, settings.pro_price_ids[0])
        if facts:
            troubles += [trouble for trouble in await _permissions(client) if trouble]
            notes += await _portal(client)
    finally:
        await client.close()
    if not all(secret.startswith("whsec_") for secret in settings.stripe_webhook_signing_secrets):
        notes.append("STRIPE_WEBHOOK_SIGNING_SECRET does not begin with whsec_ as Stripe's signing secrets do")
    return Findings(facts, wrong + troubles, notes)


def _misplaced(settings: Settings) -> list[str]:
    """Values that belong to another variable, by what they begin with."""
    wrong = []
    if (settings.stripe_secret_key or "").startswith(_NOT_SECRET_KEYS):
        wrong.append("STRIPE_SECRET_KEY is not a secret key (sk_… or rk_…)")
    if any(secret.startswith(_NOT_SIGNING_SECRETS) for secret in settings.stripe_webhook_signing_secrets):
        wrong.append("STRIPE_WEBHOOK_SIGNING_SECRET is not a signing secret (whsec_…), so that no event is believed")
    if settings.pro_price_ids[0].startswith("prod_"):
        wrong.append("PRO_PRICE_ID is a product (prod_…), not one of its prices (price_…)")
    return wrong


async def _price(client: Stripe, price_id: str) -> tuple[str, list[str], list[str]]:
    """The price in words, what is wrong with it, and what is to be noted; without words nothing more can be tried."""
    try:
        price = await client.price()
    except StripeFault as fault:
        if fault.reason == "resource_missing":
            return "", [f"Stripe has no price {price_id} (PRO_PRICE_ID) where this key belongs, be it test or live"], []
        return "", [_in_words(fault, "read the price of PRO_PRICE_ID")], []
    mode = "live mode" if price.live else "test mode: no money moves"
    facts = f"{price.id}, {prices.in_words(price)}, {mode}"
    trouble = prices.wrong(price)
    return facts, [f"{price.id} (PRO_PRICE_ID) {trouble}"] if trouble else [], prices.notes(price)


async def _permissions(client: Stripe) -> list[str | None]:
    """What the key may not do, or could not be tried."""
    permissions: tuple[Permission, ...] = get_args(Permission)

    async def events() -> str | None:
        try:
            await client.undelivered_events(limit=1)
        except StripeFault as fault:
            return _in_words(fault, "list events, without which missed webhooks are not found")
        return None

    async def tried(permission: Permission) -> str | None:
        try:
            await client.try_permission(permission)
        except StripeFault as fault:
            return _in_words(fault, permission)
        return None

    return await asyncio.gather(events(), *map(tried, permissions))


async def _portal(client: Stripe) -> list[str]:
    try:
        if not await client.has_portal_settings():
            return ["the customer portal opens once its settings are saved in Stripe's dashboard"]
    except StripeFault:
        return []  # a key need not be allowed to read them
    return []


def _in_words(fault: StripeFault, wish: str) -> str:
    if fault.reason == "permission_missing":
        return f"the key may not {wish}" + (f" (it lacks {fault.permission})" if fault.permission else "")
    if fault.reason in _REASONS:
        return f"Stripe {_REASONS[fault.reason]}"
    return f"Stripe does not let us {wish} ({fault.reason})"
