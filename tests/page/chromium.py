"""A real browser, spoken to over its DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from trio_websocket import open_websocket_url

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
START_SECONDS = 60
WAIT_SECONDS = 30
MAX_MESSAGE_BYTES = 32 * 2**20


def find() -> str | None:
    """Where the browser is; None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def _write(folder, name, data):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


class Tab:
    """One page of the browser.

    Args:
        socket: To its target.
    """

    def __init__(self, socket) -> None:
        self._socket = socket
        self._number = 0
        self.events = []

    async def call(self, method, **fields):
        self._number += 1
        await self._socket.send_message(
            json.dumps({"id": self._number, "method": method, "params": fields})
        )
        while True:
            message = json.loads(await self._socket.get_message())
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    async def js(self, expression):
        """The value of an expression, promises awaited."""
        told = await self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    async def until(self, condition):
        """Wait until an expression is true; while a page is on its way it may not even have a value."""
        told = {}
        with trio.move_on_after(WAIT_SECONDS):
            while not told.get("result", {}).get("value"):
                await trio.sleep(0.05)
                told = await self.call("Runtime.evaluate", expression=condition)
            return
        raise AssertionError(condition, told, self.complaints())

    async def press(self, key, code=0):
        for kind in ("rawKeyDown", "keyUp"):
            await self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code
            )

    async def screen(self, width, height, *, dark=False, calm=False):
        """A screen of that size, with what its owner prefers."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        prefers = {
            "prefers-color-scheme": "dark" if dark else "light",
            "prefers-reduced-motion": "reduce" if calm else "no-preference",
        }
        features = [{"name": name, "value": value} for name, value in prefers.items()]
        await self.call("Emulation.setEmulatedMedia", features=features)

    async def picture(self, name):
        """A screenshot of the whole page, into the folder that `SWARM_SCREENSHOTS` names; none without it."""
        folder = os.environ.get("SWARM_SCREENSHOTS")
        if folder:
            told = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
            _write(Path(folder), f"{name}.png", base64.b64decode(told["data"]))

    def complaints(self):
        """What the browser's console was told: faults, and what the policy refused."""
        kinds = {"Log.entryAdded", "Runtime.exceptionThrown"}
        return [one["params"] for one in self.events if one["method"] in kinds]


@asynccontextmanager
async def opened(program, profile):
    """A tab of a browser of its own, which is ended afterwards."""
    arguments = ["--headless=new", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0"]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")
    arguments += [f"--user-data-dir={profile}", "about:blank"]
    process = await trio.to_thread.run_sync(
        lambda: subprocess.Popen(
            [program, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    )
    try:
        told = Path(profile) / "DevToolsActivePort"
        with trio.fail_after(START_SECONDS):
            while not told.exists() or len(told.read_text().splitlines()) < 2:  # noqa: ASYNC110 - a file
                await trio.sleep(0.05)
        port, path = told.read_text().splitlines()[:2]
        url = f"ws://127.0.0.1:{port}{path}"
        async with open_websocket_url(url, max_message_size=MAX_MESSAGE_BYTES) as browser:
            whole = Tab(browser)
            target = (await whole.call("Target.createTarget", url="about:blank"))["targetId"]
            page = f"ws://127.0.0.1:{port}/devtools/page/{target}"
            async with open_websocket_url(page, max_message_size=MAX_MESSAGE_BYTES) as socket:
                tab = Tab(socket)
                for domain in ("Page", "Runtime", "Log", "Network"):
                    await tab.call(f"{domain}.enable")
                yield tab
    finally:
        process.kill()
        await trio.to_thread.run_sync(process.wait)
