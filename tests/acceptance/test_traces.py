"""Traces of real processes at a collector: one trace from a client's POST to the commit, wherever the work is done."""

import ast
import asyncio
import re
import secrets
from collections.abc import AsyncIterator

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from gembackend import __version__
from gembackend.embedded.gemini import Behaviour, Call
from tests.acceptance.site import Site
from tests.accounts import PASSWORD, Client, new_phone
from tests.collector import Collector, Seen
from tests.processes import ROOT, Process

POST = "POST /v1/chatroom/{chatroom_id}/message"
CALL = "generate_content gemini-2.5-flash-lite"
LIFE = (POST, "accept prompts", "attempt prompts", CALL, "commit prompts")
OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    opened = Collector()
    await opened.start()
    yield opened
    await opened.stop()


async def traced(site: Site, collector: Collector, **environment: object) -> Process:
    """A process that sends its spans to the collector within moments."""
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": 50, **environment}
    return await site.start(**settings)


def client_span(flags: str = "01") -> tuple[str, str, str]:
    """A span of a client of ours: its trace id, its span id and its traceparent."""
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    return trace, span, f"00-{trace}-{span}-{flags}"


def inside(child: Seen, parent: Seen) -> bool:
    return child.parent == parent.id and parent.started <= child.started and child.ended <= parent.ended


def hanging(call: Call) -> Behaviour | None:
    """Calls of the first process never end."""
    return Behaviour(hang=True) if call.api_key == "process-0" else None


