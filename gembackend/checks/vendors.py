"""Gemini's models, and the gateway that one-time codes are posted to."""

import asyncio
import ssl
from urllib.parse import urlsplit

from gembackend.checks.report import Failed, Report, why_away
from gembackend.config import Settings
from gembackend.gemini.client import Gemini
from gembackend.gemini.faults import Failure

_AWAY = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "TIMEOUT")
_KEY = ("UNAUTHENTICATED", "PERMISSION_DENIED")


async def gemini(settings: Settings, timeout: float) -> Report:
    """Whether Gemini takes the key and knows each model that prompts may be sent to; `timeout` in seconds."""
    models = {"GEMINI_MODEL": settings.gemini_model, "GEMINI_FALLBACK_MODEL": settings.gemini_fallback_model}
    wanted = [(variable, model) for variable, model in models.items() if model]
    client = Gemini.of(settings)
    try:
        failures = await asyncio.gather(*(client.check(timeout, model) for _, model in wanted))
    finally:
        await client.close()
    told = [_told(*named, failure) for named, failure in zip(wanted, failures, strict=True) if failure]
    return Report(", ".join(model for _, model in wanted), faults=list(dict.fromkeys(told)))


def _told(variable: str, model: str, failure: Failure) -> str:
    if failure.status in _AWAY:
        return f"cannot be reached ({failure.status})"
    if failure.status in _KEY:
        return f"refuses the key of GEMINI_API_KEY ({failure.status})"
    if failure.status == "NOT_FOUND":
        return f"has no model {model}: see {variable}"
    if failure.status == "UNIMPLEMENTED":
        return f"{model} is no model for prompts: see {variable}"
    return f"{model}: {failure.status}"


async def gateway(url: str) -> str:
    """Connect to where codes are posted, with TLS if it is https, and send nothing: any request might be a code."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    where = f"{parts.hostname}:{port}"
    try:
        _, writer = await asyncio.open_connection(
            parts.hostname, port, ssl=ssl.create_default_context() if secure else None
        )
    except OSError as error:
        raise Failed(f"{where} of OTP_WEBHOOK_URL cannot be reached ({why_away(error)})") from error
    writer.transport.abort()
    return f"{where} takes connections"
