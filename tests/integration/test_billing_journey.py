"""From Basic to Pro and back, over HTTP."""

from tests.billing import PUBLIC, shop


async def test_signing_up_paying_cancelling_and_falling_back(database_url: str, redis_url: str) -> None:
    async with shop(database_url, redis_url) as open_shop:
        account = open_shop.stripe.account
        buyer = await open_shop.buyer()
        assert await buyer.status() == {
            "subscription_tier": "Basic",
            "status": None,
            "current_period_end": None,
            "cancel_at_period_end": False,
        }
        started = await buyer.subscribe()
        assert started["url"] == f"{open_shop.stripe.url}/c/pay/{started['session_id']}"
        assert await buyer.tier() == "Basic"
        session = account.pay(started["session_id"])
        await buyer.becomes("Pro", 2)
        subscription = account.subscription(session["subscription"])
        assert subscription["metadata"] == {"user_id": str(buyer.id)}
        assert session["client_reference_id"] == str(buyer.id)
        assert session["success_url"] == PUBLIC + "/checkout/success?session_id={CHECKOUT_SESSION_ID}"
        assert (await buyer.status())["status"] == "active"
        cancelled = await buyer.post("/v1/subscription/cancel")
        assert (cancelled.status, cancelled.body["subscription_tier"]) == (200, "Pro")
        assert cancelled.body["cancel_at_period_end"] is True
        account.end_period(subscription["id"])
        await buyer.becomes("Basic", 2)
        assert (await buyer.status())["status"] == "canceled"
