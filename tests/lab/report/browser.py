"""A headless Chromium, driven over pipes by the DevTools protocol: pages as they are, nothing put into them."""

import base64
import fcntl
import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FOUND = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
_FLAGS = "--headless=new --no-sandbox --disable-gpu --remote-debugging-pipe --hide-scrollbars --no-first-run"
_FRAMES = "for (const _ of [1, 2]) await new Promise(requestAnimationFrame);"


class Tab:
    """One page of a browser."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers, self._buffer, self._sent = commands, answers, b"", 0
        self._session: dict[str, str] = {}
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Page", "Network", "Runtime"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Return the browser's answer to a command."""
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": params, **self._session}
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (found := self._next()).get("id") != self._sent:
            pass
        assert "error" not in found, found
        return found["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            more = os.read(self._answers, 1 << 20)
            assert more, "the browser has ended"
            self._buffer += more
        line, _, self._buffer = self._buffer.partition(b"\0")
        found = json.loads(line)
        if found.get("method") == "Network.requestWillBeSent":
            self.requests.append(found["params"]["request"]["url"])
        return found

    def open(self, file: Path) -> None:
        """Load a page to its end."""
        self.call("Page.navigate", url=file.as_uri())
        while self._next().get("method") != "Page.loadEventFired":
            pass

    def look(self, width: int, height: int = 900, *, scheme: str = "light", media: str = "screen") -> None:
        """Set the window's width, and what the reader prefers."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)

    def ask(self, expression: str) -> Any:
        """Return what an expression of JavaScript gives, once it is on the screen."""
        shown = f"(async () => {{const found = {expression}; {_FRAMES} return found}})()"
        found = self.call("Runtime.evaluate", expression=shown, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def shot(self, **clip: float) -> bytes:
        """Return a PNG of the whole page, or of x, y, width and height of it."""
        given = {"clip": {**clip, "scale": 1}} if clip else {}
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True, **given)
        return base64.b64decode(found["data"])

    def printed(self) -> bytes:
        """Return a PDF of the page."""
        return base64.b64decode(self.call("Page.printToPDF", preferCSSPageSize=True)["data"])


def _moved(end: int) -> int:
    """Return a pipe's end under a number that is none of those the browser's ends take."""
    moved = fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(end)
    return moved


@contextmanager
def browser(profile: Path) -> Iterator[Tab]:
    """Start a browser that reaches no network, with a profile of its own, and end it."""
    theirs, ours, answers, back = (_moved(end) for _ in range(2) for end in os.pipe())
    offline = ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}"]
    actions: list[Any] = [(os.POSIX_SPAWN_OPEN, end, os.devnull, os.O_RDWR, 0) for end in (1, 2)]
    actions += [(os.POSIX_SPAWN_DUP2, theirs, 3), (os.POSIX_SPAWN_DUP2, back, 4)]
    environment = {**os.environ, "HOME": str(profile)}
    assert FOUND is not None
    pid = os.posix_spawn(FOUND, [FOUND, *_FLAGS.split(), *offline], environment, file_actions=actions, setpgroup=0)
    os.close(theirs)
    os.close(back)
    try:
        yield Tab(ours, answers)
    finally:
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(ours)
        os.close(answers)
