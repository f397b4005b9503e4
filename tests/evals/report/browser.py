"""Headless Chromium over its debugging pipe: enough to look at a page, press things and read what it says.

Chromium reads commands from file descriptor 3 and writes answers and events to 4, JSON ended by a zero
byte (https://chromedevtools.github.io/devtools-protocol/). No driver, no port, no other package.

The README's picture:
python tests/evals/report/browser.py runs/quickstart/report/report.html docs/images/report.png
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str | None:
    """The first Chromium on the path."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


class Browser:
    """One tab; use as a context manager.

    Attributes:
        events: everything the browser reported, for `faults` and `requests`.
    """

    def __init__(self, executable: str, timeout: float = 240.0) -> None:
        self.events: list[dict[str, Any]] = []
        self._timeout = timeout
        self._next_id = 0
        self._buffer = b""
        self._profile = tempfile.mkdtemp(prefix="chromium-")
        child_reads, self._write = os.pipe()
        self._read, child_writes = os.pipe()
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (child_reads, child_writes)]

        def connect() -> None:
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        quiet = {
            **os.environ,
            "DBUS_SESSION_BUS_ADDRESS": "disabled:",
            "DBUS_SYSTEM_BUS_ADDRESS": "disabled:",
        }
        flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--hide-scrollbars",
        ]
        self._process = subprocess.Popen(
            [
                executable,
                *flags,
                "--remote-debugging-pipe",
                f"--user-data-dir={self._profile}",
                "about:blank",
            ],
            preexec_fn=connect,
            pass_fds=(3, 4),
            env=quiet,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for fd in (*high, child_reads, child_writes):
            os.close(fd)
        targets = self._call("Target.getTargets", session="")["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        attached = self._call("Target.attachToTarget", session="", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
        os.close(self._write)
        os.close(self._read)
        shutil.rmtree(self._profile, ignore_errors=True)

    def open(
        self, path: Path, *, width: int = 1200, height: int = 900, scheme: str = "light", media: str = ""
    ) -> None:
        """Load a local page at a width in CSS pixels, with the reader preferring that colour scheme.

        Args:
            media: `print` for the page as a printer gets it.
        """
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self._call(
            "Emulation.setEmulatedMedia",
            media=media,
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        self.events.clear()
        self._call("Page.navigate", url=path.resolve().as_uri())
        deadline = time.monotonic() + self._timeout
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._receive(deadline)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True)
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release a key such as `Tab` or `ArrowRight`."""
        codes = {"Tab": 9, "Enter": 13, " ": 32, "ArrowRight": 39}
        extra = {"text": "\r"} if key == "Enter" else ({"text": " "} if key == " " else {})
        for kind in ("keyDown", "keyUp"):
            self._call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                windowsVirtualKeyCode=codes[key],
                **(extra if kind == "keyDown" else {}),
            )

    def screenshot(self, path: Path, *, full: bool = True) -> None:
        """A PNG of the whole page, or of the window."""
        data = self._call("Page.captureScreenshot", captureBeyondViewport=full)["data"]
        path.write_bytes(base64.b64decode(data))

    def faults(self) -> list[str]:
        """Errors and warnings of the console, refused resources, uncaught exceptions since `open`."""
        found = []
        for event in self.events:
            body = json.dumps(event["params"])
            if (
                event["method"] == "Runtime.exceptionThrown"
                or (
                    event["method"] == "Log.entryAdded"
                    and event["params"]["entry"]["level"]
                    in (
                        "error",
                        "warning",
                    )
                )
                or (
                    event["method"] == "Runtime.consoleAPICalled"
                    and event["params"]["type"]
                    in (
                        "error",
                        "warning",
                        "assert",
                    )
                )
            ):
                found.append(body)
        return found

    def requests(self) -> list[str]:
        """Every address that the page asked for since `open`, pictures in data: left out."""
        urls = [
            event["params"]["request"]["url"]
            for event in self.events
            if event["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in urls if not url.startswith("data:")]

    def _call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self._next_id += 1
        message: dict[str, Any] = {"id": self._next_id, "method": method, "params": params}
        if session is None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + self._timeout
        while True:
            answer = self._receive(deadline)
            if answer.get("id") == self._next_id:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return answer["result"]

    def _receive(self, deadline: float) -> dict[str, Any]:
        """The next message; events are kept as well."""
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(self._read, 1 << 16) if ready else b""
            if not data:
                raise AssertionError(f"Chromium did not answer within {self._timeout:.0f} s")
            self._buffer += data
        raw, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(raw)
        if "method" in message:
            self.events.append(message)
        return message


def take_picture(page: Path, picture: Path, width: int = 1200, height: int = 1190) -> None:
    """Save what a reader sees first, as a PNG of 256 colours."""
    from PIL import Image

    executable = find_chromium()
    if executable is None:
        raise SystemExit("no Chromium on the path (Debian: apt-get install chromium)")
    with Browser(executable) as browser:
        browser.open(page, width=width, height=height)
        browser.screenshot(picture, full=False)
    Image.open(picture).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(picture, optimize=True)


if __name__ == "__main__":
    take_picture(Path(sys.argv[1]), Path(sys.argv[2]))
