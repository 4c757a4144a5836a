"""The page in a real browser: it opens from disk without a complaint or a request, and nothing is wider than it.

Chromium is driven through its debugging pipe (file descriptors 3 and 4, JSON ended by a zero byte), so that no
other package is needed.
"""

import json
import os
import shutil
import subprocess
from dataclasses import replace

import pytest
import toy_experiment

from nalu_np import cli
from nalu_np.experiments import EXPERIMENTS

pytestmark = pytest.mark.browser

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
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"]["value"]

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


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(EXPERIMENTS, "toy", toy_experiment.toy("nan"))
        folder = tmp_path_factory.mktemp("toy") / "out"
        assert cli.main(["run", "toy", "--out", str(folder)]) == 0
    return folder / "report.html"


@pytest.fixture(scope="module", params=["static", "gate"])
def real(request, tmp_path_factory):
    """A page of an experiment that was trained for a moment."""
    experiment = EXPERIMENTS[request.param]
    configs = [{**config, "steps": 20} for config in experiment.cells("quick", 2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(EXPERIMENTS, experiment.name, replace(experiment, cells=lambda scale, seeds: configs))
        folder = tmp_path_factory.mktemp(experiment.name) / "out"
        assert cli.main(["run", experiment.name, "--out", str(folder)]) == 0
    return folder / "report.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_it_opens_without_a_complaint_and_nothing_is_wider_than_the_page(browser, page, width, scheme):
    check(browser, page, width, scheme)


@pytest.mark.parametrize(("width", "scheme"), [(400, "dark"), (1400, "light")])
def test_so_do_pages_of_real_experiments(browser, real, width, scheme):
    check(browser, real, width, scheme)
    assert browser.ask(CONTRAST) >= 4.5


def check(browser, page, width, scheme):
    browser.open(page, width, scheme)
    asked = [params["request"]["url"] for params in browser.heard("Network.requestWillBeSent")]
    assert asked == [f"file://{page}"]
    assert browser.heard("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown") == []
    assert browser.ask("innerWidth") == width
    assert browser.ask("document.documentElement.scrollWidth") <= width
    outside = """
        [...document.querySelectorAll("main *:not(.box *)")].filter(e => {
            const r = e.getBoundingClientRect();
            return r.width && (r.right > innerWidth + 0.5 || r.left < -0.5);
        }).map(e => e.outerHTML.slice(0, 80))
    """
    assert browser.ask(outside) == []


CONTRAST = """
    (() => {
        const channels = (c) => c.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
            .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        const light = (c) => channels(c).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
        const behind = (e) => {
            for (; e; e = e.parentElement) {
                const c = getComputedStyle(e).backgroundColor;
                if (!/, 0\\)$|transparent/.test(c)) return c;
            }
        };
        return Math.min(...[...document.querySelectorAll("main *:not(svg *)")]
            .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
            .map(e => [light(getComputedStyle(e).color), light(behind(e))].sort((a, b) => b - a))
            .map(([a, b]) => (a + 0.05) / (b + 0.05)));
    })()
"""


def test_text_stands_out_by_day_and_by_night(browser, page):
    lights = {}
    for scheme in ("light", "dark"):
        browser.open(page, 1400, scheme)
        assert browser.ask(CONTRAST) >= 4.5
        lights[scheme] = browser.ask("getComputedStyle(document.body).backgroundColor")
        paper = browser.ask("getComputedStyle(document.querySelector('svg')).backgroundColor")
        assert paper == {"light": "rgba(0, 0, 0, 0)", "dark": "rgb(245, 246, 248)"}[scheme]
    assert lights["light"] != lights["dark"]


def test_the_main_figure_is_on_the_first_screen(browser, page):
    browser.open(page, 1400)
    assert browser.ask("document.querySelector('figure svg').getBoundingClientRect().bottom") < 900


def test_the_main_figure_of_real_experiments_is_on_the_first_screen(browser, real):
    browser.open(real, 1400)
    assert browser.ask("document.querySelector('figure svg').getBoundingClientRect().bottom") < 900
    assert browser.ask("document.querySelectorAll('.cards li').length") in range(1, 7)


def test_on_a_phone_a_row_is_seen_without_scrolling(browser, real):
    browser.open(real, 400)
    assert browser.ask("(e => e.scrollWidth <= e.clientWidth)(document.querySelector('.wide').parentElement)")
    lines = browser.ask("""
        [...document.querySelectorAll(".wide tbody tr:not(.group)")].map(
            row => [...row.querySelectorAll("th, td:not(.interval, .note)")].map(e => e.getBoundingClientRect())
        ).map(cells => [cells.length, Math.max(...cells.map(r => r.right)), new Set(cells.map(r => r.top)).size])
    """)
    assert lines
    assert all(count == 4 and right <= 400 and tops == 1 for count, right, tops in lines)


def test_it_can_be_printed(browser, page):
    browser.open(page, 1400, "dark")
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.call("Page.printToPDF")["data"].startswith("JVBER")  # %PDF
