"""What the API description says in words."""

from gembackend.web.openapi_errors import registry_table

TITLE = "gembackend"

INTRODUCTION = f"""\
People log in with a phone, a password and a one-time code, make chatrooms, and send prompts that Google Gemini answers.

**Logging in.** `POST /v1/auth/signup`, then `POST /v1/auth/send-otp`, then `POST /v1/auth/verify-otp`, whose `token`
goes with every further request as `Authorization: Bearer <token>`.

**Waiting for an answer.** A prompt is accepted with 202 and answered a little later. `Prefer: wait=N` (RFC 7240) makes
a request wait for it, at most 30 seconds; `Preference-Applied` says that it did.

**Sending again.** A prompt sent twice with the same `Idempotency-Key` is one prompt and one charge, for 24 hours.

**The daily quota.** A Basic user may send so many prompts a UTC day; what is accepted is counted at once. A prompt that
is cancelled, or deleted with its room, before its first attempt is not counted, nor is one that fails: `error.message`
says so. Failures that a prompt can bring about (`content_blocked`, `gemini_rejected`, `empty_answer`,
`incomplete_answer`, `gemini_timeout`, `gemini_error`) are given back as often a day as the daily limit has prompts, at
least 5 times; after that they stay counted. The quota is the phone's: a new account of the same phone starts with it.

**Lists** take `limit` and `cursor` and answer `next_cursor`, which is null on the last page.

**Conventions.** JSON in UTF-8; ids are strings; times are RFC 3339 in UTC ending in `Z`. Unknown fields of a body are
refused. What belongs to someone else is answered like what does not exist. Every answer has an `X-Request-ID`; whatever
answers GET answers HEAD too, but for streams. A slash at the end of a path makes no difference. A body may have at most
64 KiB, on the auth endpoints 4 KiB, and with a prompt as many bytes as its characters need, however JSON spells them;
where none is described, it may be left out or be `{{}}`. Limits that count by address count an IPv6 client by its /64.
A client that reads nothing of an answer for 15 seconds is cut off.

## Errors

Every error is an `application/problem+json` document (RFC 9457). `code` is the stable name to act on; a 422 lists the
fields in `errors`; a 429 and a 503 say in `Retry-After` how many seconds to wait; a 405 lists the methods in `Allow`.

{registry_table()}
"""

GROUPS = {
    "Accounts": "Signing up, logging in, and looking after a password.",
    "User": "The user's own page: name, tier and today's usage.",
    "Chatrooms": "Where conversations are kept.",
    "Messages": "Prompts, their replies, and the room read back.",
    "Subscription": "Becoming Pro, which has no daily limit, with Stripe.",
    "Service": "The service itself: health, metrics, and this description.",
}
"""The headings, in the order in which a person looks for them."""

REPLY_HEADERS = {
    "X-Request-ID": ("The id of this request, to look for in the logs.", "7c1e0d6a4bb14d8f9a51c4e6d2f0a3b9"),
    "Location": ("Where to find what was made.", "/v1/prompt/01980f5d-ac96-774b-bcce-b302099a8057"),
    "Preference-Applied": ("The wait that was granted; absent without one (RFC 7240).", "wait=10"),
    "Content-Disposition": (
        "That it is to be saved, and under which name.",
        'attachment; filename="chatroom-01980f5d-ac96-774b-bcce-b302099a8057.json"',
    ),
    "Retry-After": ("The seconds after which to try again.", "5"),
    "WWW-Authenticate": ("How to authenticate (RFC 6750).", "Bearer"),
}
"""By name: what it is for, and an example."""
