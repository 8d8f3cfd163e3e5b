"""A headless Chromium driven over its debugging pipe: no port, no driver, no network."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


class Browser:
    """One page. `problems` collects console errors, uncaught exceptions and blocked or failed requests."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM, "ask for CHROMIUM before making a Browser"
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        # Chromium reads commands on descriptor 3 and answers on 4; bash can put them there.
        plumbing = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
        command = ["bash", "-c", plumbing, CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
        pipes = (theirs_in, theirs_out)
        self._process = subprocess.Popen(command, pass_fds=pipes, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for end in pipes:
            os.close(end)
        self._read, self._write = os.fdopen(ours_in, "rb"), os.fdopen(ours_out, "wb")
        self._rest, self._last, self._session = b"", 0, None
        self._loaded = False
        self.problems: list[str] = []
        self.requests: list[str] = []
        target = next(t for t in self.send("Target.getTargets")["targetInfos"] if t["type"] == "page")
        attached = self.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(timeout=300)
        self._read.close()
        self._write.close()

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the DevTools protocol and its result."""
        return self.send_together(method, params)[0]

    def send_together(self, method: str, *each: dict[str, Any]) -> list[dict[str, Any]]:
        """The same command with each of these parameters, none of which waits for the answer to another."""
        numbers = range(self._last + 1, self._last + 1 + len(each))
        self._last += len(each)
        session = {"sessionId": self._session} if self._session else {}
        messages = [
            {"id": number, "method": method, "params": params, **session}
            for number, params in zip(numbers, each, strict=True)
        ]
        self._write.write(b"".join(json.dumps(message).encode() + b"\0" for message in messages))
        self._write.flush()
        results: dict[int, dict[str, Any]] = {}
        while len(results) < len(each):
            answer = self._next()
            if answer.get("id") in numbers:
                assert "error" not in answer, f"{method}: {answer.get('error')}"
                results[answer["id"]] = dict(answer["result"])
        return [results[number] for number in numbers]

    def open(self, page: Path | str, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Load a file or an address and wait until it and its pictures are there."""
        theme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=theme)
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self._loaded = False
        self.send("Page.navigate", url=page if isinstance(page, str) else page.resolve().as_uri())
        while not self._loaded:
            self._next()

    def run(self, script: str) -> Any:
        """The value of a script expression on the page; promises are awaited."""
        result = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, script: str, seconds: float = 60.0) -> Any:
        """The value of a script expression once it is true; fails after a generous time. An element's value is {}."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)) and value != {}:
            assert time.monotonic() < end, f"never true: {script}; {self.problems}"
            time.sleep(0.1)
        return value

    def mouse(self, kind: str, x: float, y: float, *, held: bool = False, clicks: int = 0) -> None:
        """One event of the mouse: `Pressed`, `Moved` or `Released` at a point of the window."""
        button = "none" if kind == "Moved" and not held else "left"
        params = {"x": x, "y": y, "button": button, "buttons": int(held), "clickCount": clicks}
        self.send("Input.dispatchMouseEvent", type=f"mouse{kind}", **params)

    def click(self, x: float, y: float) -> None:
        """A click at a point of the window."""
        self.mouse("Moved", x, y)
        self.mouse("Pressed", x, y, held=True, clicks=1)
        self.mouse("Released", x, y, clicks=1)

    def drag(self, points: Sequence[tuple[float, float]]) -> None:
        """Press at the first point, move over the others, release at the last."""
        self.mouse("Moved", *points[0])
        self.mouse("Pressed", *points[0], held=True, clicks=1)
        for point in points[1:]:
            self.mouse("Moved", *point, held=True)
            time.sleep(0.02)
        self.mouse("Released", *points[-1], clicks=1)

    def key(self, key: str, code: str = "", number: int = 0) -> None:
        """Press and release a key."""
        text = {"text": key} if len(key) == 1 else {}
        for kind in ("keyDown", "keyUp"):
            extra = text if kind == "keyDown" else {}
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=code, windowsVirtualKeyCode=number, **extra)

    def picture(self) -> bytes:
        """What the window shows, as PNG."""
        return base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            chunk = os.read(self._read.fileno(), 1 << 16)
            assert chunk, "the browser went away"
            self._rest += chunk
        raw, self._rest = self._rest.split(b"\0", 1)
        message: dict[str, Any] = json.loads(raw)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, event: str, params: dict[str, Any]) -> None:
        if event == "Page.loadEventFired":
            self._loaded = True
        elif event == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(params["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert", "warning"):
            self.problems.append(json.dumps(params["args"]))
        elif event == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.problems.append(json.dumps(params["entry"]))
        elif event == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
