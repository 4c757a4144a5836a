"""A headless Chromium for the tests of pages, and the fixture that lends it.

Chromium is driven through its debugging pipe (file descriptors 3 and 4, JSON ended by a zero byte), so that no
other package is needed.
"""

import json
import os
import shutil
import subprocess

import pytest

BINARY = next(filter(shutil.which, ("chromium", "chromium-browser", "google-chrome")), None)


class Browser:
    """One page of a headless Chromium."""

    def __init__(self, profile):
        reading, self.out = os.pipe()
        self.into, writing = os.pipe()
        command = f"exec {BINARY} --headless --no-sandbox --disable-gpu --remote-debugging-pipe "
        command += f"--user-data-dir={profile} 3<&{reading} 4>&{writing}"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(["bash", "-c", command], pass_fds=(reading, writing), **quiet)
        os.close(reading)
        os.close(writing)
        self.count, self.rest, self.events, self.session = 0, b"", [], {}
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = {
            "sessionId": self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        }
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def read(self):
        while b"\0" not in self.rest:
            self.rest += os.read(self.into, 1 << 16) or pytest.fail("Chromium has ended")
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    def call(self, method, **params):
        self.count += 1
        message = {"id": self.count, "method": method, "params": params, **self.session}
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while (answer := self.read()).get("id") != self.count:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, path, width, scheme="light"):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=True)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.events = []
        self.call("Page.navigate", url=f"file://{path}")
        while all(event.get("method") != "Page.loadEventFired" for event in self.events):
            self.events.append(self.read())

    def ask(self, expression):
        """The value of an expression; of a promise, what it promises."""
        options = {"returnByValue": True, "awaitPromise": True}
        answer = self.call("Runtime.evaluate", expression=expression, **options)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def heard(self, *methods):
        return [event["params"] for event in self.events if event.get("method") in methods]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if BINARY is None:
        pytest.skip("Chromium is not installed")
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.process.kill()
    opened.process.wait()
    os.close(opened.out)
    os.close(opened.into)