def test_the_table_lists_exactly_what_spans_tell() -> None:
    conventions = re.compile(r"(?:http|url|network|messaging|gen_ai|db|error|gembackend)\.[a-z_.]+")
    told = {
        node.value
        for path in ("web/tracing.py", "prompts/spans.py", "plumbing/otel.py")
        for node in ast.walk(ast.parse((ROOT / "gembackend" / path).read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and conventions.fullmatch(node.value)
    }
    spans = (ROOT / "ops/traces.md").read_text().partition("## Spans")[2].partition("## Settings")[0]
    assert told == {word for word in re.findall(r"`([^`]+)`", spans) if conventions.fullmatch(word)}
    assert len(told) > 30


async def test_one_trace_leads_from_the_clients_span_to_the_commit(site: Site, collector: Collector) -> None:
    process = await traced(site, collector, OTEL_EXPORTER_OTLP_COMPRESSION="gzip")
    user = await site.user(process)
    trace, span, traceparent = client_span()
    room = await user.room(process)
    prompt_id = await user.accepted(process, room, "Why?", traceparent=traceparent, X_Request_ID="follow-me")
    spans = await collector.trace(trace, *LIFE)
    post, accept, attempt, call, commit = spans
    assert post.parent == span
    assert inside(accept, post)
    assert attempt.parent == accept.id
    assert inside(call, attempt)
    assert commit.parent == attempt.id
    assert [one.kind for one in spans] == ["server", "producer", "consumer", "client", "client"]
    assert not any(one.failed or one.message or one.events for one in spans)
    assert collector.encodings == {"gzip"}

    assert post.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/chatroom/{chatroom_id}/message",
        "http.response.status_code": 202,
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "gembackend.request.id": "follow-me",
    }
    for one in (accept, attempt, commit):
        assert one.attributes["messaging.message.id"] == prompt_id
        assert one.attributes["messaging.message.conversation_id"] == room
        assert one.attributes["messaging.destination.name"] == "prompts"
    assert accept.attributes["gembackend.prompt.decision"] == "accepted"
    assert (attempt.attributes["gembackend.attempt.number"], attempt.attributes["gembackend.attempt.taken_over"]) == (
        1,
        False,
    )
    assert attempt.attributes["gembackend.attempt.outcome"] == "answered"
    assert attempt.attributes["gembackend.attempt.status"] == "STOP"
    assert 0 <= attempt.attributes["gembackend.queue.seconds"] < 20
    [hint] = attempt.attributes["gembackend.hints"]
    assert re.fullmatch(r"\d+-\d+", hint), "the stream's entry that led to it"
    assert call.attributes["gen_ai.request.model"] == call.attributes["gen_ai.response.model"]
    assert call.attributes["gen_ai.provider.name"] == "gcp.gemini"
    assert call.attributes["gen_ai.conversation.id"] == room
    assert call.attributes["gen_ai.response.finish_reasons"] == ["STOP"]
    usage = (await user.finished(process, prompt_id))["usage"]
    counted = (call.attributes["gen_ai.usage.input_tokens"], call.attributes["gen_ai.usage.output_tokens"])
    assert counted == (usage["prompt_tokens"], usage["reply_tokens"])
    assert (commit.attributes["gembackend.prompt.status"], commit.attributes["gembackend.batch.size"]) == (
        "answered",
        1,
    )

    resource = post.resource
    assert (resource["service.name"], resource["service.version"]) == ("gembackend", __version__)
    assert len(resource["service.instance.id"]) == 36

    for event, about in {
        "request": post,
        "prompt_accepted": accept,
        "attempt_ended": attempt,
        "prompt_finished": commit,
    }.items():
        [line] = process.events(event, trace_id=trace)
        assert line["span_id"] == about.id, event
        assert line["request_id"] == "follow-me"
    headers = {name.replace("-", "_"): value for name, value in OPENMETRICS.items()}
    text = (await user.call(process, "GET", "/metrics", **headers)).body.decode()
    exemplars = [
        sample.exemplar.labels
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.exemplar is not None and sample.labels.get("route") == post.attributes["http.route"]
    ]
    assert {"request_id": "follow-me", "trace_id": trace} in exemplars


async def test_a_prompt_is_one_trace_though_its_process_was_killed_and_others_go_on(
    site: Site, collector: Collector
) -> None:
    site.gemini.rule(hanging)
    first = await traced(site, collector, PROMPT_LEASE_SECONDS=1, PROMPT_WORKERS=1)
    user = await site.user(first)
    begun, _, begun_parent = client_span()
    waiting, _, waiting_parent = client_span()
    await user.accepted(first, await user.room(first), "begun", traceparent=begun_parent)
    await site.gemini.wait_for_calls(1)
    await user.accepted(first, await user.room(first), "waiting", traceparent=waiting_parent)
    await collector.trace(begun, *LIFE[:2])
    await collector.trace(waiting, *LIFE[:2])
    await first.kill()
    await traced(site, collector, PROMPT_LEASE_SECONDS=1)
    for trace, number in ((begun, 2), (waiting, 1)):
        post, accept, attempt, _, _ = await collector.trace(trace, *LIFE)
        assert attempt.parent == accept.id
        assert attempt.resource["service.instance.id"] != post.resource["service.instance.id"]
        assert attempt.attributes["gembackend.attempt.number"] == number
        assert attempt.attributes["gembackend.attempt.taken_over"] == (number == 2)


async def test_retries_are_attempts_of_one_trace_and_the_wait_between_is_not_the_queues(
    site: Site, collector: Collector
) -> None:
    site.gemini.script(Behaviour(status="UNAVAILABLE", detail="do not tell: secret prompt"), Behaviour(text=""))
    process = await traced(site, collector)
    user = await site.user(process)
    trace, _, traceparent = client_span()
    await user.accepted(process, await user.room(process), "again", traceparent=traceparent)
    spans = await collector.trace(trace, *LIFE, *LIFE[2:], *LIFE[2:])
    attempts, calls, commits = (spans[start::3] for start in (2, 3, 4))
    assert [one.attributes["gembackend.attempt.number"] for one in attempts] == [1, 2, 3]
    assert [one.attributes["gembackend.attempt.outcome"] for one in attempts] == ["retry", "retry", "answered"]
    assert [one.attributes["gembackend.attempt.status"] for one in attempts] == ["UNAVAILABLE", "STOP", "STOP"]
    assert [one.attributes.get("error.type") for one in attempts] == ["gemini_unavailable", "empty_answer", None]
    assert [one.failed for one in attempts] == [True, True, False]
    assert [one.attributes.get("error.type") for one in calls] == ["UNAVAILABLE", None, None]
    assert [one.attributes["gembackend.prompt.status"] for one in commits] == ["queued", "queued", "answered"]
    for previous, attempt in zip(commits, attempts[1:], strict=False):
        queued = attempt.attributes["gembackend.queue.seconds"]
        assert queued < (attempt.started - previous.ended) / 1e9 - 0.4, "the backoff is not the queue's"
    assert not any(b"do not tell" in body for body in collector.raw)


async def test_a_parent_that_is_not_sampled_gives_no_span_anywhere(site: Site, collector: Collector) -> None:
    process = await traced(site, collector)
    user = await site.user(process)
    room = await user.room(process)
    dark, _, dark_parent = client_span("00")
    unseen = await user.accepted(process, room, "unseen", traceparent=dark_parent)
    await user.finished(process, unseen)
    trace, _, traceparent = client_span()
    await user.accepted(process, room, "seen", traceparent=traceparent)
    await collector.trace(trace, *LIFE)
    assert collector.of(dark) == []
    assert {span.trace for span in collector.spans if not span.name.startswith(("POST /v1/auth", "GET"))} <= {
        trace,
        *(span.trace for span in collector.spans if span.name == "POST /v1/chatroom"),
    }, "an attempt does not begin a trace of its own"
    assert process.events("prompt_finished", prompt_id=unseen)
    assert not any(line.get("trace_id") == dark for line in process.lines)


async def test_the_samplers_variable_is_read_and_a_whole_prompt_is_left_out(site: Site, collector: Collector) -> None:
    process = await traced(site, collector, OTEL_TRACES_SAMPLER="parentbased_always_off")
    user = await site.user(process)
    room = await user.room(process)
    await user.finished(process, await user.accepted(process, room, "nobody asked for a trace"))
    trace, _, traceparent = client_span()
    await user.accepted(process, room, "but now", traceparent=traceparent)
    await collector.trace(trace, *LIFE)
    assert {span.trace for span in collector.spans} == {trace}


async def test_a_malformed_traceparent_is_ignored(site: Site, collector: Collector) -> None:
    process = await traced(site, collector)
    trace, span, traceparent = client_span()
    malformed = (
        f"00-{trace}-{span}",
        f"00-{trace}-{span}-1",
        f"{traceparent}-more",
        f"{traceparent}, {traceparent}",
        f"ff-{trace}-{span}-01",
        f"01-{trace}-{span}-01more",
        f"00-{'0' * 32}-{span}-01",
        f"00-{trace}-{'0' * 16}-01",
        f"00-{'A' * 32}-{span}-01",
        "garbage" * 1000,
    )
    async with Client(process.url) as client:
        for given in malformed:
            assert (await client.call("GET", "/v1/", headers={"traceparent": given})).status == 200
    await collector.wait_until(lambda: len(collector.spans) == len(malformed))
    assert {span.parent for span in collector.spans} == {""}
    assert len({span.trace for span in collector.spans} - {trace}) == len(malformed)


async def test_a_traceparent_of_a_later_version_is_continued(site: Site, collector: Collector) -> None:
    process = await traced(site, collector)
    trace, span, _ = client_span()
    async with Client(process.url) as client:
        await client.call("GET", "/v1/", headers={"traceparent": f"cc-{trace}-{span}-01-what the future brings"})
    [seen] = await collector.trace(trace, "GET /v1/")
    assert seen.parent == span


async def test_requests_that_fail_say_so_and_their_paths_stay_here(site: Site, collector: Collector) -> None:
    process = await traced(site, collector)
    path = secrets.token_hex(8)
    async with Client(process.url) as client:
        assert (await client.call("GET", f"/v1/{path}?q={path}")).status == 404
        assert (await client.call("PROPFIND", f"/v1/{path}")).status in (404, 405)
        assert (await client.call("GET", "/v1/user/me")).status == 401
    await collector.wait_until(lambda: len(collector.spans) >= 3)
    spans = sorted(collector.spans, key=lambda span: span.started)
    assert [span.name for span in spans] == ["GET", "HTTP", "GET /v1/user/me"]
    assert spans[1].attributes["http.request.method"] == "_OTHER"
    assert spans[2].attributes["http.response.status_code"] == 401
    assert not any(span.failed for span in spans), "the client's mistakes are not the server's errors"
    assert not any(path.encode() in body for body in collector.raw)


async def test_no_secret_and_nothing_that_people_write_is_in_any_span(site: Site, collector: Collector) -> None:
    api_key = "canary-api-key-93d1"
    process = await traced(site, collector, GEMINI_API_KEY=api_key)
    phone, prompt, reply = new_phone(), "canary prompt of a person", "canary reply to a person"
    site.gemini.script(Behaviour(status="INTERNAL", detail=f"{prompt} {api_key}"), Behaviour(text=reply))
    secret_texts = {phone, phone[1:], PASSWORD, prompt, reply, api_key, "a wrong password"}
    async with Client(process.url) as client:
        await client.sign_up(phone, PASSWORD)
        code = await client.otp(phone)
        await client.post("send-otp", phone=phone, password="a wrong password")
        answer = await client.post("verify-otp", phone=phone, otp=code)
        client.token = answer.body["token"]
        room = (await client.call("POST", "/v1/chatroom", {"name": "canary room"})).body["id"]
        path = f"/v1/chatroom/{room}/message"
        sent = await client.call("POST", path, {"prompt": prompt}, headers={"Prefer": "wait=20"})
        assert (sent.status, sent.body["reply"]["content"]) == (200, reply)
        await client.call("GET", f"/v1/chatroom?cursor={phone}")
        await client.call("POST", path, {"prompt": prompt, "otp": code, "phone": phone})
        await client.call("GET", f"/{phone}", token="canary-token")
        secret_texts |= {code, str(client.token), "canary"}
    process.terminate()
    assert await process.ended() == 0
    assert sum(span.name == "attempt prompts" for span in collector.spans) == 2
    told = b"".join(collector.raw).decode("utf-8", "replace")
    assert not [text for text in secret_texts if text in told.replace(str(room), "")]


async def test_what_is_under_way_when_told_to_stop_is_sent_before_the_end(site: Site, collector: Collector) -> None:
    answer = asyncio.Event()
    site.gemini.default = Behaviour(hold=answer)
    process = await traced(site, collector, OTEL_BSP_SCHEDULE_DELAY=60_000)
    user = await site.user(process)
    trace, _, traceparent = client_span()
    await user.accepted(process, await user.room(process), "last words", traceparent=traceparent)
    await site.gemini.wait_for_calls(1)
    process.terminate()
    await process.logged("draining")
    answer.set()
    assert await process.ended() == 0
    assert [span.name for span in collector.of(trace)] == list(LIFE)


async def test_an_attempt_that_a_drain_cuts_off_is_no_error(site: Site, collector: Collector) -> None:
    site.gemini.rule(hanging)
    process = await traced(site, collector, SHUTDOWN_GRACE_SECONDS=5)
    user = await site.user(process)
    trace, _, traceparent = client_span()
    await user.accepted(process, await user.room(process), "put back", traceparent=traceparent)
    await site.gemini.wait_for_calls(1)
    process.terminate()
    assert await process.ended() == 0
    await traced(site, collector)
    _, _, cut_off, call, commit, again, *_ = await collector.trace(trace, *LIFE, *LIFE[2:])
    assert (cut_off.attributes["gembackend.attempt.outcome"], cut_off.failed) == ("cut_off", False)
    assert (call.attributes["error.type"], call.failed) == ("CancelledError", True)
    assert commit.attributes["gembackend.prompt.status"] == "queued"
    assert again.attributes["gembackend.attempt.number"] == 1, "a drain gives the attempt back"
