"""Spans as the house knows them: nested, named in log lines while they last, and nothing at all when traces are off."""

from collections.abc import AsyncIterator

import pytest
from structlog.contextvars import get_contextvars

from gembackend.plumbing import traces

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
async def on() -> AsyncIterator[None]:
    traces.start("http://127.0.0.1:9/v1/traces")
    yield
    await traces.stop(0)


@pytest.mark.usefixtures("on")
async def test_a_block_is_inside_the_one_around_it_and_gives_back_its_place() -> None:
    with traces.begin("outer", "server", {}, parent=PARENT) as outer:
        named = get_contextvars()
        with traces.begin("inner", "client", {}) as inner:
            assert inner.traceparent
            assert get_contextvars() == {"trace_id": PARENT[3:35], "span_id": inner.traceparent[36:52]}
        assert traces.CURRENT.get() is outer
        assert get_contextvars() == named
        assert traces.trace_id() == PARENT[3:35]
    assert traces.CURRENT.get() is traces.NOTHING
    assert get_contextvars() == {}


@pytest.mark.usefixtures("on")
async def test_a_span_that_is_not_sampled_names_no_line_but_goes_on_elsewhere() -> None:
    with traces.begin("dark", "server", {}, parent=PARENT.removesuffix("1") + "0") as dark:
        assert not dark.recorded
        assert (dark.traceparent or "").startswith(PARENT[:36])
        assert traces.trace_id() is None
        with traces.joined(dark.traceparent):
            assert get_contextvars() == {}
    with traces.joined(PARENT):
        assert get_contextvars() == {"trace_id": PARENT[3:35], "span_id": PARENT[36:52]}
    assert get_contextvars() == {}


async def test_off_is_one_object_for_everything() -> None:
    assert not traces.on()
    span = traces.begin("anything", "server", {}, parent=PARENT)
    assert span is traces.NOTHING
    with span as held, traces.joined(PARENT):
        held.set({"a": 1})
        held.fail("whatever")
        assert (held.recorded, held.traceparent, traces.trace_id()) == (False, None, None)
        assert get_contextvars() == {}
