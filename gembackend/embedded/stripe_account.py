"""What happens in the account behind the Stripe stand-in: people pay, periods end, payments fail."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gembackend.embedded.stripe_state import State, found
from gembackend.embedded.stripe_wire import ApiError, Object, made_in, missing, new_id, page

DAY = 86_400
MONTH = 30 * DAY


class Account(State):
    """One account in test mode that sells one price, on `terms` that may be other than the usual ones."""

    def __init__(self, price_id: str, tell: Callable[[Object], None], path: Path | None = None) -> None:
        super().__init__(tell, path)
        self.price_id = price_id
        self.terms: Object = {}
        self.portal_settings = [
            {"id": "bpc_standin", "object": "billing_portal.configuration", "active": True, "is_default": True}
        ]

    def settle(self) -> None:
        """Let happen what is due: periods end or are renewed, sessions expire."""
        now = int(time.time())
        for session in self.sessions.values():
            if session["status"] == "open" and session["expires_at"] <= now:
                self.expire_session(session["id"])
        for subscription in list(self.subscriptions.values()):
            while subscription["status"] in ("active", "trialing", "past_due") and _period(subscription)[1] <= now:
                self._turn_period(subscription)

    # Customers

    def create_customer(self, params: Object) -> Object:
        """Make a customer."""
        return self.add("customers", "cus", "customer", metadata=params.get("metadata", {}))

    def list_customers(self, params: Object) -> Object:
        """Customers, newest first, of a time if one is given; not the deleted ones."""
        living = [each for each in self.customers.values() if not each.get("deleted")]
        return page("/v1/customers", made_in(living[::-1], params), params)

    def update_customer(self, customer_id: str, params: Object) -> Object:
        """Change a customer's metadata."""
        customer = self._living(customer_id, param="id")
        customer["metadata"] |= params.get("metadata", {})
        return customer

    def customer(self, customer_id: str) -> Object:
        """A customer, which may be a deleted one."""
        return found(self.customers, "customer", customer_id)

    def delete_customer(self, customer_id: str) -> Object:
        """Delete a customer; its subscriptions end at once."""
        customer = self._living(customer_id, param="id")
        for subscription in self._subscriptions_of(customer_id):
            if subscription["status"] not in ("canceled", "incomplete_expired"):
                self.cancel(subscription["id"])
        self.customers[customer_id] = {"id": customer_id, "object": "customer", "deleted": True}
        self.emit("customer.deleted", customer)
        return self.customers[customer_id]

    # Checkout and the portal

    def create_session(self, params: Object) -> Object:
        """Open a Checkout session for a subscription."""
        customer = self._living(params.get("customer", ""), param="customer")
        price = params.get("line_items", [{}])[0].get("price", "")
        if price != self.price_id:
            raise missing("price", price, param="line_items[0][price]")
        return self.add(
            "sessions",
            "cs_test",
            "checkout.session",
            mode="subscription",
            status="open",
            payment_status="unpaid",
            customer=customer["id"],
            client_reference_id=params.get("client_reference_id"),
            subscription=None,
            success_url=params["success_url"],
            cancel_url=params["cancel_url"],
            expires_at=int(time.time()) + DAY,
            metadata=params.get("metadata", {}),
            _price=price,
            _metadata=params.get("subscription_data", {}).get("metadata", {}),
        )

    def list_sessions(self, params: Object) -> Object:
        """Checkout sessions, newest first, by customer and status."""
        wanted = {name: params[name] for name in ("customer", "status") if name in params}
        if "customer" in wanted:
            self._living(wanted["customer"], param="customer")
        matching = [each for each in self.sessions.values() if wanted.items() <= each.items()]
        return page("/v1/checkout/sessions", matching[::-1], params)

    def session(self, session_id: str) -> Object:
        """A Checkout session."""
        return found(self.sessions, "checkout.session", session_id)

    def expire_session(self, session_id: str) -> Object:
        """Let an open Checkout session expire."""
        session = self._open_session(session_id)
        session["status"] = "expired"
        self.emit("checkout.session.expired", session)
        return session

    def pay(self, session_id: str) -> Object:
        """Complete a Checkout session as a person with a good card would."""
        session = self._open_session(session_id)
        self._living(session["customer"], param="customer")
        subscription = self.subscribe(session["customer"], metadata=session["_metadata"])
        session |= {"status": "complete", "payment_status": "paid", "subscription": subscription["id"]}
        self.emit("checkout.session.completed", session)
        self.emit("invoice.paid", _invoice(subscription))
        return session

    def create_portal(self, params: Object) -> Object:
        """Open a session of the customer portal."""
        customer = self._living(params.get("customer", ""), param="customer")
        return self.add(
            "portals", "bps", "billing_portal.session", customer=customer["id"], return_url=params["return_url"]
        )

    def list_portal_settings(self, params: Object) -> Object:
        """The settings of the portal: there are none but the default ones."""
        return page("/v1/billing_portal/configurations", self.portal_settings, params)

    def portal(self, portal_id: str) -> Object:
        """A session of the customer portal."""
        return found(self.portals, "billing_portal.session", portal_id)

    # Subscriptions

    def subscribe(self, customer_id: str, *, status: str = "active", price: str = "", **fields: Any) -> Object:
        """Make a subscription, to the Pro price unless another is named."""
        now = int(time.time())
        price_object = self.price(price or self.price_id, param="price")
        item = {
            "id": new_id("si"),
            "object": "subscription_item",
            "created": now,
            "current_period_start": now,
            "current_period_end": now + MONTH,
            "price": price_object,
            "quantity": 1,
        }
        subscription = self.add(
            "subscriptions",
            "sub",
            "subscription",
            **{
                "customer": customer_id,
                "status": status,
                "items": {"object": "list", "has_more": False, "url": "/v1/subscription_items", "data": [item]},
                "cancel_at": None,
                "cancel_at_period_end": False,
                "canceled_at": None,
                "ended_at": None,
                "collection_method": "charge_automatically",
                "currency": "usd",
                "metadata": {},
                "pause_collection": None,
                "latest_invoice": new_id("in"),
            }
            | fields,
        )
        self.emit("customer.subscription.created", subscription)
        return subscription

    def subscription(self, subscription_id: str) -> Object:
        """A subscription."""
        return found(self.subscriptions, "subscription", subscription_id)

    def list_subscriptions(self, params: Object) -> Object:
        """Subscriptions of a customer, newest first: those that have not ended, or with `status=all` every one."""
        customer_id = params["customer"]
        if customer_id not in self.customers:
            raise missing("customer", customer_id, param="customer")
        theirs = self._subscriptions_of(customer_id)
        if params.get("status") != "all":
            theirs = [each for each in theirs if each["status"] != "canceled"]
        return page("/v1/subscriptions", theirs[::-1], params)

    def update_subscription(self, subscription_id: str, params: Object) -> Object:
        """Cancel a subscription at the end of its period, or resume it."""
        subscription = self.subscription(subscription_id)
        if subscription["status"] in ("canceled", "incomplete_expired"):
            raise ApiError("A canceled subscription can only update its cancellation_details.")
        if "cancel_at_period_end" not in params:
            raise ApiError("The stand-in can update cancel_at_period_end only.")
        ending = params["cancel_at_period_end"] == "true"
        return self.change(
            subscription_id,
            cancel_at_period_end=ending,
            cancel_at=_period(subscription)[1] if ending else None,
            canceled_at=int(time.time()) if ending else None,
        )

    def cancel(self, subscription_id: str) -> Object:
        """End a subscription at once."""
        subscription = self.subscription(subscription_id)
        now = int(time.time())
        subscription |= {"status": "canceled", "canceled_at": subscription["canceled_at"] or now, "ended_at": now}
        self.emit("customer.subscription.deleted", subscription)
        return subscription

    def change(self, subscription_id: str, **fields: Any) -> Object:
        """Change a subscription in any way and tell that it was updated."""
        subscription = self.subscription(subscription_id)
        subscription |= fields
        self.emit("customer.subscription.updated", subscription)
        return subscription

    def fail_payment(self, subscription_id: str) -> Object:
        """Let the payment of the period fail."""
        subscription = self.change(subscription_id, status="past_due")
        self.emit("invoice.payment_failed", _invoice(subscription))
        return subscription

    def end_period(self, subscription_id: str, at: float | None = None) -> Object:
        """Let the period end now, or at a time (seconds since 1970) that is not told as an event."""
        subscription = self.subscription(subscription_id)
        end = int(time.time() if at is None else at)
        subscription["items"]["data"][0]["current_period_end"] = end
        if subscription["cancel_at"] is not None:
            subscription["cancel_at"] = end
        self.settle()
        return subscription

    # Prices

    def price(self, price_id: str, *, param: str = "id") -> Object:
        """A price: the Pro one, or a test's own whose id begins with `price_other`."""
        if price_id != self.price_id and not price_id.startswith("price_other"):
            raise missing("price", price_id, param=param)
        return {
            "id": price_id,
            "object": "price",
            "active": True,
            "currency": "usd",
            "livemode": False,
            "product": "prod_standin",
            "recurring": {"interval": "month", "interval_count": 1, "usage_type": "licensed"},
            "type": "recurring",
            "billing_scheme": "per_unit",
            "unit_amount": 999,
        } | self.terms

    def _turn_period(self, subscription: Object) -> None:
        """What happens when a period is over."""
        if subscription["cancel_at"] is not None or subscription["status"] == "past_due":
            self.cancel(subscription["id"])
            return
        item = subscription["items"]["data"][0]
        item |= {
            "current_period_start": item["current_period_end"],
            "current_period_end": item["current_period_end"] + MONTH,
        }
        self.change(subscription["id"], status="active", latest_invoice=new_id("in"))
        self.emit("invoice.paid", _invoice(subscription))

    def _living(self, customer_id: str, *, param: str) -> Object:
        customer = self.customers.get(customer_id)
        if customer is None or customer.get("deleted"):
            raise missing("customer", customer_id, param=param)
        return customer

    def _open_session(self, session_id: str) -> Object:
        session = self.session(session_id)
        if session["status"] != "open":
            raise ApiError(f'Only Checkout Sessions with a status in ["open"] can do this: it is {session["status"]}.')
        return session

    def _subscriptions_of(self, customer_id: str) -> list[Object]:
        return [each for each in self.subscriptions.values() if each["customer"] == customer_id]


def _period(subscription: Object) -> tuple[int, int]:
    item = subscription["items"]["data"][0]
    return item["current_period_start"], item["current_period_end"]


def _invoice(subscription: Object) -> Object:
    return {
        "id": subscription["latest_invoice"],
        "object": "invoice",
        "customer": subscription["customer"],
        "parent": {"type": "subscription_details", "subscription_details": {"subscription": subscription["id"]}},
    }
