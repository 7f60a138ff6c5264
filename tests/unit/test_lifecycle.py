"""What a process arranges for itself before it serves."""

import sys
from collections.abc import Iterator

import pytest

from gembackend import app, lifecycle
from tests.accounts import settings


@pytest.fixture(autouse=True)
def interval_restored() -> Iterator[None]:
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


class Starting:
    """A service that cannot start, and says what it found."""

    found: float | None = None

    def __init__(self, _settings: object) -> None:
        pass

    async def start(self) -> None:
        Starting.found = sys.getswitchinterval()
        raise OSError("in use")

    async def stop(self, _grace: float) -> None:
        pass


async def test_threads_that_compute_give_way_to_the_event_loop_in_half_a_millisecond(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(app, "Service", Starting)
    assert sys.getswitchinterval() > 0.001
    assert await lifecycle.serve(settings("postgresql://db/x", "redis://r")) == lifecycle.EXIT_FAILED
    assert Starting.found == pytest.approx(0.0005)
