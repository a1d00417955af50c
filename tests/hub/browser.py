"""A browser that a test types into: Chromium without a window, told what to do over a pipe.

It is spoken to by the DevTools protocol (https://chromedevtools.github.io/devtools-protocol/),
messages of JSON that end with a NUL.
"""

import base64
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.chromium import CHROMIUM, command, environment

_KEYS = {
    "Tab": {"code": "Tab", "windowsVirtualKeyCode": 9},
    "Enter": {"code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"},
}


class Browser:
    """One page of it."""

    def __init__(self, to: int, back: int) -> None:
        self._to = to
        self._back = back
        self._read = bytearray()
        self._number = 0
        self._events: list[dict[str, Any]] = []
        self._session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Have a command done, and what it gave."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            came = self._next()
            if came.get("id") == self._number:
                assert "error" not in came, came
                result: dict[str, Any] = came["result"]
                return result
            self._events.append(came)

    def open(self, address: str) -> None:
        """Go to a page and wait until it is there."""
        self._loading(lambda: self.call("Page.navigate", url=address))

    def evaluate(self, expression: str) -> Any:
        """The value of an expression of the page's."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """Press a key, and let it go."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, **_KEYS[key])

    def follow(self, key: str) -> str:
        """Press a key that leads to another page; the address of that one."""
        self._loading(lambda: self.press(key))
        return str(self.evaluate("location.pathname"))

    def resize(self, width: int, *, dark: bool = False) -> None:
        """Have a window so wide, in pixels."""
        sizes: Mapping[str, Any] = {"height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", width=width, **sizes)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path: Path) -> None:
        """All of the page, as a picture."""
        taken = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(taken["data"]))

    def complaints(self) -> list[str]:
        """What pages wrote to the console, or the browser about them, since this was asked."""
        wanted = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        found = [str(each["params"]) for each in self._events if each.get("method") in wanted]
        self._events.clear()
        return found

    def _loading(self, begin: Any) -> None:
        self._events = [
            each for each in self._events if each.get("method") != "Page.loadEventFired"
        ]
        begin()
        while not any(each.get("method") == "Page.loadEventFired" for each in self._events):
            self._events.append(self._next())

    def _next(self) -> dict[str, Any]:
        while (end := self._read.find(b"\0")) < 0:
            piece = os.read(self._back, 1 << 16)
            if not piece:
                raise EOFError("the browser went away")
            self._read += piece
        message: dict[str, Any] = json.loads(self._read[:end])
        del self._read[: end + 1]
        return message


@contextmanager
def browsing(folder: Path) -> Iterator[Browser]:
    """A browser that keeps its things in a folder. Skips the test where none runs."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here")
    theirs, to = os.pipe()
    back, ours = os.pipe()

    def connect() -> None:
        # It reads from 3 and writes to 4.
        high = os.dup(ours), os.dup(theirs)
        os.dup2(high[1], 3)
        os.dup2(high[0], 4)

    with (
        environment() as variables,
        subprocess.Popen(
            command(folder, "--remote-debugging-pipe"),
            env=variables,
            preexec_fn=connect,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process,
    ):
        os.close(theirs)
        os.close(ours)
        try:
            try:
                browser = Browser(to, back)
            except (EOFError, BrokenPipeError):
                pytest.skip("Chromium does not run here")
            yield browser
        finally:
            process.kill()
            os.close(to)
            os.close(back)
