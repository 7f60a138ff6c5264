"""The page that shows the API description: everything it needs comes from here, and nothing else may run in it."""

import re
from collections.abc import AsyncIterator

import pytest

from gembackend.web.docs import ASSETS
from tests.whole import Whole, whole_service


@pytest.fixture
async def whole(database_url: str, redis_url: str) -> AsyncIterator[Whole]:
    async with whole_service(database_url, redis_url) as started:
        yield started


async def test_everything_the_page_names_is_served_with_its_type(whole: Whole) -> None:
    page = await whole.client.call("GET", "/docs")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    names = re.findall(r'(?:src|href)="([^"]+)"', page.body.decode())
    types = {}
    for name in names:
        if not name.startswith("data:"):
            asset = await whole.client.call("GET", f"/{name}")
            assert asset.status == 200
            assert asset.headers["X-Content-Type-Options"] == "nosniff"
            types[name] = asset.headers["Content-Type"]
    assert types == {
        "docs/swagger-ui.css": "text/css; charset=utf-8",
        "docs/swagger-ui-bundle.js": "text/javascript; charset=utf-8",
        "docs/start.js": "text/javascript; charset=utf-8",
    }


async def test_the_page_may_neither_fetch_from_elsewhere_nor_run_what_is_written_in_it(whole: Whole) -> None:
    page = await whole.client.call("GET", "/docs")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    text = page.body.decode()
    assert "://" not in text
    assert not re.search(r"<script>|<style|\son\w+=|style=", text)


async def test_only_the_pages_own_files_are_served(whole: Whole) -> None:
    for name in ("index.html", "swagger-ui.LICENSE.txt", "..%2Fdocs.py", "%2e%2e/x.py", "start.js%2F", "start.js%00"):
        assert (await whole.client.call("GET", f"/docs/{name}")).code == "not_found"


def test_the_licence_of_swagger_ui_comes_with_it() -> None:
    assert "Apache License" in (ASSETS / "swagger-ui.LICENSE.txt").read_text()
