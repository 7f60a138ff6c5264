"""Example values for the API description, put together field by field from the schemas, so that none can be wrong."""

from typing import Any

_PROMPT = "Why is the sky blue?"
_REPLY = "Air scatters blue light more than red, so blue reaches you from everywhere in the sky."

FIELDS: dict[str, Any] = {
    "phone": "+14155550100",
    "password": "correct horse battery",
    "old_password": "correct horse battery",
    "new_password": "staple the battery horse",
    "otp": "042137",
    "token": "eyJhbGciOiJIUzI1NiIsImtpZCI6IjEifQ.eyJzdWIiOiI…",
    "expires_in": 1200,
    "message": "A sentence for people, which may change.",
    "subscription_tier": "Basic",
    "prompts_today": 1,
    "daily_limit": 5,
    "attempts": 1,
    "content": _REPLY,
    "prompt_tokens": 9,
    "reply_tokens": 21,
    "next_cursor": None,
    "request_id": "7c1e0d6a4bb14d8f9a51c4e6d2f0a3b9",
    "User.name": "Ada",
    "Me.name": "Ada",
    "SignUp.name": "Ada",
    "UserChanges.name": "Ada",
    "NewMessage.prompt": _PROMPT,
    "Prompt.prompt": _PROMPT,
    "Prompt.status": "answered",
    "Prompt.error": None,
    "Message.id": "mEciaYrXJ8GhvdIPqNSR6QI_A",
    "Message.role": "assistant",
    "FoundMessage.id": "mEciaYrXJ8GhvdIPqNSR6QI_A",
    "FoundMessage.role": "assistant",
    "CheckoutStarted.url": "https://checkout.stripe.com/c/pay/cs_test_a1B2c3D4",
    "CheckoutStarted.session_id": "cs_test_a1B2c3D4",
    "Portal.url": "https://billing.stripe.com/p/session/test_YWNjdF8x",
    "SubscriptionStatus.status": "active",
    "StripeEvent.id": "evt_1S0Xy2",
    "StripeEvent.type": "customer.subscription.updated",
    "StripeEvent.created": 1769847330,
    "EventObject.object": "subscription",
    "EventObject.id": "sub_1S0Xy1",
    "EventObject.customer": "cus_T1aB2c",
    "Card.name": "gembackend",
    "Card.version": "0.1.0",
    "Card.links": {"documentation": "/docs"},
    "Liveness.status": "ok",
    "Readiness.status": "ok",
    "Readiness.checks": {"database": {"ok": True}, "redis": {"ok": True}},
    "name": "First steps",
}
"""By field, or by `Model.field` where a name means different things; what is not here follows from its type."""

_BY_FORMAT = {"uuid": "01980f5d-ac96-774b-bcce-b302099a8057", "date-time": "2026-01-31T08:15:30.123456Z"}
_BY_TYPE: dict[str, Any] = {"string": "text", "integer": 1, "number": 1.5, "boolean": True, "null": None}


def example_of(schema: dict[str, Any], schemas: dict[str, Any], name: str = "") -> Any:
    """An example of what a schema describes; `name` is the field's, as in `FIELDS`."""
    model = schema.get("$ref", "").rpartition("/")[2]
    if model:
        return example_of(schemas[model], schemas, name)
    for known in (name, name.rpartition(".")[2]):
        if known in FIELDS and "properties" not in schema:
            return FIELDS[known]
    if "properties" in schema:
        return {
            key: example_of(value, schemas, f"{schema['title']}.{key}") for key, value in schema["properties"].items()
        }
    if "anyOf" in schema:
        return example_of(schema["anyOf"][0], schemas, name)
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "array":
        return [example_of(schema["items"], schemas, name)]
    if schema.get("type") == "object":
        return {}
    return _BY_FORMAT.get(schema.get("format", ""), _BY_TYPE[schema["type"]])
