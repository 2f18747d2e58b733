"""A headless Chromium that shows one page as a phone or a desktop does, over its DevTools."""

import base64
import contextlib
import io
import itertools
import json
import re
import shutil
import subprocess

import httpx
import pytest
from PIL import Image
from websockets.sync.client import connect

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
PHONE, DESKTOP = 390, 1280


class Browser:
    """One open tab."""

    def __init__(self, socket):
        self.socket = socket
        self.numbers = itertools.count(1)
        self.seen = []

    def ask(self, method, **parameters):
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        return self.wait(lambda told: told.get("id") == number)["result"]

    def wait(self, wanted):
        while True:
            told = json.loads(self.socket.recv(timeout=60))
            if wanted(told):
                return told
            self.seen.append(told)

    def open(self, path, *, width=DESKTOP, dark=False):
        """Show a page; returns once it is loaded."""
        self.seen.clear()
        self.ask("Page.enable")
        self.ask("Network.enable")
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width == PHONE,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.ask("Page.navigate", url=path.as_uri())
        self.wait(lambda told: told.get("method") == "Page.loadEventFired")

    def value(self, expression):
        """What the expression is in the page."""
        asked = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        return asked["result"].get("value")

    def requested(self):
        """The addresses that the page asked for, but for those that hold their content."""
        told = [one["params"] for one in self.seen if one["method"] == "Network.requestWillBeSent"]
        found = [one["request"]["url"] for one in told]
        return [address for address in found if not address.startswith("data:")]

    def picture(self):
        """The whole page."""
        taken = self.ask("Page.captureScreenshot", captureBeyondViewport=True)
        return Image.open(io.BytesIO(base64.b64decode(taken["data"]))).convert("RGB")


@contextlib.contextmanager
def browser(folder):
    """A browser with a profile in this folder; the test is skipped where there is none."""
    if CHROMIUM is None:
        pytest.skip("There is no chromium to open the pages with.")
    asked = (
        "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
        f"--remote-debugging-port=0 --user-data-dir={folder} about:blank"
    )
    process = subprocess.Popen(
        [CHROMIUM, *asked.split()], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    try:
        lines = iter(process.stderr.readline, "")
        found = (re.search(r"DevTools listening on ws://([^/]+)/", line) for line in lines)
        host = next(match for match in found if match)[1]
        tabs = httpx.get(f"http://{host}/json", trust_env=False).json()
        (tab,) = [one for one in tabs if one["type"] == "page"]
        address = tab["webSocketDebuggerUrl"]
        with connect(address, max_size=None, proxy=None) as socket:
            yield Browser(socket)
    finally:
        process.terminate()
        process.wait(timeout=30)
        process.stderr.close()
