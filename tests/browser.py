"""A headless Chromium, driven over its DevTools protocol."""

import asyncio
import itertools
import re
import shutil
import tempfile
from types import TracebackType
from typing import Any

import aiohttp

from tests.processes import until
from tests.tools import on_path

_ARGUMENTS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0")


class Browser:
    """One browser with one page; skips the test where there is none."""

    async def __aenter__(self) -> "Browser":
        program = shutil.which("chromium-browser") or on_path("chromium", "chromium")
        self._profile = tempfile.TemporaryDirectory(prefix="gembackend-chromium-", ignore_cleanup_errors=True)
        self._process = await asyncio.create_subprocess_exec(
            *(program, *_ARGUMENTS, f"--user-data-dir={self._profile.name}", "about:blank"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        self._numbers = itertools.count(1)
        self._http = aiohttp.ClientSession()
        async with asyncio.timeout(20):
            port = await self._port()
            self._hearing = asyncio.create_task(self._hear(), name="chromium")
            async with self._http.put(f"http://127.0.0.1:{port}/json/new") as made:
                page = await made.json(content_type=None)
            self._page = await self._http.ws_connect(page["webSocketDebuggerUrl"])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._page.close()
        await self._http.close()
        self._process.terminate()
        await self._process.wait()
        await self._hearing
        self._profile.cleanup()

    async def open(self, url: str) -> None:
        """Go to a page and wait until it has loaded."""
        await self._command("Page.navigate", url=url)
        await self.at(url)

    async def click(self, selector: str) -> None:
        """Click with the mouse in the middle of an element."""
        box = await self._evaluate(
            f"(() => {{ const box = document.querySelector({selector!r}).getBoundingClientRect();"
            " return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self._command("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    async def press(self, selector: str) -> None:
        """Wait until there is an element, wherever on the page, and click it without a mouse."""

        async def pressed() -> bool:
            press = f"(() => {{ const it = document.querySelector({selector!r}); it?.click(); return !!it; }})()"
            return bool(await self._evaluate(press))

        await until(pressed, f"{selector} pressed")

    async def at(self, prefix: str) -> None:
        """Wait until a page whose address begins so has loaded."""

        async def there() -> bool:
            place = await self._evaluate("document.readyState + ' ' + location.href")
            return str(place).startswith(f"complete {prefix}")

        await until(there, f"the browser at {prefix}")

    async def shows(self, text: str) -> None:
        """Wait until the page shows a text."""

        async def shown() -> bool:
            return text in str(await self._evaluate("document.body.innerText"))

        await until(shown, f"{text!r} shown")

    async def _evaluate(self, expression: str) -> Any:
        answer = await self._command("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer.get("result", {}).get("value")

    async def _command(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        await self._page.send_json({"id": number, "method": method, "params": params})
        async with asyncio.timeout(10):
            while (answer := await self._page.receive_json()).get("id") != number:
                pass
        return answer.get("result", {})

    async def _port(self) -> str:
        """The port that it says it listens on."""
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            if found := re.search(rb"DevTools listening on ws://127.0.0.1:(\d+)/", line):
                return found[1].decode()
        raise AssertionError("Chromium ended")

    async def _hear(self) -> None:
        """Keep its error output from filling up."""
        assert self._process.stderr is not None
        while await self._process.stderr.read(65_536):
            pass
