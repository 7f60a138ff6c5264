"""The parts of this room, wired together."""

from collections.abc import Sequence
from datetime import timedelta

from gembackend.actors import Actor
from gembackend.billing.inbox import Inbox
from gembackend.billing.reconcile import Reconciler
from gembackend.billing.rules import Plan
from gembackend.billing.stripe import Stripe
from gembackend.billing.subscriptions import Subscriptions
from gembackend.billing.sync import Syncs
from gembackend.billing.syncer import Syncer
from gembackend.config import RateLimit, Settings
from gembackend.plumbing.postgres import Database

REQUESTS = RateLimit(30, 300)
"""What one user may ask of us that makes us call Stripe."""


def plan_of(settings: Settings) -> Plan:
    """What makes Pro."""
    return Plan(settings.pro_price_ids, timedelta(days=settings.past_due_grace_days))


class Billing:
    """Everything about payments but the HTTP. The actors are for a supervisor; `close` comes after they have ended."""

    def __init__(self, settings: Settings, database: Database) -> None:
        assert settings.stripe_secret_key and settings.pro_price_ids
        plan = plan_of(settings)
        self._stripe = Stripe(settings.stripe_secret_key, plan.price_ids[0], api_base=settings.stripe_api_base)
        syncs = Syncs(database, self._stripe, plan)
        self._syncer = Syncer(database, syncs)
        self.inbox = Inbox(database, settings.stripe_webhook_signing_secrets, self._syncer.wake)
        self._reconciler = Reconciler(database, self._stripe, self.inbox)
        self.subscriptions = Subscriptions(
            database, self._stripe, syncs, plan, public_base_url=settings.public_base_url
        )

    @property
    def trouble(self) -> str | None:
        """What is not as it should be although payments go on, for a person to read; None when all is well.

        No reason to send requests elsewhere: another process has the same key.
        """
        refused = {operation: why for operation, (why, _) in self._stripe.forbidden.items()}
        found = [f"Stripe refuses {operation} ({why})" for operation, why in refused.items()]
        found += [
            f"reconciliation cannot see to {step} ({why})"
            for step, why in self._reconciler.troubles.items()
            if why not in refused.values()
        ]
        return "; ".join(found) or None

    @property
    def actors(self) -> Sequence[Actor]:
        """Everything that runs, in the order of starting."""
        return (self._syncer, self._reconciler)

    async def close(self) -> None:
        """Close the connections to Stripe."""
        await self._stripe.close()
