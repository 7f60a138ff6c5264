"""Typed values out of queries, paths and headers."""

from contextlib import suppress
from datetime import UTC, datetime
from ipaddress import ip_network
from unittest import mock
from uuid import UUID

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from gembackend.plumbing.faults import Fault
from gembackend.web.address import client_address
from gembackend.web.body import json_reply
from gembackend.web.paging import Page, encode_cursor, page_of
from gembackend.web.params import idempotency_key, path_id, prefer_wait

patient = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def request(path: str = "/", *headers: tuple[str, str], **match: str) -> web.Request:
    return make_mocked_request("GET", path, headers=CIMultiDict(headers), match_info=match)


@pytest.mark.parametrize(("query", "limit"), [("", 50), ("limit=1", 1), ("limit=200", 200), ("limit=007", 7)])
def test_a_page_has_a_limit(query: str, limit: int) -> None:
    assert page_of(request(f"/?{query}")) == Page(limit, None)


@pytest.mark.parametrize(
    "limit", ["0", "201", "-1", "+5", "1.0", "1e2", "", "abc", "9" * 5000, "٥", "0x10", "1%00", "1 "]
)
def test_other_limits_are_refused(limit: str) -> None:
    with pytest.raises(Fault) as refused:
        page_of(request(f"/?limit={limit}"))
    assert [error.field for error in refused.value.errors] == ["limit"]


@patient
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=50))
def test_a_cursor_comes_back_as_it_was(key: str) -> None:
    assert page_of(mock.Mock(query={"cursor": encode_cursor(key)})).cursor == key


@patient
@given(st.text(max_size=60))
def test_any_other_cursor_is_a_fault_or_has_one_spelling(cursor: str) -> None:
    asked = mock.Mock(query={"cursor": cursor})
    with suppress(Fault):
        key = page_of(asked).cursor
        assert key
        assert encode_cursor(key) == cursor


def test_a_path_names_a_row_by_its_canonical_id_only() -> None:
    known = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
    assert path_id(request(id=str(known)), "id", "thing") == known
    for other in (
        known.hex,
        str(known).upper(),
        f"{{{known}}}",
        f"urn:uuid:{known}",
        "7",
        "",
        "../x",
        "\0",
        "\udcff",
        "ａ",
    ):
        with pytest.raises(Fault) as absent:
            path_id(request(id=other), "id", "thing")
        assert absent.value.code.name == "not_found"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([], None),
        (["wait=10"], 10),
        (["wait=0"], 0),
        (["wait=31"], 30),
        (["wait=999999999"], 30),
        (["WAIT=5"], 5),
        (['wait="5"'], 5),
        (["wait = 5; x=y"], 5),
        (["respond-async, wait=7"], 7),
        (["respond-async", "wait=7, wait=9"], 7),
        (["wait=-1"], None),
        (["wait=1.5"], None),
        (["wait=9999999999"], None),
        (["wait=٥"], None),
        (["wait"], None),
        (["await=5"], None),
        (["wait=5x"], None),
    ],
)
def test_prefer_wait(headers: list[str], seconds: float | None) -> None:
    assert prefer_wait(request("/", *[("Prefer", header) for header in headers])) == seconds


@pytest.mark.parametrize("key", ["a", "8e03978e-40d5-43e8-bc93-6894a57f9324", "~!@#", "x" * 255])
def test_an_idempotency_key(key: str) -> None:
    assert idempotency_key(request("/", ("Idempotency-Key", key))) == key


@pytest.mark.parametrize("keys", [[""], ["x" * 256], ["a b"], ["é"], ["a\udcff"], ["a\x7f"], ["a", "a"]])
def test_other_idempotency_keys_are_refused(keys: list[str]) -> None:
    asked = mock.Mock(headers=CIMultiDict([("Idempotency-Key", key) for key in keys]))
    with pytest.raises(Fault) as refused:
        idempotency_key(asked)
    assert refused.value.code.name == "validation_failed"


