"""The order in which the collection goes through the API, and what it looks at on the way."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Step:
    """One request. `status` are the statuses that are right, `saves` the variables that take a member of the reply,
    `body` members other than the description's example, `before` a script that runs first, `checks` further tests
    (a sentence and JavaScript that throws, in which `reply` is the parsed reply)."""

    method: str
    path: str
    status: tuple[int, ...] = (200,)
    name: str = ""
    saves: dict[str, str] = field(default_factory=dict)
    body: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    before: str = ""
    checks: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Folder:
    """A heading and its requests; endpoints of `group` that no step names are added at its end."""

    name: str
    group: str
    steps: tuple[Step, ...]


VARIABLES = {
    "phone": "{{phone}}",
    "password": "{{password}}",
    "old_password": "{{password}}",
    "new_password": "{{new_password}}",
    "otp": "{{otp}}",
}
"""The members of bodies whose value is a variable."""

ENVIRONMENT = {
    "base_url": "http://127.0.0.1:3000",
    "phone": "",
    "password": "correct horse battery",
    "new_password": "staple the battery horse",
    "otp": "",
    "token": "",
    "chatroom_id": "",
    "prompt_id": "",
}

_MINE = 'pm.expect(reply.phone).to.eql(pm.environment.get("phone"));'
_ROOM = "/v1/chatroom/{chatroom_id}"
_NEW_PHONE = 'pm.environment.set("phone", "+1555" + Math.floor(1e6 + Math.random() * 9e6));'
_SEND_CODE = Step(
    "POST",
    "/v1/auth/send-otp",
    saves={"otp": "otp"},
    checks={"the code is shown (OTP_DELIVERY=response)": "pm.expect(reply.otp).to.match(/^[0-9]{6}$/);"},
)
_LOG_IN = Step("POST", "/v1/auth/verify-otp", saves={"token": "token"})

JOURNEY = (
    Folder("1 Is it there", "Service", (Step("GET", "/v1/"), Step("GET", "/livez"), Step("GET", "/readyz"))),
    Folder(
        "2 Sign up and log in",
        "Accounts",
        (Step("POST", "/v1/auth/signup", (201,), before=_NEW_PHONE), _SEND_CODE, _LOG_IN),
    ),
    Folder(
        "3 The user",
        "User",
        (
            Step("GET", "/v1/user/me", checks={"the phone is mine": _MINE}),
            Step("PATCH", "/v1/user/me", body={"name": "Grace"}),
        ),
    ),
    Folder(
        "4 Chatrooms",
        "Chatrooms",
        (
            Step("POST", "/v1/chatroom", (201,), saves={"chatroom_id": "id"}),
            Step("GET", "/v1/chatroom", query={"limit": "20"}),
            Step("GET", _ROOM),
            Step("PATCH", _ROOM, body={"name": "Blue skies"}),
        ),
    ),
    Folder(
        "5 Prompts and replies",
        "Messages",
        (
            Step(
                "POST",
                f"{_ROOM}/message",
                (202,),
                saves={"prompt_id": "id"},
                headers={"Idempotency-Key": "{{$guid}}"},
                checks={"it waits for its turn": 'pm.expect(reply.status).to.eql("queued");'},
            ),
            Step(
                "GET",
                "/v1/prompt/{prompt_id}",
                headers={"Prefer": "wait=30"},
                checks={"it has been answered": 'pm.expect(reply.status).to.eql("answered");'},
            ),
            Step(
                "POST",
                f"{_ROOM}/message",
                name="Send a prompt and wait for the reply",
                body={"prompt": "And at sunset?"},
                headers={"Prefer": "wait=30"},
                saves={"prompt_id": "id"},
                checks={"the reply is there": "pm.expect(reply.reply.content).to.be.a('string').and.not.empty;"},
            ),
            Step("GET", f"{_ROOM}/message"),
            Step(
                "GET",
                f"{_ROOM}/events",
                name="What happens in the chatroom, for two seconds",
                headers={"Prefer": "wait=2", "Last-Event-ID": "0-0"},
                checks={
                    "it tells what has happened": 'pm.expect(reply).to.include("event: prompt.queued")'
                    '.and.include("event: reply.delta").and.include("event: prompt.answered");'
                },
            ),
            Step(
                "GET",
                f"{_ROOM}/message/all",
                checks={
                    "questions and replies take turns": "pm.expect(reply.messages.map(message => message.role))"
                    '.to.eql(["user", "assistant", "user", "assistant"]);'
                },
            ),
            Step(
                "POST",
                "/v1/prompt/{prompt_id}/regenerate",
                headers={"Prefer": "wait=30", "Idempotency-Key": "{{$guid}}"},
                saves={"prompt_id": "id"},
                checks={
                    "it is the same question": 'pm.expect(reply.prompt).to.eql("And at sunset?");',
                    "there is a new reply": "pm.expect(reply.reply.content).to.be.a('string').and.not.empty;",
                },
            ),
            Step(
                "GET",
                "/v1/search",
                query={"q": "sunset"},
                checks={
                    "the question is found, both times": "pm.expect(reply.messages.filter("
                    'message => message.content === "And at sunset?").length).to.eql(2);'
                },
            ),
            Step(
                "GET",
                f"{_ROOM}/export",
                checks={"the whole room is there": "pm.expect(reply.messages.length).to.eql(6);"},
            ),
        ),
    ),
    Folder(
        "6 Subscription",
        "Subscription",
        (
            Step(
                "GET",
                "/v1/subscription/status",
                checks={"it begins as Basic": 'pm.expect(reply.subscription_tier).to.eql("Basic");'},
            ),
            Step(
                "POST",
                "/v1/subscribe/pro",
                checks={"there is a page to pay on": "pm.expect(reply.url).to.match(/^https?:/);"},
            ),
            Step("POST", "/v1/subscription/portal"),
            Step("POST", "/v1/subscription/cancel", (409,), name="There is nothing to cancel yet"),
            Step("POST", "/v1/webhook/stripe", (400,), name="An event that is not signed by Stripe"),
            Step("GET", "/checkout/success"),
            Step("GET", "/checkout/cancel"),
        ),
    ),
    Folder(
        "7 Passwords and leaving",
        "",
        (
            Step("POST", "/v1/auth/change-password", saves={"token": "token"}),
            Step("POST", "/v1/auth/forgot-password", saves={"otp": "otp"}),
            Step("POST", "/v1/auth/reset-password", body={"new_password": "{{password}}"}),
            Step("GET", "/v1/user/me", (401,), name="Every session has ended"),
            _SEND_CODE,
            _LOG_IN,
            Step("DELETE", _ROOM, (204,)),
            Step("POST", "/v1/auth/logout", (204,)),
            _SEND_CODE,
            _LOG_IN,
            Step("DELETE", "/v1/user/me", (204,)),
        ),
    ),
)
