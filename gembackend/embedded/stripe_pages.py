"""The pages of the Stripe stand-in: a Checkout with a Pay button, and a portal that can also let time pass."""

from datetime import UTC, datetime
from html import escape

from gembackend.embedded.stripe_wire import Object

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 1.1rem/1.5 system-ui, sans-serif; max-width: 34rem; margin: 8vh auto 0; padding: 0 1.5rem; }}
aside {{ background: #fff3cd; padding: .5rem 1rem; margin-bottom: 2rem; }}
button {{ font: inherit; padding: .5rem 1.5rem; margin: .2rem 0; }}
</style>
</head>
<body>
<aside>This is a stand-in for Stripe: no card is asked for, and no money moves.</aside>
<h1>{title}</h1>
{content}
</body>
</html>
"""


def checkout(session: Object, price: Object) -> str:
    """The page of a Checkout session."""
    if session["status"] != "open":
        content = f"<p>This session is {escape(session['status'])}: nothing can be paid here any more.</p>"
    else:
        amount = f"{price['unit_amount'] / 100:.2f} {price['currency'].upper()} a {price['recurring']['interval']}"
        content = f"<p>gembackend Pro, {escape(amount)}</p>{_button('Pay and subscribe', do='pay')}"
        content += f"<p>{_link(session['cancel_url'], 'Go back without paying')}</p>"
    return _page("Subscribe to Pro", content)


def portal(session: Object, subscriptions: list[Object]) -> str:
    """The page of a portal session, with what can be done about each subscription."""
    content = "".join(map(_subscription, subscriptions)) or "<p>There is no subscription.</p>"
    return _page("Your subscription", f"{content}<p>{_link(session['return_url'], 'Go back')}</p>")


def _subscription(subscription: Object) -> str:
    status = f"<h2>{escape(subscription['status'])}</h2>"
    if subscription["status"] in ("canceled", "incomplete_expired"):
        return status
    end = datetime.fromtimestamp(subscription["items"]["data"][0]["current_period_end"], UTC)
    ending = subscription["cancel_at"] is not None
    toggle = ("Do not cancel", "resume") if ending else ("Cancel at the end of the period", "cancel")
    buttons = (toggle, ("Let the period end now", "end-period"), ("Let the payment fail", "fail-payment"))
    return f"{status}<p>The period {'ends' if ending else 'is renewed'} on {end:%Y-%m-%d at %H:%M} UTC.</p>" + "".join(
        _button(label, do=do, subscription=subscription["id"]) for label, do in buttons
    )


def _button(label: str, **fields: str) -> str:
    """A button that posts these fields to the page it is on; its id is what it does."""
    hidden = "".join(f'<input type="hidden" name="{name}" value="{escape(value)}">' for name, value in fields.items())
    return f'<form method="post">{hidden}<button id="{fields["do"]}">{escape(label)}</button></form>'


def _link(url: str, label: str) -> str:
    return f'<a href="{escape(url)}">{escape(label)}</a>'


def _page(title: str, content: str) -> str:
    return _PAGE.format(title=escape(title), content=content)
