"""Gemini is down, wants less, or has a model that does not work."""

import asyncio

from gembackend.embedded.gemini import Behaviour
from tests.acceptance.site import Site
from tests.processes import Process, until


async def metric_becomes(site: Site, process: Process, name: str, low: float, high: float) -> None:
    """Wait until a metric is between two values."""

    async def there() -> bool:
        return low <= await site.metric(process, name) <= high

    await until(there, f"{name} from {low:g} to {high:g}")


async def test_while_gemini_is_down_prompts_wait_keep_their_attempts_and_then_go_on_by_themselves(site: Site) -> None:
    together = asyncio.Event()
    site.gemini.default = Behaviour(hold=together, status="UNAVAILABLE")
    process = await site.start(PROMPT_MAX_ATTEMPTS=2)
    user = await site.user(process)
    rooms = [await user.room(process) for _ in range(10)]
    sent = await asyncio.gather(*(user.accepted(process, room, "hi") for room in rooms))
    await site.gemini.wait_for_calls(10)
    together.set()

    async def all_back() -> bool:
        return bool(await site.value("SELECT count(*) FROM prompts WHERE status = 'queued'") == 10)

    await until(all_back, "every prompt queued again")
    burnt = await site.value("SELECT sum(attempts) FROM prompts WHERE status = 'queued'")
    assert burnt <= 1, "with the second failure it was clear that it is not the prompts"
    assert await site.metric(process, "gemini_breaker_open") == 1
    await site.gemini.wait_for_calls(11)  # a probe, which fails too
    site.gemini.default = Behaviour()
    prompts = await asyncio.gather(*(user.finished(process, prompt_id) for prompt_id in sent))
    assert {prompt["status"] for prompt in prompts} == {"answered"}
    await metric_becomes(site, process, "gemini_breaker_open", 0, 0)
    await site.at_rest()


async def test_a_429_halves_what_is_in_flight_and_answers_raise_it_again(site: Site) -> None:
    site.gemini.script(Behaviour(status="RESOURCE_EXHAUSTED", retry_info=0.1))
    process = await site.start(PROMPT_WORKERS=16)
    assert await site.metric(process, "gemini_concurrency_limit") in (0, 16)
    user = await site.user(process)
    first = await user.accepted(process, await user.room(process), "too many")
    await metric_becomes(site, process, "gemini_concurrency_limit", 8, 8)
    assert (await user.finished(process, first))["attempts"] == 2
    for _ in range(2):
        room = await user.room(process)
        ids = [await user.accepted(process, room, "again") for _ in range(10)]
        await user.finished(process, ids[-1])
    await metric_becomes(site, process, "gemini_concurrency_limit", 10, 12)


async def test_the_fallback_model_answers_the_last_attempt(site: Site) -> None:
    site.gemini.rule(lambda call: None if "spare" in call.model else Behaviour(status="INTERNAL"))
    process = await site.start(GEMINI_FALLBACK_MODEL="spare-model", PROMPT_MAX_ATTEMPTS=2)
    user = await site.user(process)
    prompt = await user.finished(process, await user.accepted(process, await user.room(process), "hi"))
    assert (prompt["status"], prompt["attempts"]) == ("answered", 2)
    assert [call.model for call in site.gemini.calls] == ["models/gemini-2.5-flash-lite", "models/spare-model"]
