"""The pages for people who come back from Stripe. Nothing that a request carries is shown in them."""

from html import escape

POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
"""Nothing is loaded, run or framed."""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{title}</title>
<style>
body {{ font: 1.1rem/1.5 system-ui, sans-serif; max-width: 32rem; margin: 18vh auto 0; padding: 0 1.5rem; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{text}</p>
</body>
</html>
"""


def success(*, pro: bool) -> str:
    """The page after Checkout and after the portal; `pro` when Stripe has confirmed the payment."""
    if pro:
        return _page("Thank you", "You are Pro now. You can close this page and go back to your chats.")
    return _page(
        "Thank you",
        "Your subscription is up to date as soon as Stripe has confirmed it, usually within moments. "
        "You can close this page and go back to your chats.",
    )


def cancelled() -> str:
    """The page for somebody who left Checkout without paying."""
    return _page(
        "Nothing has been charged", "You left before paying. You can close this page and go back to your chats."
    )


def _page(title: str, text: str) -> str:
    return _PAGE.format(title=escape(title), text=escape(text))