@pytest.mark.parametrize(
    ("remote", "forwarded", "client"),
    [
        ("203.0.113.1", ["198.51.100.1"], "203.0.113.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["1.1.1.1, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["1.1.1.1", "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["1.1.1.1, nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("::ffff:10.0.0.1", ["::ffff:198.51.100.1"], "198.51.100.1"),
        ("fd00::1", ["2001:db8:1:2:3::4"], "2001:db8:1:2::/64"),
        ("2001:db8:1:2:3::4", [], "2001:db8:1:2::/64"),
        ("", ["198.51.100.1"], "unknown"),
        ("10.0.0.1", ["198.51.100.1:5678"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1:5678, 10.0.0.2:443"], "198.51.100.1"),
        ("10.0.0.1", ["[2001:db8:1:2::1]:443"], "2001:db8:1:2::/64"),
        ("10.0.0.1", ["[2001:db8:1:2::1]"], "2001:db8:1:2::/64"),
        ("10.0.0.1", ["2001:DB8:1:2::1"], "2001:db8:1:2::/64"),
        ("10.0.0.1", ['"[2001:db8:1:2::1]:443"'], "2001:db8:1:2::/64"),
        ("10.0.0.1", ['"198.51.100.1:80"'], "198.51.100.1"),
        ("10.0.0.1", ["[::ffff:198.51.100.1]:443"], "198.51.100.1"),
        ("10.0.0.1", ["::ffff:c633:6401"], "198.51.100.1"),
        ("10.0.0.1", ["64:ff9b::198.51.100.1"], "198.51.100.1"),
        ("64:ff9b::198.51.100.1", [], "198.51.100.1"),
        ("10.0.0.1", ["fe80::1%eth0"], "fe80::/64"),
        ("10.0.0.1", ["1.1.1.1, , 198.51.100.1 , ,"], "198.51.100.1"),
        ("10.0.0.1", ["", "198.51.100.1", ""], "198.51.100.1"),
        ("10.0.0.1", ["1.1.1.1", "198.51.100.1:1, 10.0.0.9"], "198.51.100.1"),
        ("10.0.0.1", ["1.1.1.1, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1, unknown, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["1.1.1.1, _hidden"], "10.0.0.1"),
        ("10.0.0.1", ["1.1.1.1, 198.51.100.1:"], "10.0.0.1"),
        ("10.0.0.1", ["1.1.1.1, 198.51.100.1:port"], "10.0.0.1"),
        ("10.0.0.1", ["1.1.1.1, [198.51.100.1"], "10.0.0.1"),
        ("10.0.0.1", ["1.1.1.1, 198.51.100.١"], "10.0.0.1"),
        ("10.0.0.1", ["1.1.1.1, 198.51.100.01"], "10.0.0.1"),
        ("10.0.0.1", ["1.1.1.1, ::ffff:10.0.0.7"], "1.1.1.1"),
        ("10.0.0.1", ['"'], "10.0.0.1"),
        ("198.51.100.1", ["10.0.0.1:80", "1.1.1.1"], "198.51.100.1"),
    ],
)
def test_the_address_of_a_client(remote: str, forwarded: list[str], client: str) -> None:
    asked = mock.Mock(remote=remote, headers=CIMultiDict([("X-Forwarded-For", value) for value in forwarded]))
    assert client_address(asked, (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))) == client


def test_no_other_header_says_where_a_client_is() -> None:
    """What a trusted proxy does not write, it passes on as the client wrote it."""
    headers = CIMultiDict({"Forwarded": "for=198.51.100.1", "X-Real-IP": "198.51.100.1", "Client-IP": "198.51.100.1"})
    asked = mock.Mock(remote="10.0.0.1", headers=headers)
    assert client_address(asked, (ip_network("10.0.0.0/8"),)) == "10.0.0.1"


def test_replies_spell_ids_and_times_as_the_contract_says() -> None:
    reply = json_reply({"id": UUID(int=7), "at": datetime(2026, 1, 2, 3, 4, 5, 678, UTC)}, status=201)
    assert reply.body == b'{"id":"00000000-0000-0000-0000-000000000007","at":"2026-01-02T03:04:05.000678Z"}'
    assert (reply.status, reply.headers["Content-Type"]) == (201, "application/json")
