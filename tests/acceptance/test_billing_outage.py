"""Payments while PostgreSQL is away."""

import asyncio

from gembackend.billing.sync_store import LEASE_SECONDS
from gembackend.embedded.stripe import Behaviour
from tests.acceptance.breakable import Breakable
from tests.billing import settings, shop_at, stand_in


async def test_with_the_database_away_events_are_refused_and_their_redelivery_works(breakable: Breakable) -> None:
    async with stand_in() as stripe:
        stripe.deliveries.automatic = False
        chosen = settings(await breakable.create_database(), breakable.redis_url, stripe)
        async with shop_at(chosen, stripe) as store:
            buyer = await store.buyer()
            stripe.account.pay((await buyer.subscribe())["session_id"])
            events = list(stripe.account.events.values())
            await breakable.stop_postgres()
            for event in events:
                async with asyncio.timeout(10):
                    answer = await store.post_event(event)
                assert (answer.status, answer.code) == (503, "database_unavailable")
            page = await store.client.call("GET", "/checkout/success?session_id=cs_test_any")
            assert page.status == 200 and b"as soon as Stripe has confirmed" in page.body
            assert (await buyer.post("/v1/subscribe/pro")).status == 503
            await breakable.start_postgres()
            for event in events:
                assert (await store.post_event(event)).status == 200
            await buyer.becomes("Pro")
            await store.settled()
            assert await store.value("SELECT count(*) FROM billing_events WHERE status = 'processed'") == len(events)


async def test_a_sync_whose_database_goes_away_is_made_again(breakable: Breakable) -> None:
    held = asyncio.Event()
    async with stand_in() as stripe:
        chosen = settings(await breakable.create_database(), breakable.redis_url, stripe)
        async with shop_at(chosen, stripe) as store:
            customer = await store.bare_customer()
            stripe.rule(lambda call: Behaviour(hold=held) if call.path == "/v1/subscriptions" else None)
            stripe.account.subscribe(customer)
            await stripe.wait_until(lambda: any(call.path == "/v1/subscriptions" for call in stripe.calls))
            await breakable.stop_postgres()
            held.set()
            await store.idle()
            await breakable.start_postgres()
            await store.value(
                "UPDATE billing_customers SET lease_until = lease_until - make_interval(secs => $1)", LEASE_SECONDS
            )
            await store.settled()
            assert await store.value("SELECT status FROM billing_subscriptions") == "active"
